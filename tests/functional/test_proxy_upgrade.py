"""Upgraded connections: a 101 makes a tunnel, both ways, until its end."""

import signal
import socket
import threading
from collections.abc import Callable

import pytest

from tests.backends import CLOSE, Backend, Reply
from tests.client import Client, build
from tests.harness import Server

Factory = Callable[..., Server]
ASKING = {"Upgrade": "foo", "Connection": "Upgrade"}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n"
LOG = (
    "log_format tunnel '$status $bytes_sent $body_bytes_sent $sent_http_connection "
    "$upstream_status $upstream_bytes_sent $upstream_bytes_received $upstream_response_length';"
)


def config(address: str, *, location: str = "", main: str = "", upstream: str = "") -> str:
    return f"""
        {main}
        http {{
            {LOG}
            access_log logs/tunnel.log tunnel;
            upstream u {{ server {address} {upstream}; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{
                    proxy_pass http://u;
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection "upgrade";
                    {location}
                }}
                location /plain {{ proxy_pass http://u; }}
            }}
        }}"""


class Switching:
    """A server that switches protocols and then leaves its socket to the test."""

    def __init__(self, behind: bytes = b"") -> None:
        self.behind = behind
        self.sockets: list[socket.socket] = []
        self.heads: list[bytes] = []
        self._changed = threading.Condition()
        self._over = threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(1)
            if not data:
                return
            head += data
        sock.sendall(SWITCH + self.behind)
        with self._changed:
            self.sockets.append(sock)
            self.heads.append(head)
            self._changed.notify_all()
        self._over.wait(30)

    def wait(self, count: int = 1) -> socket.socket:
        """The socket of the newest tunnel, once there were `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sockets) >= count, 10)
            sock = self.sockets[count - 1]
        sock.settimeout(10)
        return sock

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def switching() -> "Callable[..., Switching]":
    made: list[Switching] = []

    def factory(behind: bytes = b"") -> Switching:
        made.append(Switching(behind))
        return made[-1]

    yield factory  # type: ignore[misc]
    for each in made:
        each.end()


def take(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(min(count - len(data), 1 << 20))
        assert more, f"closed after {len(data)} of {count} bytes"
        data += more
    return data


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def opened(running: Server, target: str = "/", more: bytes = b"") -> Client:
    client = running.client()
    client.send(build("GET", target, ASKING) + more)
    reply = client.response()
    assert reply.status == 101
    return client


def test_a_tunnel(either: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching]) -> None:
    server = switching(b"behind")
    running = either(config(backend(connection=server).address))
    client = running.client()
    client.send(build("GET", "/path", ASKING) + b"early")
    reply = client.response()
    assert (reply.status, reply.reason) == (101, "Switching Protocols")
    assert reply.header("upgrade") == "foo"
    assert (reply.header("connection") or "").lower() == "upgrade"
    assert not reply.all("content-length") and not reply.all("transfer-encoding")
    sock = server.wait()
    head = server.heads[0].lower()
    assert head.startswith(b"get /path http/1.1\r\n")
    assert b"\r\nupgrade: foo\r\n" in head and b"\r\nconnection: upgrade\r\n" in head
    assert client.read(6) == b"behind"
    assert take(sock, 5) == b"early"
    for n in range(20):
        sock.sendall(b"down %d" % n)
        assert client.read(6 + n // 10) == b"down %d" % n
        client.send(b"up %d" % n)
        assert take(sock, 4 + n // 10) == b"up %d" % n
    sock.shutdown(socket.SHUT_RDWR)
    assert client.closed()
    client.close()
    (line,) = running.access_log(1, "logs/tunnel.log")
    down, up = 6 + 10 * 6 + 10 * 7, 5 + 10 * 4 + 10 * 5
    head_size = len(reply.raw)
    assert line == (f"101 {head_size + down} {down} upgrade 101 {len(server.heads[0]) + up} {len(SWITCH) + down} 0")


@pytest.mark.parametrize(("target", "headers"), [("/", {}), ("/plain", ASKING)], ids=["client", "location"])
def test_a_101_that_nobody_asked_for(
    headgate: Factory,
    backend: Callable[..., Backend],
    switching: Callable[..., Switching],
    target: str,
    headers: dict[str, str],
) -> None:
    running = headgate(config(backend(connection=switching()).address))
    reply = running.client().request("GET", target, headers)
    assert reply.status == 502
    assert running.matching(
        r"upstream sent unexpected 101 response while reading response header from upstream, client"
    )
    running.allow("unexpected 101")


def test_an_answer_instead_of_the_switch(either: Factory, backend: Callable[..., Backend]) -> None:
    running = either(config(backend(lambda request: Reply(426, body=b"no")).address))
    with running.client() as client:
        for _ in range(2):
            reply = client.request("GET", "/", ASKING)
            assert (reply.status, reply.text) == (426, "no")


def test_a_side_that_has_ended_may_still_be_written_to(
    headgate: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching]
) -> None:
    server = switching()
    running = headgate(config(backend(connection=server).address))
    client = opened(running)
    sock = server.wait()
    client.send(b"last words")
    client.half_close()
    assert take(sock, 10) == b"last words" and ended(sock)
    sock.sendall(b"answer" * 100_000)
    assert client.read(600_000) == b"answer" * 100_000
    sock.shutdown(socket.SHUT_WR)
    assert client.closed()

    client = opened(running)
    sock = server.wait(2)
    sock.sendall(b"last words")
    sock.shutdown(socket.SHUT_WR)
    assert client.read(10) == b"last words" and client.closed()
    client.send(b"question" * 100_000)
    assert take(sock, 800_000) == b"question" * 100_000
    client.close()
    assert ended(sock)
    assert len(running.access_log(2, "logs/tunnel.log")) == 2


def test_an_end_right_behind_the_switch(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: SWITCH + b"all there is" + CLOSE)
    running = either(config(peer.address))
    client = opened(running)
    assert client.read(12) == b"all there is" and client.closed()
    client.close()
    running.access_log(1, "logs/tunnel.log")


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_ends_both_sides(
    either: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching], who: str
) -> None:
    server = switching()
    running = either(config(backend(connection=server).address))
    client = opened(running)
    sock = server.wait()
    if who == "client":
        client.reset()
        assert ended(sock)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert client.closed()
    running.access_log(1, "logs/tunnel.log")
    level = "info" if who == "client" else "error"
    running.expect_log(rf"\[{level}\].*recv\(\) failed \(104: .* while proxying upgraded connection, client: ")
    running.allow(r"recv\(\) failed")


def test_silence_for_read_timeout(
    either: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching]
) -> None:
    server = switching()
    running = either(config(backend(connection=server).address, location="proxy_read_timeout 500ms;"))
    client = opened(running)
    sock = server.wait()
    pause = threading.Event()
    for _ in range(4):  # either direction's bytes count
        pause.wait(0.2)
        client.send(b"x")
        assert take(sock, 1) == b"x"
    assert client.closed() and ended(sock)
    running.access_log(1, "logs/tunnel.log")
    running.expect_log(r"\[info\].*upstream timed out \(110: .* while proxying upgraded connection, client: ")


def fill(send: Callable[[bytes], int], piece: bytes = b"0123456789abcdef" * 4096) -> int:
    total = 0
    try:
        while total < 256 << 20:
            total += send(piece[total % 16 :])
    except TimeoutError:
        return total
    raise AssertionError(f"{total} bytes were taken that nobody reads")


def check(piece: bytes, start: int) -> None:
    pattern = b"0123456789abcdef" * (len(piece) // 16 + 2)
    assert piece == pattern[start % 16 : start % 16 + len(piece)]


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_does_not_read_stops_the_other(
    headgate: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching], who: str
) -> None:
    server = switching()
    running = headgate(config(backend(connection=server).address))
    client = opened(running)
    reader, writer = (client.socket, server.wait()) if who == "client" else (server.wait(), client.socket)
    writer.settimeout(0.5)
    total = fill(writer.send)
    got = 0
    while got < total:
        piece = reader.recv(1 << 20)
        check(piece, got)
        got += len(piece)
    writer.settimeout(10)
    writer.sendall(b"!")
    assert take(reader, 1) == b"!"


@pytest.mark.parametrize(
    ("who", "what", "line"),
    [("client", "send_timeout", "client timed out"), ("server", "proxy_send_timeout", "upstream timed out")],
)
def test_who_does_not_read_for_send_timeout_is_cut(
    either: Factory,
    backend: Callable[..., Backend],
    switching: Callable[..., Switching],
    who: str,
    what: str,
    line: str,
) -> None:
    server = switching()
    running = either(config(backend(connection=server).address, location=f"{what} 700ms;"))
    client = opened(running)
    writer = server.wait() if who == "client" else client.socket
    writer.settimeout(0.3)
    fill(writer.send)
    running.expect_log(rf"\[info\].*{line} \(110: .* while proxying upgraded connection, client: ")
    running.access_log(1, "logs/tunnel.log")


def test_a_tunnel_is_one_of_max_conns(
    headgate: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching]
) -> None:
    server = switching()
    running = headgate(config(backend(connection=server).address, upstream="max_conns=1"))
    running.allow("no live upstreams")
    client = opened(running)
    sock = server.wait()
    assert running.get("/").status == 502
    client.close()
    assert ended(sock)
    sock.close()
    running.access_log(2, "logs/tunnel.log")
    opened(running)
    server.wait(2)


def test_a_reload_leaves_tunnels_alone(
    headgate: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching]
) -> None:
    server = switching()
    running = headgate(config(backend(connection=server).address))
    client = opened(running)
    sock = server.wait()
    old = running.workers()
    running.reload()
    client.send(b"up")
    assert take(sock, 2) == b"up"
    sock.sendall(b"down")
    assert client.read(4) == b"down"
    assert set(old) <= set(running.workers())
    client.close()
    assert ended(sock)
    sock.close()
    running.expect_log(r"exited with code 0")


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGQUIT])
def test_worker_shutdown_timeout_ends_tunnels(
    headgate: Factory, backend: Callable[..., Backend], switching: Callable[..., Switching], how: signal.Signals
) -> None:
    server = switching()
    running = headgate(config(backend(connection=server).address, main="worker_shutdown_timeout 300ms;"))
    client = opened(running)
    sock = server.wait()
    running.send_signal(how)
    assert client.closed() and ended(sock)
    running.access_log(1, "logs/tunnel.log")
    running.expect_log("exited with code 0")
