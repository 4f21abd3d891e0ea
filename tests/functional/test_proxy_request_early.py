"""Servers that speak before they have the whole request."""

import socket
import threading
from collections.abc import Callable

import pytest

from tests.backends import Backend, named, read_head
from tests.client import build, chunked
from tests.harness import Server

Factory = Callable[..., Server]
CONF = """
    http {
        client_max_body_size 100m;
        proxy_http_version 1.1;
        upstream u { server ADDRESS; keepalive 4; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            add_header X-Status $upstream_status always;
            location / { proxy_pass http://u; }
            location /streamed { proxy_pass http://u; proxy_request_buffering off; }
        }
    }
"""
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200"
BIG = 24 << 20


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_the_body_follows_interim_responses(headgate: Factory, backend: Callable[..., Backend], target: str) -> None:
    """Even when they come before any of it, together with the beginning of the answer's head."""

    def serve(sock: socket.socket) -> None:
        total = len(read_head(sock))
        sock.sendall(INTERIM)
        while total < BIG:
            data = sock.recv(1 << 20)
            if not data:
                return
            total += len(data)
        sock.sendall(b" OK\r\nContent-Length: 4\r\n\r\nfine")

    peer = backend(connection=serve)
    running = headgate(CONF.replace("ADDRESS", peer.address))
    reply = running.request("PUT", target, body=b"x" * BIG)
    assert (reply.status, reply.text) == (200, "fine")


def test_interim_responses_while_the_client_waits(headgate: Factory, backend: Callable[..., Backend]) -> None:
    spoken = threading.Event()

    def serve(sock: socket.socket) -> None:
        body = read_head(sock)
        sock.sendall(INTERIM)
        spoken.set()
        while not body.endswith(b"0\r\n\r\n"):
            data = sock.recv(100)
            if not data:
                return
            body += data
        sock.sendall(b" OK\r\nContent-Length: 4\r\n\r\nfine")

    running = headgate(CONF.replace("ADDRESS", backend(connection=serve).address))
    client = running.client()
    client.send(build("PUT", "/streamed", {"Transfer-Encoding": "chunked"}))
    assert spoken.wait(10)
    client.send(chunked(b"x" * 50))
    assert client.response().text == "fine"


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_an_answer_before_the_end_of_the_body(either: Factory, backend: Callable[..., Backend], target: str) -> None:
    answered = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 2\r\n\r\nno")
        answered.wait(10)  # until then more of the body is to be sent than the sockets hold
        while sock.recv(1 << 20):
            pass

    peer = backend(connection=serve)
    running = either(CONF.replace("ADDRESS", peer.address))
    client = running.client()
    if target == "/":
        client.send(build("PUT", target, body=b"x" * BIG))
    else:
        client.send(build("PUT", target, {"Content-Length": "1000"}, b"x" * 10))
    reply = client.response()
    answered.set()
    assert (reply.status, reply.text) == (413, "no")
    peer.wait_closed(1)


def test_a_body_that_has_come_whole_may_be_sent_again(either: Factory, backend: Callable[..., Backend]) -> None:
    bad, good = backend(lambda request: None), backend(named("good"))
    running = either(CONF.replace("ADDRESS;", f"{bad.address}; server {good.address};"))
    for headers, body in (({}, b"whole"), ({"Transfer-Encoding": "chunked"}, chunked(b"who", b"le"))):
        reply = running.request("PUT", "/streamed", headers, body)
        assert reply.text == "good"
    assert [request.body for request in good.requests] == [b"whole", b"whole"]
    assert running.matching("prematurely closed")
    running.allow("prematurely closed")
