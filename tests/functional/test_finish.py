"""The end of a request: what fails there is logged and holds up nothing else (Request.finish)."""

from collections.abc import Callable

from tests.client import Client
from tests.harness import Server

MODULE = """
from headgate.conf.template import Variable


def fails():
    raise LookupError("no such clean-up")


def get_broken(r):
    raise LookupError("no such value")


def get_cleanups(r):
    for cleanup in (fails, lambda: r.vars.update(cleaned=b"yes"), fails):
        r.on_finish(cleanup)
    return b"with clean-ups"


VARIABLES = [
    Variable("broken", get_broken),
    Variable("cleanups", get_cleanups),
    Variable("was_cleaned", lambda r: r.vars.get("cleaned")),
]
"""

CONF = """
py_module broken.py;
events { }
http {
    log_format broken "$broken";
    log_format cleaned "$uri $was_cleaned";
    access_log logs/cleaned.log cleaned;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /log { access_log logs/broken.log broken; return 200 "logged"; }
        location /clean-up { return 200 "$cleanups"; }
        location /plain { return 200 "plain"; }
    }
}
"""


def test_a_log_that_fails_gives_the_connection_back(headgate: Callable[..., Server]) -> None:
    server = headgate(CONF, files={"broken.py": MODULE})
    server.allow("access log failed")
    with Client(server.port(0)) as client:
        assert client.get("/log").body == b"logged"
        assert client.get("/plain").body == b"plain"
    server.expect_log(r"\[crit\].*access log failed: .*LookupError: no such value while logging request, client: 127")


def test_clean_ups_run_though_one_of_them_fails(headgate: Callable[..., Server]) -> None:
    server = headgate(CONF, files={"broken.py": MODULE})
    server.allow("clean-up of a request failed")
    with Client(server.port(0)) as client:
        assert client.get("/clean-up").body == b"with clean-ups"
        assert client.get("/plain").body == b"plain"
    server.expect_log("clean-up of a request failed: .*LookupError: no such clean-up", 2)
    server.expect_log("^/plain -$", name="logs/cleaned.log")
    assert server.log_lines("logs/cleaned.log") == ["/clean-up yes", "/plain -"]
