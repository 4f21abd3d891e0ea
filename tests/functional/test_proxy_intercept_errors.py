"""proxy_intercept_errors: a backend's error becomes the location's own page where error_page names it."""

from collections.abc import Iterator

import pytest

from tests.backends import Reply, Request
from tests.proxying import Proxying, proxying

CONF = """
    http {
        proxy_intercept_errors on;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            error_page 401 402 404 500 503 /page;
            error_page 405 =200 /page;
            error_page 410 @named;
            error_page 301 302 = /page;
            error_page 451 =204 /none;
            error_page 452 =204 /text;
            location / { proxy_pass http://BACKEND; }
            location /off/ { proxy_pass http://BACKEND; proxy_intercept_errors off; }
            location /bare/ { proxy_pass http://BACKEND; error_page 599 /page; }
            location = /page { return 200 "page of $status $upstream_status $request_method"; }
            location = /none { return 204; }
            location = /text { return 200 "nobody sees it"; }
            location /again/ { proxy_pass http://BACKEND; error_page 404 /again/500; error_page 500 /page; }
            location /recursive/ {
                proxy_pass http://BACKEND;
                recursive_error_pages on;
                error_page 404 /recursive/500;
                error_page 500 /page;
            }
            location @named { proxy_pass http://BACKEND; proxy_method GET; error_page 599 /page; }
        }
    }"""


def answer(request: Request) -> Reply:
    status = int(request.target.rpartition("/")[2] or 200)
    if status == 410 and request.header("x-named"):
        status = 200
    headers = [("WWW-Authenticate", 'Basic realm="a"'), ("WWW-Authenticate", "Digest b"), ("X-Own", "own")]
    return Reply(status, [*headers, ("Location", "http://there/"), ("Set-Cookie", "a=b")], f"own {status}".encode())


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer) as running:
        yield running


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/200", 200, b"own 200"),
        ("/500", 500, b"page of 500 500 GET"),
        ("/404", 404, b"page of 404 404 GET"),
        ("/503", 503, b"page of 503 503 GET"),
        ("/405", 200, b"page of 200 405 GET"),
        ("/403", 403, b"own 403"),
        ("/451", 204, b""),
        ("/302", 200, b"page of 200 302 GET"),
        ("/303", 303, b"own 303"),
        ("/off/500", 500, b"own 500"),
        ("/bare/500", 500, b"own 500"),
        ("/recursive/404", 500, b"page of 500 404 : 500 GET"),
    ],
)
def test_page(proxy: Proxying, target: str, status: int, body: bytes) -> None:
    reply = proxy.server.get(target)
    assert (reply.status, reply.body) == (status, body)
    intercepted = not body.startswith(b"own")
    assert (reply.header("X-Own") is None) == intercepted
    assert (reply.header("Set-Cookie") is None) == intercepted


def test_a_page_that_fails_too(proxy: Proxying) -> None:
    """The page's own error has the built-in page: error_page is for the first error alone."""
    reply = proxy.server.get("/again/404")
    assert reply.status == 500 and b"<center><h1>500 Internal Server Error</h1></center>" in reply.body


def test_a_post_becomes_a_get(proxy: Proxying) -> None:
    assert proxy.server.request("POST", "/500", body=b"x").body == b"page of 500 500 GET"


def test_401_still_asks_for_credentials(proxy: Proxying) -> None:
    reply = proxy.server.get("/401")
    assert (reply.status, reply.body) == (401, b"page of 401 401 GET")
    both = ['Basic realm="a"', "Digest b"]
    assert reply.all("WWW-Authenticate") == (both[:1] if proxy.server.is_nginx else both)  # nginx: both since 1.23.0
    assert proxy.server.get("/402").all("WWW-Authenticate") == []


def test_named(proxy: Proxying) -> None:
    reply = proxy.server.get("/410")
    assert (reply.status, reply.body) == (410, b"own 410")
    assert proxy.backend.requests[-1].target == "/410"


@pytest.mark.parametrize("status", [451, 452])
def test_a_204_instead_of_an_error_has_no_type(proxy: Proxying, status: int) -> None:
    reply = proxy.server.get(f"/{status}")
    assert (reply.status, reply.header("content-type"), reply.header("content-length")) == (204, None, None)
