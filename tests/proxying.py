"""One server and one backend for all tests of a module: starting them for every case would take most of the time.

    @pytest.fixture(scope="module", params=["headgate", "nginx"])
    def proxy(request, tmp_path_factory):
        with proxying(request.param, tmp_path_factory, CONF, answer, allow=["unsafe URI"]) as running:
            yield running                                  # .server and .backend

BACKEND in the configuration becomes the backend's address. What may stand in the error log is said once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.backends import Backend, Handler
from tests.harness import Server


@dataclass
class Proxying:
    """What runs for a module's tests."""

    server: Server
    backend: Backend


@contextmanager
def proxying(
    kind: str,
    folders: pytest.TempPathFactory,
    conf: str,
    answer: Handler,
    allow: Sequence[str] = (),
    files: Mapping[str, str | bytes] | None = None,
) -> Iterator[Proxying]:
    """Runs `kind` ("headgate" or "nginx") in front of a backend that answers with `answer`; checks the error log."""
    backend = Backend(answer)
    server = Server(conf.replace("BACKEND", backend.address), folders.mktemp("proxying") / kind, kind, files=files)
    server.allow(*allow)
    try:
        yield Proxying(server.start(), backend)
        server.finish()
    finally:
        server.kill()
        backend.stop()
    assert not backend.errors
