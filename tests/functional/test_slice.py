"""`slice` and `$slice_range`: headgate and nginx alike."""

import re
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        log_format ranges "$slice_range";
        access_log logs/ranges.log ranges;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            add_header X-Range $slice_range;
            location / { slice 10; proxy_pass http://BACKEND; proxy_set_header Range $slice_range; }
            location /large/ { slice 100k; proxy_pass http://BACKEND; proxy_set_header Range $slice_range; }
            location /off/ { proxy_pass http://BACKEND; proxy_set_header Range $slice_range; }
            location /named/ { error_page 404 = @parts; return 404; }
            location @parts { slice 10; proxy_pass http://BACKEND; proxy_set_header Range $slice_range; }
            location /range { slice 10; return 200 "[$slice_range]"; }
        }
    }"""
BODY = bytes(range(97, 97 + 25))
LARGE = bytes(range(256)) * 4000


def parts(request: Request) -> Reply:
    """A server that has ranges."""
    body = LARGE if "large" in request.target else BODY
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.header("range") or "")
    if wanted is None or "whole" in request.target:
        return Reply(body=body)
    first, last = int(wanted[1]), min(int(wanted[2]), len(body) - 1)
    etag = f'"{first if "changing" in request.target else 1}"'
    total = "*" if "unknown" in request.target else len(body)
    if first >= len(body):
        return Reply(416, headers=[("Content-Range", f"bytes */{len(body)}")])
    if "late" in request.target and first:
        return Reply(200, body=body)
    shift = 1 if "shifted" in request.target else 0
    return Reply(
        206,
        headers=[
            ("Content-Range", f"bytes {first + shift}-{last}/{total}"),
            ("ETag", etag),
            ("Content-Type", "text/x"),
        ],
        body=body[first + shift : last + 1],
    )


@pytest.fixture
def one(backend: Callable[..., Backend]) -> Backend:
    return backend(parts)


def start(factory: Factory, one: Backend) -> Server:
    return factory(CONF.replace("BACKEND", one.address))


def asked(one: Backend, since: int = 0) -> list[str | None]:
    return [request.header("range") for request in one.requests[since:]]


def test_the_whole_in_parts(either: Factory, one: Backend) -> None:
    server = start(either, one)
    reply = server.get("/x")
    assert (reply.status, reply.body, reply.header("content-length")) == (200, BODY, "25")
    assert (reply.header("content-range"), reply.header("accept-ranges")) == (None, "bytes")
    assert reply.header("content-type") == "text/x"
    assert asked(one) == ["bytes=0-9", "bytes=10-19", "bytes=20-29"]
    assert server.get("/large/x").body == LARGE
    assert server.get("/named/x").body == BODY


RANGES = {
    "bytes=0-0": (206, BODY[:1], ["bytes=0-9"]),
    "bytes=5-14": (206, BODY[5:15], ["bytes=0-9", "bytes=10-19"]),
    "bytes=12-": (206, BODY[12:], ["bytes=10-19", "bytes=20-29"]),
    "bytes=20-100": (206, BODY[20:], ["bytes=20-29"]),
    "bytes=-6": (206, BODY[-6:], ["bytes=0-9", "bytes=10-19", "bytes=20-29"]),
    "bytes=-3": (206, BODY[-3:], ["bytes=0-9", "bytes=20-29"]),
    "bytes=1-2,4-5": (200, BODY, ["bytes=0-9", "bytes=10-19", "bytes=20-29"]),
    "lines=1-2": (200, BODY, ["bytes=0-9", "bytes=10-19", "bytes=20-29"]),
    "bytes=25-": (416, None, ["bytes=20-29"]),
    "bytes=30-": (416, None, ["bytes=30-39"]),
    "bytes=x-": (416, None, ["bytes=0-9"]),
    "bytes=1000000000000000000-": (416, None, ["bytes=1000000000000000000-1000000000000000009"]),
    "bytes=9999999999999999999-": (416, None, ["bytes=0-9"]),
}


def test_ranges(either: Factory, one: Backend) -> None:
    server = start(either, one)
    for value, (status, body, wanted) in RANGES.items():
        before = len(one.requests)
        reply = server.get("/x", {"Range": value})
        assert (value, reply.status) == (value, status)
        assert body is None or reply.body == body
        assert (value, asked(one, before)) == (value, wanted)
        if status == 206:
            first = BODY.index(body or b"")
            assert reply.header("content-range") == f"bytes {first}-{first + len(body or b'') - 1}/25"


def test_conditions(either: Factory, one: Backend) -> None:
    server = start(either, one)
    assert server.get("/x", {"Range": "bytes=3-4", "If-Range": '"1"'}).body == BODY[3:5]
    assert server.get("/x", {"Range": "bytes=3-4", "If-Range": '"2"'}).body == BODY
    head = server.request("HEAD", "/x")
    assert (head.status, head.header("content-length")) == (200, "25")


def test_what_the_variable_is_afterwards(either: Factory, one: Backend) -> None:
    server = start(either, one)
    assert server.get("/x").header("x-range") == "bytes=0-9"
    assert server.get("/x", {"Range": "bytes=12-14"}).header("x-range") == "bytes=10-19"
    assert server.access_log(2, "logs/ranges.log") == ["-", "-"]


def test_where_there_are_no_slices(either: Factory, one: Backend) -> None:
    server = start(either, one)
    assert server.get("/off/x").body == BODY and asked(one) == [None]
    assert server.get("/whole").body == BODY
    assert server.get("/range").body == b"[]"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("/changing", "etag mismatch in slice response"),
        ("/unknown", "no complete length in slice response"),
        ("/shifted", "unexpected range in slice response: 1-10, expected: 0-11"),
        ("/late", "unexpected status code 200 in slice response"),
    ],
)
def test_parts_that_do_not_fit(headgate: Factory, one: Backend, uri: str, message: str) -> None:
    server = start(headgate, one)
    server.allow(message)
    with pytest.raises(TruncatedError):
        server.get(uri)
    server.expect_log(message)


def test_the_next_request_on_a_connection(either: Factory, one: Backend) -> None:
    server = start(either, one)
    with server.client() as client:
        for _ in range(3):
            assert client.get("/x").body == BODY
            assert client.get("/large/x", {"Range": "bytes=150000-"}).body == LARGE[150000:]
