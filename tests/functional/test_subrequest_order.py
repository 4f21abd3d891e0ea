"""Output of subrequests: in the order in which they were started, whichever finishes first; nginx does the same."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Answer, Backend, Reply, Request
from tests.client import TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            default_type text/html;
            location / { ssi on; }
            location /plain/ { }
            location /b/ { proxy_pass http://BACKEND; }
            location /unbuffered/ { proxy_pass http://BACKEND; proxy_buffering off; }
        }
    }"""


class Gates:
    """A backend whose answers come when they are let go, by name."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.events: dict[str, threading.Event] = {}

    def __call__(self, request: Request) -> Reply:
        name = request.target.rpartition("/")[2]
        assert self.events[name].wait(10)
        return Reply(body=name.encode() * self.size, close=True)

    def shut(self, names: str) -> None:
        self.events = {name: threading.Event() for name in names}


def page(separators: bool, folder: str = "b") -> bytes:
    includes = [f'<!--#include virtual="/{folder}/{name}" -->' for name in "0123"]
    if not separators:
        return "".join(includes).encode()
    return ("(" + "|".join(includes) + ")").encode()


@pytest.mark.parametrize("separators", [False, True])
def test_every_order_of_completion(either: Factory, backend: Callable[..., Backend], separators: bool) -> None:
    gates = Gates()
    slow = backend(gates)
    server = either(CONF.replace("BACKEND", slow.address), files={"html/page.html": page(separators)})
    expected = b"(0|1|2|3)" if separators else b"0123"
    for number, order in enumerate(itertools.permutations("0123")):
        gates.shut("0123")
        with server.client() as client:
            client.send(b"GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
            slow.wait_requests(4 * (number + 1))
            for nth, name in enumerate(order):
                gates.events[name].set()
                slow.wait_closed(4 * number + nth + 1)
            assert client.response().body == expected, order


@pytest.mark.parametrize("folder", ["b", "unbuffered"])
def test_much_output_of_those_that_wait_for_their_turn(
    headgate: Factory, backend: Callable[..., Backend], folder: str
) -> None:
    gates = Gates(size=300_000)
    slow = backend(gates)
    server = headgate(CONF.replace("BACKEND", slow.address), files={"html/page.html": page(True, folder)})
    gates.shut("0123")
    with server.client() as client:
        client.send(b"GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.wait_requests(4)
        for name in "321":
            gates.events[name].set()
        assert client.silent(0.2)
        gates.events["0"].set()
        body = client.response().body
    assert body == b"(" + b"|".join(name * 300_000 for name in (b"0", b"1", b"2", b"3")) + b")"


def test_what_waits_for_its_turn_does_not_grow(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """The second subrequest's server is not read from while the first one's answer is awaited."""
    first = threading.Event()
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 24000000\r\n\r\n"
        for _ in range(240):
            yield b"x" * 100_000
            sent += 1

    def handler(request: Request) -> Answer:
        if request.target.endswith("0"):
            assert first.wait(20)
            return Reply(body=b"first")
        return endless()

    slow = backend(handler)
    text = b'<!--#include virtual="/b/0" --><!--#include virtual="/b/1" -->'
    server = headgate(CONF.replace("BACKEND", slow.address), files={"html/page.html": text})
    with server.client() as client:
        client.send(b"GET /page.html HTTP/1.0\r\n\r\n")
        slow.wait_requests(2)
        before = -1
        while sent != before:  # until the backend's writes block
            before = sent
            time.sleep(0.2)
        assert 0 < sent < 160  # socket buffers are full, and no more of the 24 MB leaves the backend
        first.set()
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        body = client.read(8)
        size = len(body) + len(client.buffer)
        while data := client.socket.recv(1 << 20):
            size += len(data)
        assert (body, size) == (b"firstxxx", 5 + 24_000_000)


def test_subrequests_run_at_the_same_time(either: Factory, backend: Callable[..., Backend]) -> None:
    """Each answer waits for 200 ms, and for all requests to be there: one after the other would never end."""
    together = threading.Barrier(3)

    def handler(request: Request) -> Reply:
        together.wait(10)
        time.sleep(0.2)
        return Reply(body=request.target[-1].encode())

    slow = backend(handler)
    text = b"".join(b'<!--#include virtual="/b/%d" -->' % n for n in range(3))
    server = either(CONF.replace("BACKEND", slow.address), files={"html/page.html": text})
    started = time.monotonic()
    assert server.get("/page.html").body == b"012"
    assert time.monotonic() - started < 0.55


def test_a_thousand_subrequests_in_one_page(either: Factory) -> None:
    files: dict[str, bytes | str] = {f"html/plain/{n}": str(n % 10) for n in range(10)}
    files["html/page.html"] = "".join(f'<!--#include virtual="/plain/{n % 10}" -->' for n in range(1000))
    server = either(CONF.replace("BACKEND", "127.0.0.1:1"), files=files)
    assert server.get("/page.html").body == b"0123456789" * 100


def test_subrequests_of_subrequests_keep_their_places(either: Factory) -> None:
    files: dict[str, bytes | str] = {
        "html/page.html": '1<!--#include virtual="/a.html" -->5<!--#include virtual="/b.html" -->9',
        "html/a.html": '2<!--#include virtual="/plain/c" -->4',
        "html/b.html": '6<!--#include virtual="/plain/c" --><!--#include virtual="/plain/c" -->8',
        "html/plain/c": "c",
    }
    server = either(CONF.replace("BACKEND", "127.0.0.1:1"), files=files)
    assert server.get("/page.html").body == b"12c456cc89"


def test_a_subrequest_that_is_cut_short_cuts_the_page(headgate: Factory, backend: Callable[..., Backend]) -> None:
    broken = backend(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort\0<close>\0")
    text = b'start<!--#include virtual="/b/0" -->end' + b"x" * 5000
    server = headgate(CONF.replace("BACKEND", broken.address), files={"html/page.html": text})
    server.allow("upstream prematurely closed connection")
    with pytest.raises(TruncatedError) as cut:
        server.get("/page.html")
    assert cut.value.partial is None or b"end" not in cut.value.partial.body


def test_slow_clients_get_all_of_it(headgate: Factory, backend: Callable[..., Backend]) -> None:
    large = backend(lambda request: Reply(body=request.target[-1].encode() * 3_000_000))
    text = b"".join(b'<!--#include virtual="/b/%d" -->' % n for n in range(4))
    server = headgate(CONF.replace("BACKEND", large.address), files={"html/page.html": text})
    with server.client(receive_buffer=4096) as client:
        client.send(b"GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n")
        large.wait_requests(4)
        assert client.response().body == b"".join(b"%d" % n * 3_000_000 for n in range(4))
