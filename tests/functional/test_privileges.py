"""`user`: a worker that may not read Python's own files, nor headgate's, does all that one with privileges does."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.backends import Backend, named
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]

#: What is needed only when a worker is at it.
LATE = {"encodings.idna", "headgate.worker.upstream.live", *(f"dns.rdtypes.IN.{kind}" for kind in ("A", "AAAA", "SRV"))}


@pytest.mark.skipif(os.geteuid() != 0, reason="only the super-user can become somebody else")
def test_health_is_checked(headgate: Factory, backend: Backends) -> None:
    one = backend(named("one"))
    server = headgate(f"""
        user nobody nogroup;
        http {{
            upstream u {{ server {one.address}; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; health_check interval=50ms mandatory; }}
            }}
        }}""")
    server.allow("no live upstreams")
    until(lambda: server.get("/").text == "one", "an answer")
    assert server.matching("peer is healthy")


def test_what_a_worker_may_need_later_is_loaded_before_it_is_forked() -> None:
    code = (
        "import sys; from headgate.conf.modules import registry; from headgate.worker import process;"
        "from headgate.worker.resolver import conf; registry(); conf._server('127.0.0.1', 53);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not LATE - set(done.stdout.split())
