"""proxy_request_buffering, proxy_send_timeout: request bodies on their way to the server; as nginx."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request, echo, read_head
from tests.client import Client, build, chunked
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
BIG = os.urandom(1 << 20) * 16
SIZES = [0, 10, 5000, 17_000, 65_536, 90_000, 300_000, 3_000_000]


def site(address: str, directives: str = "", http: str = "") -> str:
    return f"""
        http {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            client_max_body_size 100m;
            log_format figures "$status $request_length $upstream_bytes_sent";
            {http}
            upstream u {{ {address if "server" in address else f"server {address};"} keepalive 4; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; {directives} }}
                location /streamed {{ proxy_pass http://u; proxy_request_buffering off; {directives} }}
            }}
        }}"""


def digest(request: Request) -> Reply:
    """The body's hash and length."""
    return Reply(body=f"{hashlib.sha256(request.body).hexdigest()} {len(request.body)}".encode())


def expected(body: bytes) -> str:
    return f"{hashlib.sha256(body).hexdigest()} {len(body)}"


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


class Stalled:
    """A raw backend that accepts, reads only what it is told to, and never answers."""

    def __init__(self, head: bytes = b"\r\n\r\n", receive_buffer: int = 0) -> None:
        self.until = head
        self.got = b""
        self.release = threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        while self.until not in self.got:
            data = sock.recv(1000)
            if not data:
                return
            self.got += data
        self.release.wait(10)


class Sending:
    """A client that sends in a thread, for as long as the server takes it."""

    def __init__(self, client: Client, data: bytes) -> None:
        self.client = client
        self.data = data
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.client.send(self.data)
        except OSError:
            return

    def __enter__(self) -> "Sending":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.thread.join()


@pytest.mark.parametrize("target", ["/", "/streamed"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_every_size_arrives_intact(either: Factory, backend: Callable[..., Backend], target: str, framing: str) -> None:
    peer = backend(digest)
    server = either(site(peer.address))
    with server.client() as client:
        for size in SIZES:
            body = BIG[:size]
            if framing == "chunked":
                wire = chunked(*pieces(body, 7001))
                reply = client.request("PUT", target, {"Transfer-Encoding": "chunked"}, wire)
            else:
                reply = client.request("PUT", target, {"Content-Length": str(size)}, body)
            assert reply.text == expected(body), size
    assert peer.connections == 1


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_a_request_right_behind_a_large_body(either: Factory, backend: Callable[..., Backend], target: str) -> None:
    """What belongs to the next request is not taken for body."""
    peer = backend(digest)
    server = either(site(peer.address))
    with server.client() as client:
        for size in (3_000_000, 300_000):
            body = BIG[:size]
            both = build("PUT", target, {"Content-Length": str(size)}, body) * 2
            sending = threading.Thread(target=client.send, args=(both,))
            sending.start()
            assert client.response().text == expected(body)
            assert client.response().text == expected(body)
            sending.join()


def test_buffered_the_server_hears_nothing_before_the_end(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(digest)
    server = either(site(peer.address))
    with server.client() as client:
        client.send(build("PUT", "/", {"Content-Length": "100000"}, BIG[:60_000]))
        assert client.silent(0.2)
        assert peer.connections == 0
        client.send(BIG[60_000:100_000])
        assert client.response().text == expected(BIG[:100_000])


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_unbuffered_the_server_hears_every_piece(
    either: Factory, backend: Callable[..., Backend], framing: str
) -> None:
    got = bytearray()
    arrived = threading.Condition()

    def serve(sock: socket.socket) -> None:
        while not got.endswith(b"END" if framing == "length" else b"0\r\n\r\n"):
            data = sock.recv(65536)
            if not data:
                return
            with arrived:
                got.extend(data)
                arrived.notify_all()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    peer = backend(connection=serve)
    server = either(site(peer.address))
    with server.client() as client:
        parts = [b"one", b"two", b"three" * 1000, b"END"]
        if framing == "length":
            client.send(build("PUT", "/streamed", {"Content-Length": str(sum(map(len, parts)))}))
        else:
            client.send(build("PUT", "/streamed", {"Transfer-Encoding": "chunked"}))
        for part in parts:
            client.send(part if framing == "length" else b"%x\r\n%b\r\n" % (len(part), part))
            with arrived:
                assert arrived.wait_for(lambda part=part: part in got, 10), part  # type: ignore[misc]
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
        assert client.response().text == "ok"
    head = got.partition(b"\r\n\r\n")[0].lower()
    assert (b"content-length: 5009" if framing == "length" else b"transfer-encoding: chunked") in head


def test_unbuffered_the_last_piece_and_the_end_are_one_write(either: Factory, backend: Callable[..., Backend]) -> None:
    got: list[bytes] = []
    begun = threading.Event()

    def serve(sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        begun.set()
        got.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = either(site(backend(connection=serve).address))
    with server.client() as client:
        client.send(build("PUT", "/streamed", {"Transfer-Encoding": "chunked"}))
        assert begun.wait(10)
        client.send(b"5\r\nwhole\r\n0\r\n\r\n")
        assert client.response().text == "ok"
    assert got == [b"5\r\nwhole\r\n0\r\n\r\n"]


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_a_server_that_does_not_read_times_out(either: Factory, backend: Callable[..., Backend], target: str) -> None:
    stalled = Stalled()
    peer = backend(connection=stalled)
    server = either(site(peer.address, "proxy_send_timeout 300ms;"))
    server.allow("upstream timed out")
    client = server.client()
    with Sending(client, build("PUT", target, {"Content-Length": str(len(BIG) * 3)}, BIG * 3)):
        assert client.response().status == 504
    line = server.expect_log("upstream timed out")[0]
    assert "upstream timed out (110: Connection timed out) while sending request to upstream" in line
    stalled.release.set()
    peer.wait_closed(1)


@pytest.mark.parametrize("target", ["/", "/streamed"])
@pytest.mark.parametrize("size", [5, 1_000_000])
def test_a_client_that_stalls_within_its_body(
    either: Factory, backend: Callable[..., Backend], target: str, size: int
) -> None:
    stalled = Stalled()
    peer = backend(connection=stalled)
    server = either(site(peer.address, "client_body_timeout 300ms;", "access_log logs/figures.log figures;"))
    with server.client() as client:
        client.send(build("PUT", target, {"Content-Length": "10000000"}, BIG[:size]))
        assert client.closed()
    assert server.access_log(1, name="logs/figures.log")[0].split()[0] == "408"
    stalled.release.set()
    if target == "/streamed":
        peer.wait_closed(1)
    else:
        assert peer.connections == 0


@pytest.mark.parametrize("target", ["/", "/streamed"])
@pytest.mark.parametrize("size", [5, 1_000_000])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_within_its_body(
    either: Factory, backend: Callable[..., Backend], target: str, size: int, reset: bool
) -> None:
    """The server sees the close at once, without an end of the body."""
    gone = threading.Event()
    peer_got = bytearray()

    def serve(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            peer_got.extend(data)
        gone.set()

    peer = backend(connection=serve)
    server = either(site(peer.address, http="access_log logs/figures.log figures;"))
    client = server.client()
    client.send(build("PUT", target, {"Content-Length": "10000000"}, BIG[:size]))
    if target == "/streamed":
        until(lambda: len(peer_got) > size, "the body so far")
    else:
        assert client.silent(0.1)
    start = time.monotonic()
    client.reset() if reset else client.close()
    if target == "/streamed":
        assert gone.wait(10)
        assert time.monotonic() - start < 1
    else:
        assert peer.connections == 0
    status = server.access_log(1, name="logs/figures.log")[0].split()[0]
    assert status in ("400", "499")


@pytest.mark.parametrize("size", [10_000, 60_000, len(BIG)])
@pytest.mark.parametrize("read", [0, 1000, 200_000])
def test_a_body_fails_over_intact(either: Factory, backend: Callable[..., Backend], size: int, read: int) -> None:
    """From memory and from its file: the first server takes some of it and goes."""

    def serve(sock: socket.socket) -> None:
        left = min(read, size)
        while left:
            left -= len(sock.recv(left))

    first, second = backend(connection=serve), backend(digest)
    servers = f"server {first.address} max_fails=0; server {second.address};"
    server = either(site(servers, "proxy_next_upstream error timeout non_idempotent;"))
    server.allow("prematurely closed", r"\((104|32): ")
    for _ in range(2):
        reply = server.request("POST", "/", body=BIG[:size])
        assert reply.text == expected(BIG[:size])
    assert first.connections >= 1


def test_the_client_may_send_more_slowly_than_the_server_reads(
    either: Factory, backend: Callable[..., Backend]
) -> None:
    peer = backend(digest)
    server = either(site(peer.address))
    with server.client() as client:
        client.send(build("PUT", "/streamed", {"Content-Length": "2000000"}))
        for piece in pieces(BIG[:2_000_000], 150_000):
            client.send(piece)
            time.sleep(0.005)
        assert client.response().text == expected(BIG[:2_000_000])


def test_the_server_may_read_more_slowly_than_the_client_sends(
    either: Factory, backend: Callable[..., Backend]
) -> None:
    """Flow control: the client waits; what the proxy holds meanwhile is bounded."""
    release = threading.Event()
    received = hashlib.sha256()

    def serve(sock: socket.socket) -> None:
        body = read_head(sock)
        release.wait(10)
        left = len(BIG) * 3 - len(body)
        received.update(body)
        while left and (data := sock.recv(1 << 20)):
            received.update(data)
            left -= len(data)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    peer = backend(connection=serve)
    server = either(site(peer.address))
    client = server.client()
    sending = Sending(client, build("PUT", "/streamed", {"Content-Length": str(len(BIG) * 3)}, BIG * 3))
    with sending:
        sending.thread.join(0.5)
        assert sending.thread.is_alive(), "the proxy took everything"
        release.set()
        assert client.response().text == "ok"
    assert received.hexdigest() == hashlib.sha256(BIG * 3).hexdigest()


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_too_large_a_chunked_body(either: Factory, backend: Callable[..., Backend], target: str) -> None:
    peer = backend(connection=Stalled(b"never"))
    server = either(site(peer.address, "client_max_body_size 100k;"))
    server.allow("client intended to send too large")
    client = server.client()
    wire = chunked(*pieces(BIG[:1_000_000], 10_000))
    with Sending(client, build("PUT", target, {"Transfer-Encoding": "chunked"}, wire)):
        assert client.response().status == 413


@pytest.mark.parametrize("target", ["/", "/streamed"])
@pytest.mark.parametrize("size", [100, 60_000, 2_000_000])
def test_figures(either: Factory, backend: Callable[..., Backend], target: str, size: int) -> None:
    peer = backend(digest)
    server = either(site(peer.address, http="access_log logs/figures.log figures;"))
    wire = build("PUT", target, {"Connection": "close"}, BIG[:size])
    with server.client() as client:
        client.send(wire)
        client.response()
    assert server.access_log(1, name="logs/figures.log")[0].split() == [
        "200",
        str(len(wire)),
        str(len(peer.requests[0].raw)),
    ]


def test_without_request_body(either: Factory, backend: Callable[..., Backend]) -> None:
    """pass_request_body off: the body is read all the same, and the next request is not taken for it."""
    peer = backend(echo)
    server = either(site(peer.address, "proxy_pass_request_body off; proxy_set_header Content-Length '';"))
    with server.client() as client:
        for target in ("/", "/streamed"):
            reply = client.request("PUT", target, body=BIG[:100_000])
            assert reply.body.endswith(b"\n\n")
            assert b"content-length" not in reply.body.lower()


@pytest.mark.parametrize("target", ["/", "/streamed"])
def test_interim_answer_to_expect(either: Factory, backend: Callable[..., Backend], target: str) -> None:
    peer = backend(digest)
    server = either(site(peer.address))
    with server.client() as client:
        client.send(build("PUT", target, {"Content-Length": "1000000", "Expect": "100-continue"}))
        assert client.interim().status == 100
        client.send(BIG[:1_000_000])
        assert client.response().text == expected(BIG[:1_000_000])


def test_many_uploads_leave_no_descriptor(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(digest)
    server = headgate(site(peer.address))
    (worker,) = server.workers()

    def count() -> int:
        return sum(not name.startswith("pipe:") for name in descriptors(worker).values())

    for target in ("/", "/streamed"):
        assert server.request("PUT", target, body=BIG[:1_000_000]).status == 200
    until(lambda: not any("temp_" in link for link in descriptors(worker).values()), "temporary files closed")
    before = count()
    for target in ("/", "/streamed") * 10:
        with Client(server.port()) as client:
            client.send(build("PUT", target, {"Content-Length": "5000000"}, BIG[:1_000_000]))
        assert server.request("PUT", target, body=BIG[:1_000_000]).status == 200
    until(
        lambda: count() <= before,
        lambda: f"{count()} descriptors where {before} were: {sorted(descriptors(worker).values())}",
    )
