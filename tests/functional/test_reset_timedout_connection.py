"""`reset_timedout_connection`: what was not in time, and a 444, is reset; an idle connection is closed."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        reset_timedout_connection RESET;
        client_header_timeout 100ms;
        client_body_timeout 100ms;
        keepalive_timeout 100ms;
        lingering_close off;
        location / { return 200 ok; }
        location /444 { return 444; }
        location /body { proxy_pass http://127.0.0.1:%%PORT_0%%/; }
    }
}
"""
LATE = {
    "444": b"GET /444 HTTP/1.1\r\nHost: a\r\n\r\n",
    "head": b"GET / HTTP/1.1\r\nHost:",
    "body": b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
}


def was_reset(server: Server, data: bytes) -> bool:
    with server.client() as client:
        client.send(data)
        try:
            while client.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return False


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("value", ["on", "off"])
def test_late(either: Factory, value: str, late: str) -> None:
    server = either(CONF.replace("RESET", value))
    assert was_reset(server, LATE[late]) == (value == "on")


def test_idle(either: Factory) -> None:
    server = either(CONF.replace("RESET", "on"))
    assert not was_reset(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
