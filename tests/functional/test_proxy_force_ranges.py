"""proxy_force_ranges: parts of responses whose backend knows nothing of ranges."""

from collections.abc import Iterator

import pytest

from tests.backends import Reply, Request
from tests.proxying import Proxying, proxying

DATE = "Mon, 28 Sep 1970 06:00:00 GMT"
BODY = b"0123456789" * 10

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://BACKEND; }
            location /force/ { proxy_pass http://BACKEND; proxy_force_ranges on; proxy_set_header Range ""; }
            location /few/ { proxy_pass http://BACKEND; proxy_force_ranges on; max_ranges 0; }
        }
    }"""


def answer(request: Request) -> Reply:
    headers = [("Last-Modified", DATE), ("ETag", '"tag"'), ("Accept-Ranges", "none"), ("Content-Type", "text/plain")]
    if request.target.endswith("chunked"):
        return Reply(headers=headers, chunks=[BODY])
    return Reply(404 if request.target.endswith("404") else 200, headers, BODY)


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer) as running:
        yield running


@pytest.mark.parametrize(
    ("target", "headers", "status", "body", "content_range"),
    [
        ("/", {"Range": "bytes=1-3"}, 200, BODY, None),
        ("/force/", {}, 200, BODY, None),
        ("/force/", {"Range": "bytes=1-3"}, 206, b"123", "bytes 1-3/100"),
        ("/force/", {"Range": "bytes=95-"}, 206, b"56789", "bytes 95-99/100"),
        ("/force/", {"Range": "bytes=-3"}, 206, b"789", "bytes 97-99/100"),
        ("/force/", {"Range": "bytes=0-999"}, 206, BODY, "bytes 0-99/100"),
        ("/force/", {"Range": "bytes=0-1,3-4"}, 200, BODY, None),
        ("/force/", {"Range": "bytes=0-1", "If-Range": '"tag"'}, 206, b"01", "bytes 0-1/100"),
        ("/force/", {"Range": "bytes=0-1", "If-Range": '"other"'}, 200, BODY, None),
        ("/force/", {"Range": "bytes=0-1", "If-Range": DATE}, 206, b"01", "bytes 0-1/100"),
        ("/force/", {"Range": "bytes=0-1", "If-Range": "Tue, 29 Sep 1970 06:00:00 GMT"}, 200, BODY, None),
        ("/force/chunked", {"Range": "bytes=1-3"}, 200, BODY, None),
        ("/force/404", {"Range": "bytes=1-3"}, 404, BODY, None),
        ("/few/", {"Range": "bytes=1-3"}, 200, BODY, None),
    ],
)
def test_range(
    proxy: Proxying, target: str, headers: dict[str, str], status: int, body: bytes, content_range: str | None
) -> None:
    reply = proxy.server.get(target, headers)
    assert (reply.status, reply.body, reply.header("Content-Range")) == (status, body, content_range)
    assert reply.header("ETag") == '"tag"' and reply.header("Last-Modified") == DATE


def test_not_satisfiable(proxy: Proxying) -> None:
    reply = proxy.server.get("/force/", {"Range": "bytes=100-"})
    assert (reply.status, reply.header("Content-Range")) == (416, "bytes */100")
    with proxy.server.client() as client:  # and the connection is fine
        assert client.get("/force/", {"Range": "bytes=100-"}).status == 416
        assert client.get("/force/", {"Range": "bytes=0-0"}).body == b"0"


def test_accept_ranges_is_ours_to_say(proxy: Proxying) -> None:
    assert proxy.server.get("/").all("Accept-Ranges") == ["none"]
    assert proxy.server.get("/force/").all("Accept-Ranges") == ["bytes"]
    assert proxy.server.get("/few/").all("Accept-Ranges") == []


def test_conditions_are_the_backends_to_test(proxy: Proxying) -> None:
    for name, value in (("If-None-Match", '"tag"'), ("If-Modified-Since", DATE), ("If-Match", '"other"')):
        assert proxy.server.get("/force/", {name: value}).status == 200
