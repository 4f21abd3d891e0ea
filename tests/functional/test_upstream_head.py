"""The head of a backend's response: what is passed on, what is dropped, when the connection is used again."""

from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server
from tests.proxying import Proxying, proxying

FIVE = b"Content-Length: 5\r\n\r\nhello"
HEADS = {
    "/known": b"HTTP/1.1 200 OK\r\n" + FIVE,
    "/own-phrase": b"HTTP/1.1 200 Fine\r\n" + FIVE,
    "/long-phrase": b"HTTP/1.1 404 Not  here, (or) there: \xe4\r\n" + FIVE,
    "/no-phrase": b"HTTP/1.1 200\r\n" + FIVE,
    "/empty-phrase": b"HTTP/1.1 200 \r\n" + FIVE,
    "/strange-status": b"HTTP/1.1 799 What\r\n" + FIVE,
    "/http-1.0": b"HTTP/1.0 200 OK\r\n" + FIVE,
    "/bare-lf": b"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 5\n\nhello",
    "/upgrade": b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + FIVE,
    "/hop": b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=9\r\n" + FIVE,
    "/status-field": b"HTTP/1.1 200 OK\r\nStatus: 500 No\r\n" + FIVE,
    "/high-bytes": b"HTTP/1.1 200 OK\r\nX-A: \xe4\xff\r\nX_B: c\r\n" + FIVE,
    "/validators": b'HTTP/1.1 200 OK\r\nLast-Modified: nonsense\r\nEtag: W/"x"\r\n' + FIVE,
    "/no-type": b"HTTP/1.1 200 OK\r\n" + FIVE,
    "/big": b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 3900 + b"\r\n" + FIVE,
}
DATES = (
    b"HTTP/1.1 200 OK\r\nDate: 1\r\nDate: 2\r\nContent-Type: a/b\r\nContent-Type: c/d\r\nETag: 1\r\nETag: 2\r\n"
    b"Last-Modified: 1\r\nlast-modified: 2\r\nExpires: 1\r\nExpires: 2\r\nLocation: /1\r\nLocation: /2\r\n"
    b"Server: 1\r\nServer: 2\r\nX-A: 1\r\nX-A: 2\r\nCache-Control: a\r\nCache-Control: b\r\nVary: a\r\nVary: b\r\n"
    b"Link: a\r\nLink: b\r\nWWW-Authenticate: a\r\nWWW-Authenticate: b\r\n" + FIVE
)

CONF = """
    http {
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        upstream kept { server BACKEND max_fails=0; keepalive 4; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://BACKEND; }
            location /dates { proxy_pass http://BACKEND; proxy_pass_header Date; proxy_pass_header Server; }
            location /kept/ { proxy_pass http://kept; }
            location /small/ { proxy_pass http://BACKEND/; proxy_buffer_size 1k; }
            location /large/ { proxy_pass http://BACKEND/; proxy_buffer_size 64k; proxy_busy_buffers_size 64k;
                               proxy_buffers 4 32k; }
        }
    }"""


def answer(request: Request) -> bytes | Reply:
    if request.target.startswith("/kept/"):
        status = int(request.target[6:])
        return Reply(status, [("Content-Length", "5")] if status == 304 else [], b"" if status == 204 else b"hello")
    if request.target == "/dates":
        return DATES
    if request.target == "/head-of-30k":
        return b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 30000 + b"\r\n" + FIVE
    return HEADS[request.target]


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer, ["too big header"]) as running:
        yield running


def start_line(proxy: Proxying, target: str) -> bytes:
    with proxy.server.client() as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
        return client.read_until(b"\r\n")[:-2]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/known", b"HTTP/1.1 200 OK"),
        ("/own-phrase", b"HTTP/1.1 200 Fine"),
        ("/long-phrase", b"HTTP/1.1 404 Not  here, (or) there: \xe4"),
        ("/no-phrase", b"HTTP/1.1 200"),
        ("/empty-phrase", b"HTTP/1.1 200 "),
        ("/strange-status", b"HTTP/1.1 799 What"),
        ("/http-1.0", b"HTTP/1.1 200 OK"),
    ],
)
def test_status_line(proxy: Proxying, target: str, line: bytes) -> None:
    assert start_line(proxy, target) == line


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/bare-lf", [("X-A", "b")]),
        ("/upgrade", [("Upgrade", "h2c")]),
        ("/hop", []),
        ("/status-field", [("Status", "500 No")]),
        ("/high-bytes", [("X-A", "\xe4\xff"), ("X_B", "c")]),
        ("/validators", [("Last-Modified", "nonsense"), ("Etag", 'W/"x"')]),
        ("/no-type", []),
    ],
)
def test_fields(proxy: Proxying, target: str, fields: list[tuple[str, str]]) -> None:
    ours = ("Server", "Date", "Connection", "Content-Length")
    reply = proxy.server.get(target)
    assert [pair for pair in reply.headers if pair[0] not in ours] == fields
    assert reply.header("Connection") == "close" and reply.body == b"hello"


def test_repeated_fields(headgate: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    """As mainline nginx: of what may stand once the first is kept, the rest is dropped and the log told."""
    server = headgate(CONF.replace("BACKEND", backend(answer).address))
    reply = server.get("/dates")
    for name in ("Date", "ETag", "Last-Modified", "Expires", "Server"):
        assert reply.all(name) == ["1"]
    assert (reply.all("Location"), reply.all("Content-Type")) == (["/1"], ["a/b"])
    for name in ("Cache-Control", "Vary", "Link", "WWW-Authenticate"):
        assert reply.all(name) == ["a", "b"]
    assert reply.all("X-A") == ["1", "2"]
    assert len(server.matching(r"\[warn\] .*upstream sent duplicate header line: .* ignored while reading resp")) == 7
    server.expect_log('"last-modified: 2", previous value: "Last-Modified: 1", ignored')


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 304), ("GET", 200), ("HEAD", 404)]
)
def test_a_connection_without_a_body_to_come_is_used_again(proxy: Proxying, method: str, status: int) -> None:
    first = proxy.server.request(method, f"/kept/{status}")
    assert first.status == status
    connection = proxy.backend.requests[-1].connection
    assert proxy.server.request(method, f"/kept/{status}").status == status
    assert proxy.backend.requests[-1].connection == connection


def test_content_length_without_a_body(proxy: Proxying) -> None:
    with proxy.server.client() as client:
        assert client.request("HEAD", "/kept/200").header("Content-Length") == "5"
        assert client.request("GET", "/kept/304").header("Content-Length") == "5"
        assert client.request("GET", "/kept/204").header("Content-Length") is None
        assert client.request("GET", "/kept/200").body == b"hello"


@pytest.mark.parametrize(
    ("target", "status"),
    [("/big", 200), ("/small/known", 200), ("/small/big", 502), ("/large/head-of-30k", 200)],
)
def test_proxy_buffer_size(proxy: Proxying, target: str, status: int) -> None:
    assert proxy.server.get(target).status == status
    if status == 502:
        proxy.server.expect_log("upstream sent too big header while reading response header from upstream")
