"""tcp_nodelay: what the socket says while a response is under way."""

from collections.abc import Callable

import pytest

from tests.client import build
from tests.harness import Server

MODULE = """
import socket

from headgate.conf.template import Variable


def nodelay(r):
    sock = r.conn.transport.get_extra_info("socket")
    return b"%d" % sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


VARIABLES = [Variable("nodelay", nodelay)]
"""
CONF = """
    py_module options.py;
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            add_trailer X-Nodelay $nodelay;
            location / { return 200 "x"; }
            location /off { tcp_nodelay off; return 200 "x"; }
        }
    }
"""


@pytest.mark.parametrize("targets", [["/", "/off", "/"], ["/off", "/off"]])
def test_nodelay_is_the_location_s(headgate: Callable[..., Server], targets: list[str]) -> None:
    server = headgate(CONF, files={"options.py": MODULE})
    with server.client() as client:
        for target in targets:
            client.send(build("GET", target))
            reply = client.response()
            assert reply.text == "x"
            assert [value for _, value in reply.trailers] == ["0" if target == "/off" else "1"]
