"""proxy_ignore_client_abort: what a client's leaving means for the request to the server; as nginx."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, Request, named, read_head
from tests.client import build
from tests.harness import Server

Factory = Callable[..., Server]
CONF = """
    http {
        log_format status "$status $upstream_status";
        access_log logs/status.log status;
        upstream u { server ADDRESS; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://u; DIRECTIVES }
        }
    }
"""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that handlers may wait for; it happens at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_server_sees_it_at_once(either: Factory, backend: Callable[..., Backend], how: str, method: str) -> None:
    asked, gone = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        asked.set()
        while sock.recv(65536):
            pass
        gone.set()

    peer = backend(connection=serve)
    server = either(CONF.replace("ADDRESS", peer.address).replace("DIRECTIVES", ""))
    client = server.client()
    client.send(build(method, "/", body=b"x" * 1000 if method == "POST" else b""))
    assert asked.wait(10)
    start = time.monotonic()
    {"close": client.close, "reset": client.reset, "half close": client.half_close}[how]()
    assert gone.wait(10)
    assert time.monotonic() - start < 1
    assert server.access_log(1, name="logs/status.log") == ["499 -"]


def test_while_connecting_to_the_server(headgate: Factory) -> None:
    """A listener whose queue is full: the connection is never made."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = f"127.0.0.1:{full.getsockname()[1]}"
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        try:
            server = headgate(CONF.replace("ADDRESS", address).replace("DIRECTIVES", ""))
            with server.client() as client:
                client.send(build("GET", "/"))
                assert client.silent(0.3)
            assert server.access_log(1, name="logs/status.log") == ["499 -"]
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_ignored_the_server_answers_all_the_same(
    either: Factory, backend: Callable[..., Backend], gate: threading.Event, how: str
) -> None:
    answered = threading.Event()

    def handler(request: Request) -> Iterator[bytes]:
        gate.wait(10)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        answered.set()

    peer = backend(handler)
    server = either(CONF.replace("ADDRESS", peer.address).replace("DIRECTIVES", "proxy_ignore_client_abort on;"))
    client = server.client()
    client.send(build("GET", "/"))
    peer.wait_requests(1)
    client.close() if how == "close" else client.reset()
    assert server.log_lines("logs/status.log") == []
    gate.set()
    assert answered.wait(10)
    assert server.access_log(1, name="logs/status.log") == ["200 200"]


def test_ignored_the_next_server_is_tried(
    either: Factory, backend: Callable[..., Backend], gate: threading.Event
) -> None:
    def handler(request: Request) -> None:
        gate.wait(10)

    first, second = backend(handler), backend(named("second"))
    servers = f"{first.address}; server {second.address} backup"
    server = either(CONF.replace("ADDRESS", servers).replace("DIRECTIVES", "proxy_ignore_client_abort on;"))
    server.allow("prematurely closed connection")
    with server.client() as client:
        client.send(build("GET", "/"))
        first.wait_requests(1)
    gate.set()
    second.wait_requests(1)
    assert server.access_log(1, name="logs/status.log") == ["200 502, 200"]


def test_not_ignored_the_next_server_is_not_tried(
    either: Factory, backend: Callable[..., Backend], gate: threading.Event
) -> None:
    def handler(request: Request) -> None:
        gate.wait(10)

    first, second = backend(handler), backend(named("second"))
    servers = f"{first.address}; server {second.address} backup"
    server = either(CONF.replace("ADDRESS", servers).replace("DIRECTIVES", ""))
    with server.client() as client:
        client.send(build("GET", "/"))
        first.wait_requests(1)
    assert server.access_log(1, name="logs/status.log") == ["499 -"]
    gate.set()
    assert not second.requests


def test_a_large_answer_to_nobody_ends(either: Factory, backend: Callable[..., Backend], gate: threading.Event) -> None:
    """Ignoring ends where there is nobody to send the body to."""

    def handler(request: Request) -> Reply:
        gate.wait(10)
        return Reply(body=b"x" * (64 << 20))

    peer = backend(handler)
    server = either(CONF.replace("ADDRESS", peer.address).replace("DIRECTIVES", "proxy_ignore_client_abort on;"))
    with server.client() as client:
        client.send(build("GET", "/"))
        peer.wait_requests(1)
    gate.set()
    peer.wait_closed(1)
    assert server.access_log(1, name="logs/status.log") == ["200 200"]
