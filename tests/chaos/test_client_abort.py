"""Clients that leave in each state of a proxied request: the server is let go at once, and everything is given back."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backends import Backend
from tests.client import Client, build
from tests.harness import Server, until

Factory = Callable[..., Server]
SOON = 1.0  # seconds within which a server must see that the client has gone
BIG = 24 << 20  # more than what the sockets between headgate and a server hold

CONF = """
    http {
        log_format short "$status $upstream_status";
        access_log logs/short.log short;
        client_max_body_size 100m;
        upstream u { server ADDRESS max_conns=1 max_fails=0; keepalive 4; }
        server {
            listen 127.0.0.1:%%PORT_0%% sndbuf=32k;
            location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }
            location /unbuffered {
                proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection "";
                proxy_buffering off; proxy_request_buffering off;
            }
            location /patient { proxy_pass http://u; proxy_ignore_client_abort on; }
        }
    }
"""


class Peer:
    """A server under the test's control: each accepted socket waits here."""

    def __init__(self, backend: Callable[..., Backend]) -> None:
        self.sockets: list[socket.socket] = []
        self._over = threading.Event()
        self.backend = backend(connection=self._serve)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self.sockets.append(sock)
        self._over.wait(30)

    def accepted(self, count: int = 1) -> socket.socket:
        until(lambda: len(self.sockets) >= count, f"connection {count}")
        return self.sockets[count - 1]

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def peer(backend: Callable[..., Backend]) -> Iterator[Peer]:
    made = Peer(backend)
    yield made
    made.end()


@pytest.fixture(params=["close", "reset"])
def leave(request: pytest.FixtureRequest) -> Callable[[Client], None]:
    """How the client goes."""
    return Client.close if request.param == "close" else Client.reset


def ended(sock: socket.socket) -> None:
    """Waits until the other side has closed, and fails when that is not soon."""
    sock.settimeout(SOON)
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass


def head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece
        data += piece
    return data


def works(running: Server, peer: Peer, count: int) -> None:
    """The one place at the server is free again."""
    with running.client() as client:
        client.send(build("GET", "/after"))
        sock = peer.accepted(count)
        assert head(sock).startswith(b"GET /after ")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
        sock.close()
        assert client.response().text == "fine"


def logged(running: Server, *lines: str) -> None:
    assert running.access_log(len(lines), "logs/short.log") == list(lines)


def connecting_to(port: int) -> int:
    """The sockets of this machine that are connecting to `port` (state SYN_SENT)."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "02" for fields in table)


def test_connecting(either: Factory, leave: Callable[[Client], None]) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        full = False
        while not full:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(("127.0.0.1", port))
            except TimeoutError:
                filler.close()
                full = True
        until(lambda: connecting_to(port) == 0, "no one else")
        running = either(CONF.replace("ADDRESS", f"127.0.0.1:{port}"))
        client = running.client()
        client.send(build("GET", "/"))
        until(lambda: connecting_to(port) == 1, "a connection being made")
        leave(client)
        until(lambda: connecting_to(port) == 0, "its end", SOON)
        logged(running, "499 -")


def test_sending(either: Factory, peer: Peer, leave: Callable[[Client], None]) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("PUT", "/", body=b"x" * BIG))
    sock = peer.accepted()
    leave(client)
    logged(running, "499 -")
    ended(sock)
    works(running, peer, 2)


def test_sending_as_it_comes(either: Factory, peer: Peer, leave: Callable[[Client], None]) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("PUT", "/unbuffered", {"Content-Length": "1000"}, b"x" * 10))
    sock = peer.accepted()
    head(sock)
    leave(client)
    ended(sock)
    (line,) = running.access_log(1, "logs/short.log")
    assert line in ("400 -", "499 -")
    works(running, peer, 2)


def test_reading_a_body(either: Factory, peer: Peer, leave: Callable[[Client], None]) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("PUT", "/patient", {"Content-Length": "1000", "Expect": "100-continue"}))
    assert client.interim().status == 100
    leave(client)
    logged(running, "400 -")
    works(running, peer, 1)


@pytest.mark.parametrize("target", ["/", "/unbuffered"])
def test_waiting_for_the_head(either: Factory, peer: Peer, leave: Callable[[Client], None], target: str) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("GET", target))
    sock = peer.accepted()
    head(sock)
    leave(client)
    ended(sock)
    logged(running, "499 -")
    works(running, peer, 2)


@pytest.mark.parametrize("target", ["/", "/unbuffered"])
def test_inside_the_head(either: Factory, peer: Peer, leave: Callable[[Client], None], target: str) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("GET", target))
    sock = peer.accepted()
    head(sock)
    sock.sendall(b"HTTP/1.1 200")
    leave(client)
    ended(sock)
    logged(running, "499 -")


@pytest.mark.parametrize("target", ["/", "/unbuffered"])
def test_inside_the_body(either: Factory, peer: Peer, leave: Callable[[Client], None], target: str) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("GET", target))
    sock = peer.accepted()
    head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
    if target == "/unbuffered":
        client.read(40_000)
    else:
        client.read(10)
    leave(client)
    if running.is_nginx:
        sock.sendall(b"y")  # inside a response nginx notices when it writes
    ended(sock)
    logged(running, "200 200")
    works(running, peer, 2)


def test_while_the_client_does_not_read(headgate: Factory, peer: Peer, leave: Callable[[Client], None]) -> None:
    """The server is done and its place is free; what was kept for the client goes."""
    running = headgate(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client(receive_buffer=4096)
    client.send(build("GET", "/"))
    sock = peer.accepted()
    head(sock)
    body = b"x" * (8 << 20)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    ended(sock)
    works(running, peer, 2)
    leave(client)
    assert sorted(running.access_log(2, "logs/short.log")) == ["200 200", "200 200"]
    until(lambda: not list((running.prefix / "temp_proxy").iterdir()), "no temporary file")


def test_ignored(either: Factory, peer: Peer, leave: Callable[[Client], None]) -> None:
    running = either(CONF.replace("ADDRESS", peer.backend.address))
    client = running.client()
    client.send(build("GET", "/patient"))
    sock = peer.accepted()
    head(sock)
    leave(client)
    sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
    ended(sock)
    (line,) = running.access_log(1, "logs/short.log")
    assert line in ("200 200", "499 200")
    works(running, peer, 2)
