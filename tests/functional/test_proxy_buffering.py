"""proxy_buffering and what belongs to it: who waits for a slow client, and where the bytes are meanwhile; as nginx."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.backends import CLOSE, RESET, Backend, Reply, Request
from tests.client import Client, TruncatedError, build
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
BIG = os.urandom(1 << 20) * 12  # more than the kernel's socket buffers take
FRAMINGS = ["length", "chunked", "close"]
SMALL = "proxy_socket_rcvbuf 256k;"  # so that a body is soon larger than what the kernel's buffers take
WARNING = r"\[warn\].* an upstream response is buffered to a temporary file \S+/temp_proxy/\S+ while reading upstream"


def site(address: str, directives: str = "", http: str = "") -> str:
    return f"""
        http {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            log_format figures "$status $body_bytes_sent $upstream_response_length "
                               "$upstream_bytes_received $bytes_sent";
            {http}
            upstream u {{ server {address}; keepalive 4; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; {directives} }}
            }}
        }}"""


class Source:
    """A handler that sends a body in pieces and tells how far it has come."""

    def __init__(self, body: bytes, framing: str = "length", cut: bytes = b"") -> None:
        self.body = body
        self.framing = framing
        self.cut = cut  # CLOSE or RESET instead of the last byte
        self.sent = 0
        self.done = threading.Event()

    def __call__(self, request: Request) -> Iterator[bytes]:
        head = b"HTTP/1.1 200 OK\r\n"
        if self.framing == "length":
            yield head + b"Content-Length: %d\r\n\r\n" % len(self.body)
        else:
            yield head + (b"Transfer-Encoding: chunked\r\n\r\n" if self.framing == "chunked" else b"\r\n")
        body = self.body[:-1] if self.cut else self.body
        for at in range(0, len(body), 16384):
            piece = body[at : at + 16384]
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if self.framing == "chunked" else piece
            self.sent = at + len(piece)
        if self.cut:
            yield self.cut
        elif self.framing == "chunked":
            yield b"0\r\n\r\n"
        self.done.set()
        if self.framing == "close":
            yield CLOSE


def ask(server: Server, target: str = "/", version: str = "1.1") -> Client:
    """A client that has asked and reads nothing yet."""
    client = server.client(receive_buffer=65536)
    client.send(build("GET", target, {"Connection": "keep-alive"}, version=version))
    return client


def take(client: Client, framing: str) -> bytes:
    """The whole body of the response that `ask` asked for; quicker with many chunks than Client.response."""
    head = client.read_until(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        length = re.search(rb"Content-Length: (\d+)", head)
        return client.read(int(length[1])) if length else client.read_all()
    wire = client.buffer
    pieces = [wire]
    while not pieces[-1].endswith(b"0\r\n\r\n"):
        pieces.append(client.socket.recv(1 << 20))
        assert pieces[-1], f"no last chunk ({framing})"
    wire = b"".join(pieces)
    at, body = 0, []
    while True:
        end = wire.index(b"\r\n", at)
        size = int(wire[at:end], 16)
        if not size:
            return b"".join(body)
        body.append(wire[end + 2 : end + 2 + size])
        at = end + 4 + size


def stalls(source: Source) -> int:
    """Waits until nothing more leaves the source, and returns how much has."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < 0.4:
        if source.sent != seen:
            seen, since = source.sent, time.monotonic()
        time.sleep(0.01)
    return seen


def deleted_files(server: Server) -> list[int]:
    """Sizes of the workers' open files that have no name any more."""
    sizes = []
    for worker in server.workers():
        for fd, name in descriptors(worker).items():
            with suppress(FileNotFoundError):
                if "temp_proxy" in name and "(deleted)" in name:
                    sizes.append(os.stat(f"/proc/{worker}/fd/{fd}").st_size)
    return sizes


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_slow_client_does_not_hold_the_server(either: Factory, backend: Callable[..., Backend], framing: str) -> None:
    source = Source(BIG, framing)
    peer = backend(source)
    server = either(site(peer.address))
    client = ask(server)
    assert source.done.wait(10), "the backend still waits"
    server.expect_log(WARNING)
    assert take(client, framing) == BIG


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("directive", ["proxy_max_temp_file_size 0;", "proxy_buffering off;"])
def test_without_a_file_the_server_waits(
    headgate: Factory, backend: Callable[..., Backend], framing: str, directive: str
) -> None:
    source = Source(BIG * 2, framing)
    peer = backend(source)
    server = headgate(site(peer.address, SMALL + directive))
    client = ask(server)
    assert stalls(source) < len(BIG) * 2
    assert take(client, framing) == BIG * 2
    assert not server.matching("temporary file")


def test_the_file_is_never_larger_than_allowed(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """And it is used again once the client has caught up; nginx's limit is on all that ever went through it."""
    for framing in FRAMINGS:
        source = Source(BIG * 2, framing)
        peer = backend(source)
        server = headgate(site(peer.address, SMALL + "proxy_max_temp_file_size 1m;"))
        client = ask(server)
        assert stalls(source) < len(BIG) * 2
        sizes = deleted_files(server)
        assert sizes and 0 < max(sizes) <= 1 << 20
        assert take(client, framing) == BIG * 2
        server.stop()


@pytest.mark.parametrize(
    ("directive", "field"),
    [
        ("proxy_buffering off;", ""),
        ("", "X-Accel-Buffering: no"),
        ("proxy_buffering off;", "X-Accel-Buffering: maybe"),
        ("proxy_buffering off; proxy_ignore_headers X-Accel-Buffering;", "X-Accel-Buffering: yes"),
    ],
)
def test_unbuffered_every_piece_goes_on_at_once(
    either: Factory, backend: Callable[..., Backend], directive: str, field: str
) -> None:
    turns = [threading.Event() for _ in range(20)]

    def handler(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % (
            f"{field}\r\n".encode() if field else b""
        )
        for number, turn in enumerate(turns):
            turn.wait(10)
            yield b"data: %d\n\n" % number
        yield CLOSE

    peer = backend(handler)
    server = either(site(peer.address, directive))
    with server.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        client.read_until(b"\r\n\r\n")  # the head alone
        times = []
        for number, turn in enumerate(turns):
            start = time.monotonic()
            turn.set()
            client.read_until(b"data: %d\n\n" % number)
            times.append(time.monotonic() - start)
        assert client.closed()
    assert sorted(times)[len(times) // 2] < 0.05


def test_x_accel_buffering_yes(either: Factory, backend: Callable[..., Backend]) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: yes\r\nContent-Length: %d\r\n\r\n" % len(BIG)
        yield BIG
        done.set()

    done = threading.Event()
    peer = backend(handler)
    server = either(site(peer.address, "proxy_buffering off;"))
    client = ask(server)
    assert done.wait(10)
    reply = client.response()
    assert reply.body == BIG
    assert reply.header("x-accel-buffering") is None


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_body_cut_short_is_visible(
    headgate: Factory, backend: Callable[..., Backend], size: int, framing: str, buffering: str, version: str
) -> None:
    """Also to a client that only the connection's end would tell; nginx ends that as if all were well."""
    peer = backend(Source(BIG[:size], framing, cut=CLOSE))
    server = headgate(site(peer.address, f"proxy_buffering {buffering};"))
    server.allow("prematurely closed connection")
    with server.client() as client:
        client.send(build("GET", "/", version=version))
        with pytest.raises(TruncatedError) as cut:
            client.response()
    assert cut.value.partial is not None
    assert cut.value.partial.body == BIG[: size - 1]
    server.expect_log("prematurely closed connection")


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_reset_by_the_server_is_visible(
    either: Factory, backend: Callable[..., Backend], size: int, framing: str
) -> None:
    peer = backend(Source(BIG[:size], framing, cut=RESET))
    server = either(site(peer.address))
    server.allow("prematurely closed connection", r"\(104: Connection reset by peer\)")
    with pytest.raises(TruncatedError):
        server.get("/")
    server.expect_log("prematurely closed connection|Connection reset by peer")


def test_a_slow_client_sees_a_body_cut_short(either: Factory, backend: Callable[..., Backend]) -> None:
    """It gets all that came before."""
    peer = backend(Source(BIG, cut=CLOSE))
    server = either(site(peer.address))
    server.allow("prematurely closed connection")
    client = ask(server)
    server.expect_log("prematurely closed connection")
    with pytest.raises(TruncatedError) as cut:
        client.response()
    assert cut.value.partial is not None and cut.value.partial.body == BIG[:-1]


@pytest.mark.parametrize("size", [1000, 300_000])
@pytest.mark.parametrize("buffering", ["on", "off"])
def test_read_timeout_within_the_body(
    either: Factory, backend: Callable[..., Backend], size: int, buffering: str
) -> None:
    ended = threading.Event()

    def handler(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG)
        yield BIG[:size]
        ended.wait(10)

    peer = backend(handler)
    server = either(site(peer.address, f"proxy_read_timeout 300ms; proxy_buffering {buffering};"))
    server.allow("upstream timed out")
    with pytest.raises(TruncatedError):
        server.get("/")
    line = server.expect_log("upstream timed out")[0]
    assert "upstream timed out (110: Connection timed out) while reading upstream" in line
    ended.set()


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("directive", ["", "proxy_buffering off;", "proxy_max_temp_file_size 0;"])
def test_send_timeout_while_the_client_takes_nothing(
    either: Factory, backend: Callable[..., Backend], framing: str, directive: str
) -> None:
    peer = backend(Source(BIG, framing))
    server = either(site(peer.address, f"send_timeout 300ms; {directive}"))
    ask(server)
    server.expect_log(r"\[info\].*client timed out \(110: Connection timed out\)")
    peer.wait_closed(0 if framing != "close" and not directive else 1)
    until(lambda: not deleted_files(server), "the temporary file closed")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("directive", ["", "proxy_buffering off;", "proxy_max_temp_file_size 0;"])
def test_the_clients_leaving_frees_everything(
    either: Factory, backend: Callable[..., Backend], framing: str, directive: str
) -> None:
    release = threading.Event()

    def handler(request: Request) -> Iterator[bytes]:
        source = Source(BIG * 2, framing)
        for number, piece in enumerate(source(request)):
            if number == 300:
                release.wait(10)
            yield piece

    peer = backend(handler)
    server = either(site(peer.address, directive))
    client = ask(server)
    client.read(100_000)
    client.reset()
    release.set()
    peer.wait_closed(1)  # its next bytes were refused
    until(lambda: not deleted_files(server), "the temporary file closed")
    server.access_log(1)


@pytest.mark.parametrize("size", [100, 200_000, len(BIG)])
@pytest.mark.parametrize("slow", [False, True])
def test_the_connection_and_the_figures(
    either: Factory, backend: Callable[..., Backend], size: int, slow: bool
) -> None:
    """The server's connection serves the next request; what the log counts is what nginx counts."""
    source = Source(BIG[:size])
    peer = backend(source)
    server = either(site(peer.address, "access_log logs/figures.log figures;"))
    client = ask(server)
    if slow:
        assert source.done.wait(10)
    first = client.response()
    assert first.body == BIG[:size]
    second = client.request("GET", "/")
    assert second.body == BIG[:size]
    assert peer.connections == 1
    head = len(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
    line = server.access_log(2, name="logs/figures.log")[0].split()
    assert line == ["200", str(size), str(size), str(head + size), str(len(first.raw))]


def test_pipelined_requests_while_the_kernel_moves_a_body(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=BIG[:400_000] if request.target == "/big" else b"small"))
    server = either(site(peer.address))
    with server.client() as client:
        client.send(build("GET", "/big") + build("GET", "/small") + build("GET", "/big"))
        assert [client.response().body for _ in range(3)] == [BIG[:400_000], b"small", BIG[:400_000]]


def test_more_than_content_length_is_not_passed_on(either: Factory, backend: Callable[..., Backend]) -> None:
    def handler(request: Request) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + BIG[:400_000] + b"HTTP/1.1 200 OK\r\n\r\nevil"

    peer = backend(handler)
    server = either(site(peer.address))
    with server.client() as client:
        assert client.get("/").body == BIG[:400_000]
        assert client.get("/").body == BIG[:400_000]
    assert peer.connections == 2


def test_one_client_waits_and_another_is_served(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=BIG if request.target == "/big" else b"small"))
    server = either(site(peer.address))
    client = ask(server, "/big")
    for _ in range(10):
        assert server.get("/").body == b"small"
    assert client.response().body == BIG


def test_a_client_that_reads_in_bursts(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """Bytes change between socket, pipe, memory and file many times, and stay in order."""
    for framing in FRAMINGS:
        for directive in ("", "proxy_max_temp_file_size 300k;"):
            peer = backend(Source(BIG, framing))
            server = headgate(site(peer.address, directive))
            with Client(server.port(), receive_buffer=65536) as client:
                client.send(b"GET / HTTP/1.0\r\n\r\n")
                client.read_until(b"\r\n\r\n")
                body = b""
                client.socket.settimeout(10)
                while len(body) < len(BIG):
                    if len(body) % (1 << 20) < 65536:
                        time.sleep(0.03)
                    body += client.read(min(50_000, len(BIG) - len(body)))
                assert body == BIG
            server.stop()


def test_socket_options_do_not_leak(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """After many large bodies the worker has no more descriptors open than pipes that it keeps."""
    peer = backend(lambda request: Reply(body=BIG[:500_000]))
    server = headgate(site(peer.address))
    worker = server.workers()[0]

    def sockets() -> int:
        return sum(link.startswith("socket:") for link in descriptors(worker).values())

    server.get("/")
    before = sockets()
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port())) as sock:
            sock.sendall(build("GET", "/"))
            sock.recv(1000)
    until(lambda: sockets() <= before, lambda: f"{sockets()} sockets where {before} were")
