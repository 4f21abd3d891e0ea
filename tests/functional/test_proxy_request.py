"""The request that a backend gets: its line, fields and body.

proxy_method, proxy_set_body, proxy_set_header, proxy_pass_request_headers, proxy_pass_request_body, proxy_http_version.
nginx 1.22 is told to use HTTP/1.1, which is mainline's default; where mainline has changed more, a test says so.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server
from tests.proxying import Proxying, proxying

CONF = """
    http {
        proxy_http_version 1.1;
        upstream group { server BACKEND; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://BACKEND; }
            location /group/ { proxy_pass http://group; }
            location /1.0/ { proxy_pass http://BACKEND; proxy_http_version 1.0; }
            location /put/ { proxy_pass http://BACKEND; proxy_method PUT; }
            location /var/ { proxy_pass http://BACKEND; proxy_method $arg_m; proxy_set_body "$request_method $arg_b"; }
            location /body/ { proxy_pass http://BACKEND; proxy_set_body own; }
            location /empty/ { proxy_pass http://BACKEND; proxy_set_body ""; }
            location /bare/ { proxy_pass http://BACKEND; proxy_pass_request_headers off; proxy_set_header X-Own y; }
            location /drop/ {
                proxy_pass http://BACKEND; proxy_pass_request_body off; proxy_set_header Content-Length "";
            }
            location /fields/ {
                proxy_pass http://BACKEND;
                proxy_set_header Host $http_x_wanted;
                proxy_set_header x-one new;
                proxy_set_header X-Two "";
                proxy_set_header X-Three "$http_x_one-$http_x_two";
                proxy_set_header X-Four $http_none;
                proxy_set_header Connection "keep-alive, $http_x_one";
                proxy_set_header TE trailers;
            }
            location /head/ { proxy_pass http://BACKEND; proxy_method HEAD; }
            location /get/ { proxy_pass http://BACKEND; proxy_method GET; }
        }
        server {
            listen 127.0.0.1:%%PORT_1%%;
            proxy_set_header X-Outer outer;
            location / { proxy_pass http://BACKEND; }
            location /inner/ { proxy_pass http://BACKEND; proxy_set_header X-Inner inner; }
            location /also/ { proxy_pass http://BACKEND; proxy_set_body x; }
        }
    }"""


def answer(request: Request) -> Reply:
    return Reply(body=b"0123456789")


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer) as running:
        yield running


@pytest.fixture
def sent(proxy: Proxying) -> Callable[..., Request]:
    """`sent(method, target, headers, body)` -> the request that the backend got."""

    def send(method: str = "GET", target: str = "/", *args: Any, index: int = 0, **options: Any) -> Request:
        assert proxy.server.request(method, target, *args, index=index, **options).status == 200
        return proxy.backend.requests[-1]

    return send


Sent = Callable[..., Request]


def test_the_usual(proxy: Proxying, sent: Sent) -> None:
    """Host is the backend's; what is for one connection only is not passed on; the rest is, spelled as it came."""
    headers = [("x-One", "1"), ("Connection", "close, X-Hop"), ("Keep-Alive", "5"), ("TE", "trailers"), ("X-One", "2")]
    got = sent("GET", "/a?b=c", [*headers, ("Upgrade", "x"), ("Expect", ""), ("A", "b")])
    expected = [("x-One", "1"), ("X-One", "2"), ("A", "b")]
    assert [pair for pair in got.headers if pair[0] not in ("Host", "Connection")] == expected
    assert (got.method, got.target, got.version) == ("GET", "/a?b=c", "HTTP/1.1")
    assert got.header("Host") == proxy.backend.address
    # nginx says close unless told otherwise, mainline does not since connections are kept by default
    assert got.header("Connection") == ("close" if proxy.server.is_nginx else None)


def test_host_of_a_group(sent: Sent) -> None:
    assert sent("GET", "/group/").header("Host") == "group"


def test_proxy_http_version(sent: Sent) -> None:
    assert sent("GET", "/1.0/").version == "HTTP/1.0"


def test_http_2_is_not_taken_for_nonsense(headgate: Callable[..., Server]) -> None:
    checked = headgate("http { proxy_http_version 2; }", start=False).check()
    text = '[emerg] "proxy_http_version 2" is known to nginx but not implemented by headgate in '
    assert checked.returncode == 1 and text in checked.stderr


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"body"), ("DELETE", b"")])
def test_proxy_method(sent: Sent, method: str, body: bytes) -> None:
    got = sent(method, "/put/", {}, body)
    assert (got.method, got.body) == ("PUT", body)


def test_proxy_method_with_variables(sent: Sent) -> None:
    got = sent("GET", "/var/?m=REPORT&b=x")
    assert (got.method, got.body) == ("REPORT", b"GET x")


def test_a_head_in_between(proxy: Proxying) -> None:
    """The backend is asked with HEAD, or the client asks with HEAD: either way the framing holds."""
    with proxy.server.client() as client:
        client.send(b"GET /head/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    with proxy.server.client() as client:
        reply = client.request("HEAD", "/get/")
        assert (reply.status, reply.header("Content-Length"), reply.body) == (200, "10", b"")
        assert client.get("/").body == b"0123456789"


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("GET", "/body/", b"", b"own"),
        ("POST", "/body/", b"the client's", b"own"),
        ("POST", "/empty/", b"the client's", b""),
        ("POST", "/also/", b"the client's", b"the client's"),
    ],
)
def test_proxy_set_body(sent: Sent, method: str, target: str, body: bytes, expected: bytes) -> None:
    got = sent(method, target, {}, body)
    assert got.body == expected and got.all("Content-Length") == [str(len(expected))]


def test_proxy_pass_request_headers(proxy: Proxying, sent: Sent) -> None:
    got = sent("POST", "/bare/", {"X-Lost": "1", "Content-Type": "a"}, b"body")
    kept = {name: value for name, value in got.headers if name not in ("Host", "Connection")}
    assert kept == {"X-Own": "y", "Content-Length": "4"} and got.body == b"body"


def test_proxy_pass_request_body(sent: Sent) -> None:
    got = sent("POST", "/drop/", {"X-Kept": "1"}, b"body")
    assert (got.header("X-Kept"), got.body, got.all("Content-Length")) == ("1", b"", [])


def test_proxy_set_header(sent: Sent) -> None:
    got = sent("GET", "/fields/", {"X-Wanted": "wanted", "X-One": "1", "X-Two": "2", "X-Five": "5", "TE": "gzip"})
    assert got.headers == [
        ("Host", "wanted"),
        ("x-one", "new"),
        ("X-Three", "1-2"),
        ("Connection", "keep-alive, 1"),
        ("TE", "trailers"),
        ("X-Wanted", "wanted"),
        ("X-Five", "5"),
    ]


def test_what_mainline_has_changed(headgate: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    """An empty Host is the backend's own, and Proxy-Connection is not passed on."""
    peer = backend(answer)
    server = headgate(CONF.replace("BACKEND", peer.address))
    server.get("/fields/", {"Proxy-Connection": "close"})
    got = peer.requests[0]
    assert (got.header("Host"), got.header("Proxy-Connection")) == (peer.address, None)


def test_proxy_set_header_is_inherited_where_none_is_set(sent: Sent) -> None:
    assert sent("GET", "/", index=1).header("X-Outer") == "outer"
    got = sent("GET", "/inner/", index=1)
    assert (got.header("X-Outer"), got.header("X-Inner")) == (None, "inner")
    assert sent("GET", "/also/", index=1).header("X-Outer") == "outer"


def test_a_field_that_is_set_wins_over_the_clients(
    headgate: Callable[..., Server], backend: Callable[..., Backend]
) -> None:
    """However the client spells it and however often it comes."""
    peer = backend(answer)
    server = headgate(f"""
        http {{ server {{
            listen 127.0.0.1:%%PORT_0%%;
            location / {{ proxy_pass http://{peer.address}; proxy_set_header X-Real-IP $remote_addr; }}
        }} }}""")
    server.get("/", [("x-real-ip", "6.6.6.6"), ("X-REAL-IP", "7.7.7.7")])
    assert peer.requests[0].all("X-Real-IP") == ["127.0.0.1"]
