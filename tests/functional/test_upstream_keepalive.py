"""keepalive: which connections to upstream servers are kept, for how long, and when they are not used again."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.backends import CLOSE, Backend, Reply, Request
from tests.client import Client, TruncatedError, build, fetch
from tests.harness import Server

Factory = Callable[..., Server]
FINE = Reply(body=b"fine")


def config(address: str, upstream: str = "keepalive 4;", location: str = "") -> str:
    return f"""
        http {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            upstream u {{ server {address} max_fails=0; {upstream} }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; {location} }}
                location /other/ {{ proxy_pass http://u; }}
                location /direct/ {{ proxy_pass http://{address}; }}
            }}
        }}"""


@pytest.fixture
def gate() -> Iterator[threading.Barrier]:
    """Five requests wait for each other."""
    barrier = threading.Barrier(5)
    yield barrier
    barrier.abort()


def connections(peer: Backend, count: int) -> list[int]:
    """For each of the first `count` requests, the number of its connection."""
    return [request.connection for request in peer.wait_requests(count)]


def test_connections_are_used_again(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: FINE)
    running = either(config(peer.address))
    for _ in range(5):
        assert running.get("/").text == "fine"
    assert connections(peer, 5) == [1] * 5
    assert all(not request.all("connection") for request in peer.requests)


def at_once(running: Server, count: int) -> None:
    threads = [threading.Thread(target=fetch, args=(running.port(), "GET", "/")) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_at_most_so_many_are_kept(either: Factory, backend: Callable[..., Backend], gate: threading.Barrier) -> None:
    def together(request: Request) -> Reply:
        gate.wait(10)
        return FINE

    peer = backend(together)
    running = either(config(peer.address, "keepalive 2;"))
    at_once(running, 5)
    peer.wait_closed(3)
    assert peer.open == 2
    at_once(running, 5)
    peer.wait_closed(6)
    assert peer.connections == 8


@pytest.mark.parametrize("word", ["keepalive 0;", "/direct/"])
def test_none_is_kept(headgate: Factory, backend: Callable[..., Backend], word: str) -> None:
    peer = backend(lambda request: FINE)
    running = headgate(config(peer.address, word if word.startswith("keepalive") else ""))
    for _ in range(3):
        assert running.get(word if word.startswith("/") else "/").text == "fine"
    assert connections(peer, 3) == [1, 2, 3]
    peer.wait_closed(3)


def test_kept_unless_told_otherwise_but_not_between_locations(
    headgate: Factory, backend: Callable[..., Backend], gate: threading.Barrier
) -> None:
    peer = backend(lambda request: FINE)
    running = headgate(config(peer.address, ""))
    for target in ("/", "/other/", "/", "/other/"):
        running.get(target)
    assert connections(peer, 4) == [1, 2, 1, 2]


@pytest.mark.parametrize(("word", "seen"), [("", [1, 1, 1]), (" local", [1, 2, 1])])
def test_local(headgate: Factory, backend: Callable[..., Backend], word: str, seen: list[int]) -> None:
    peer = backend(lambda request: FINE)
    running = headgate(config(peer.address, f"keepalive 4{word};"))
    for target in ("/", "/other/", "/"):
        running.get(target)
    assert connections(peer, 3) == seen


def test_the_oldest_makes_room(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one, two = backend(lambda request: FINE), backend(lambda request: FINE)
    running = headgate(config(one.address, f"server {two.address}; keepalive 1;"))
    running.get("/")
    running.get("/")
    one.wait_closed(1)
    assert two.open == 1


def test_keepalive_requests(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: FINE)
    running = either(config(peer.address, "keepalive 4; keepalive_requests 3;"))
    for _ in range(7):
        running.get("/")
    assert connections(peer, 7) == [1, 1, 1, 2, 2, 2, 3]
    peer.wait_closed(2)


def test_keepalive_timeout(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: FINE)
    running = either(config(peer.address, "keepalive 4; keepalive_timeout 300ms;"))
    running.get("/")
    running.get("/")
    peer.wait_closed(1)
    running.get("/")
    assert connections(peer, 3) == [1, 1, 2]


def test_keepalive_time(either: Factory, backend: Callable[..., Backend]) -> None:
    pause = threading.Event()

    def slow(request: Request) -> Reply:
        pause.wait(0.4 if request.number == 2 else 0)
        return FINE

    peer = backend(slow)
    running = either(config(peer.address, "keepalive 4; keepalive_time 300ms;"))
    for _ in range(3):
        running.get("/")
    assert connections(peer, 3) == [1, 1, 2]


# Not used again


BAD: dict[str, Any] = {
    "closed": Reply(body=b"fine", close=True),
    "http/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nfine",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nfine" + CLOSE,
    "more than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine, and more",
    "more than nothing": b"HTTP/1.1 204 No Content\r\n\r\nfine",
    "more than its chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\nmore",
    "another answer": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfineHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("case", BAD)
def test_not_used_again_after(either: Factory, backend: Callable[..., Backend], case: str) -> None:
    peer = backend(lambda request: BAD[case] if request.target == "/bad" else FINE)
    running = either(config(peer.address))
    assert running.get("/bad").text == ("" if case == "more than nothing" else "fine")
    peer.wait_closed(1)
    assert running.get("/").text == "fine"
    assert connections(peer, 2) == [1, 2]


def test_not_used_again_when_it_was_cut(either: Factory, backend: Callable[..., Backend]) -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\nzzz\r\n"
    peer = backend(lambda request: cut if request.target == "/bad" else FINE)
    running = either(config(peer.address))
    running.allow("invalid chunked")
    with pytest.raises(TruncatedError):
        running.get("/bad")
    peer.wait_closed(1)
    assert running.get("/").text == "fine"


def test_not_used_again_when_the_answer_came_before_the_request_was_sent(
    headgate: Factory, backend: Callable[..., Backend]
) -> None:
    """What is left of the body must not be taken for a request."""

    def early(sock: socket.socket) -> None:
        while b"\r\n\r\n" not in (data := sock.recv(65536)):
            assert data
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        while sock.recv(65536):
            pass

    peer = backend(connection=early)
    running = headgate(config(peer.address, location="proxy_request_buffering off;"))
    with Client(running.port()) as client:
        client.send(build("PUT", "/", {"Content-Length": "1000000"}, b"x"))
        peer.wait_connections(1)
        client.send(b"x" * 500_000)
        assert client.response().text == "no"
    peer.wait_closed(1)


HEADS = {
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "304 with length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
    "empty": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "no chunks": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "failed": ("GET", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno"),
}


@pytest.mark.parametrize("case", HEADS)
def test_used_again_after(either: Factory, backend: Callable[..., Backend], case: str) -> None:
    method, answer = HEADS[case]
    peer = backend(lambda request: answer)
    running = either(config(peer.address))
    for _ in range(3):
        running.request(method, "/")
    assert connections(peer, 3) == [1, 1, 1]


# Idle


def test_one_that_the_server_closed_is_not_noticed(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: FINE)
    running = either(config(peer.address))
    for _ in range(5):
        assert running.get("/").text == "fine"
        peer.drop()
        peer.wait_closed(peer.connections)
    assert running.access_log(5) and not running.matching(r"\[(warn|error)\]")


def test_one_that_speaks_unasked_is_closed(either: Factory, backend: Callable[..., Backend]) -> None:
    socks: list[socket.socket] = []

    def talkative(sock: socket.socket) -> None:
        socks.append(sock)
        while (data := sock.recv(65536)) != b"":
            assert data.endswith(b"\r\n\r\n")
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")

    peer = backend(connection=talkative)
    running = either(config(peer.address))
    assert running.get("/").text == "fine"
    socks[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    peer.wait_closed(1)
    assert running.get("/").text == "fine"
    assert peer.connections == 2


def test_a_worker_that_leaves_closes_them(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """At once, though a client's request still runs."""
    hold = threading.Event()
    peer = backend(lambda request: FINE if request.target == "/" else (hold.wait(10) and FINE))
    running = headgate(config(peer.address))
    running.get("/")
    client = running.client()
    at = threading.Thread(target=running.get, args=("/",))
    at.start()
    at.join()
    client.send(build("GET", "/slow"))
    peer.wait_requests(3)
    running.get("/")
    assert peer.open == 2
    running.reload()
    peer.wait_closed(1)
    hold.set()
    assert client.response().text == "fine"
    peer.wait_closed(2)
    running.expect_log("exited with code 0")


def test_a_worker_with_idle_connections_can_go(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: FINE)
    running = headgate(config(peer.address))
    running.get("/")
    assert running.stop() == 0
    peer.wait_closed(1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("keepalive a;", 'invalid value "a" in "keepalive" directive'),
        ("keepalive -1;", 'invalid value "-1" in "keepalive" directive'),
        ("keepalive 4 remote;", 'invalid parameter "remote"'),
        ("keepalive 4; keepalive 4;", '"keepalive" directive is duplicate'),
        ("keepalive_timeout x;", '"keepalive_timeout" directive invalid value'),
        ("keepalive;", 'invalid number of arguments in "keepalive" directive'),
    ],
)
def test_errors(headgate: Factory, line: str, reason: str) -> None:
    server = headgate(config("127.0.0.1:1", line), start=False)
    checked = server.check()
    assert checked.returncode == 1
    assert f"{reason} in {server.prefix}/nginx.conf:5" in checked.stderr


def test_many_requests_over_few_connections(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=request.target.encode()))
    running = headgate(config(peer.address))
    with running.client() as client:
        for n in range(300):
            assert client.get(f"/{n}").text == f"/{n}"
    assert peer.connections == 1
    assert len(running.access_log(300)) == 300
