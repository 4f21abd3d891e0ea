"""early_hints, and other interim responses of a backend: what the client sees of them (RFC 8297)."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Request
from tests.harness import Server
from tests.proxying import Proxying, proxying

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-Own: a\r\nServer: own\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal"

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            early_hints $http_early;
            location / { proxy_pass http://BACKEND; }
            location /no/ { proxy_pass http://BACKEND; early_hints 0; }
            location /never/ { proxy_pass http://BACKEND; early_hints ""; }
            location /any/ { proxy_pass http://BACKEND; early_hints 0 "" $http_x_hints; }
            location /hide/ { proxy_pass http://BACKEND; proxy_hide_header X-Own; }
            location /pass/ { proxy_pass http://BACKEND; proxy_pass_header Server; }
        }
        server {
            listen 127.0.0.1:%%PORT_1%%;
            location / { proxy_pass http://BACKEND; }
        }
    }"""


def answer(request: Request) -> bytes:
    return {
        "/": HINTS + FINAL,
        "/twice": HINTS + HINTS.replace(b"style", b"more") + FINAL,
        "/others": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX-A: b\r\n\r\n" + FINAL,
        "/empty": b"HTTP/1.1 103 Early Hints\r\n\r\n" + FINAL,
        "/connection": HINTS[:-2] + b"Connection: close\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n" + FINAL,
        "/many": HINTS * 60 + FINAL,
    }.get(request.target, HINTS + FINAL)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying("headgate", tmp_path_factory, CONF, answer) as running:
        yield running


def hints(proxy: Proxying, target: str, headers: dict[str, str] | None = None, index: int = 0) -> list[dict[str, str]]:
    """The fields of each 103 that came before the final response."""
    headers = {"Early": "1", **(headers or {})}
    with proxy.server.client(index) as client:
        reply = client.get(target, headers)
        assert (reply.status, reply.body) == (200, b"final")
        assert all(each.status == 103 and each.reason == "Early Hints" for each in reply.interim)
        assert client.get("/others").body == b"final"
    return [dict(each.headers) for each in reply.interim]


STYLE = {"Link": "</style.css>; rel=preload"}


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/", {}, [{**STYLE, "X-Own": "a"}]),
        ("/", {"Early": "0"}, []),
        ("/no/", {}, []),
        ("/never/", {}, []),
        ("/any/", {}, []),
        ("/any/", {"X-Hints": "yes"}, [{**STYLE, "X-Own": "a"}]),
        ("/hide/", {}, [STYLE]),
        ("/pass/", {}, [{**STYLE, "X-Own": "a", "Server": "own"}]),
        ("/twice", {}, [{**STYLE, "X-Own": "a"}, {"Link": "</more.css>; rel=preload", "X-Own": "a"}]),
        ("/others", {}, []),
        ("/empty", {}, []),
        ("/connection", {}, [{**STYLE, "X-Own": "a"}]),
    ],
)
def test_hints(proxy: Proxying, target: str, headers: dict[str, str], expected: list[dict[str, str]]) -> None:
    assert hints(proxy, target, headers) == expected


def test_off_by_default(proxy: Proxying) -> None:
    assert hints(proxy, "/", index=1) == []


def test_not_for_http_10(proxy: Proxying) -> None:
    with proxy.server.client() as client:
        client.send(b"GET / HTTP/1.0\r\nEarly: 1\r\n\r\n")
        assert client.response().interim == []


def test_they_fill_one_buffer_at_most(proxy: Proxying) -> None:
    """4096 bytes are passed on (proxy_buffer_size), the rest is dropped, the response comes."""
    assert len(hints(proxy, "/many")) == 4096 // len(HINTS)
    proxy.server.expect_log(r"\[info\] .*upstream sent too big early hints")


def test_hints_of_the_final_head_are_its_own(proxy: Proxying) -> None:
    assert proxy.server.get("/", {"Early": "1"}).header("Link") is None


def test_they_come_before_the_answer(headgate: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def slow(request: Request) -> Iterator[bytes]:
        yield HINTS
        assert gate.wait(10)
        yield FINAL

    peer = backend(slow)
    server = headgate(CONF.replace("BACKEND", peer.address))
    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nEarly: 1\r\n\r\n")
        assert client.interim().header("Link") == STYLE["Link"]
        gate.set()
        assert client.response().body == b"final"
