"""Conditional requests: 304 and 412, dates and entity tags, on headgate and on nginx alike."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]
BOTH = pytest.mark.parametrize("binary", ["headgate", "nginx"])


@pytest.fixture
def serve(binary: str, request: pytest.FixtureRequest) -> Factory:
    """The factory of the binary that the test's `binary` parameter names."""
    factory: Factory = request.getfixturevalue(binary)
    return factory


def site(locations: str, http: str = "") -> str:
    return f"http {{ {http} server {{ listen 127.0.0.1:%%PORT_0%%; {locations} }} }}"


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
MTIME = 784111777
ETAG = f'"{MTIME:x}-1"'
CONF = site(
    """
    location /exact/ { alias %%DIR%%/html/; }
    location /before/ { alias %%DIR%%/html/; if_modified_since before; }
    location /off/ { alias %%DIR%%/html/; if_modified_since off; }
    location /noetag/ { alias %%DIR%%/html/; etag off; }
    location /weak/ { alias %%DIR%%/html/; add_header ETag W/x; }
    location /return { return 200 "hello"; }
    location /created/ { error_page 404 =201 /exact/f; }
    """
)


def started(serve: Factory) -> Server:
    server = serve(CONF, files={"html/f": "x"})
    os.utime(server.prefix / "html/f", ns=(0, MTIME * 10**9 + 999_999_999))
    return server


CASES: list[tuple[str, dict[str, str], int]] = [
    ("/exact/f", {}, 200),
    ("/exact/f", {"If-Modified-Since": DATE}, 304),
    ("/exact/f", {"If-Modified-Since": EARLIER}, 200),
    ("/exact/f", {"If-Modified-Since": LATER}, 200),
    ("/exact/f", {"If-Modified-Since": "junk"}, 200),
    ("/exact/f", {"If-Modified-Since": "Sunday, 06-Nov-94 08:49:37 GMT"}, 304),
    ("/exact/f", {"if-modified-since": "Sun Nov  6 08:49:37 1994"}, 304),
    ("/before/f", {"If-Modified-Since": DATE}, 304),
    ("/before/f", {"If-Modified-Since": LATER}, 304),
    ("/before/f", {"If-Modified-Since": EARLIER}, 200),
    ("/before/f", {"If-Modified-Since": "junk"}, 200),
    ("/off/f", {"If-Modified-Since": DATE}, 200),
    ("/exact/f", {"If-None-Match": ETAG}, 304),
    ("/exact/f", {"If-None-Match": "W/" + ETAG}, 304),
    ("/exact/f", {"If-None-Match": f'"a", "b" ,{ETAG} '}, 304),
    ("/exact/f", {"If-None-Match": f'"a",  W/{ETAG}\t, "b"'}, 304),
    ("/exact/f", {"If-None-Match": '"a"'}, 200),
    ("/exact/f", {"If-None-Match": ETAG[:-1]}, 200),
    ("/exact/f", {"If-None-Match": ETAG + "x"}, 200),
    ("/exact/f", {"If-None-Match": "*"}, 304),
    ("/exact/f", {"If-None-Match": ETAG, "If-Modified-Since": DATE}, 304),
    ("/exact/f", {"If-None-Match": '"a"', "If-Modified-Since": DATE}, 200),
    ("/exact/f", {"If-None-Match": ETAG, "If-Modified-Since": EARLIER}, 200),
    ("/noetag/f", {"If-None-Match": ETAG}, 200),
    ("/noetag/f", {"If-None-Match": "*"}, 304),
    ("/noetag/f", {"If-Match": ETAG}, 412),
    ("/exact/f", {"If-Match": ETAG}, 200),
    ("/exact/f", {"If-Match": f'"a",{ETAG}'}, 200),
    ("/exact/f", {"If-Match": "W/" + ETAG}, 412),
    ("/exact/f", {"If-Match": "*"}, 200),
    ("/exact/f", {"If-Match": '"a"'}, 412),
    ("/exact/f", {"If-Match": ETAG, "If-None-Match": ETAG}, 304),
    ("/exact/f", {"If-Unmodified-Since": DATE}, 200),
    ("/exact/f", {"If-Unmodified-Since": LATER}, 200),
    ("/exact/f", {"If-Unmodified-Since": EARLIER}, 412),
    ("/exact/f", {"If-Unmodified-Since": "junk"}, 412),
    ("/exact/f", {"If-Unmodified-Since": LATER, "If-Match": '"a"'}, 412),
    ("/exact/f", {"Range": "bytes=0-0", "If-None-Match": ETAG}, 304),
    ("/exact/f", {"Range": "bytes=5-", "If-Match": '"a"'}, 412),
    ("/return", {"If-None-Match": "*"}, 304),
    ("/return", {"If-Modified-Since": DATE}, 200),
    ("/return", {"If-Match": '"a"'}, 412),
    ("/return", {"If-Unmodified-Since": LATER}, 412),
    ("/created/x", {"If-None-Match": "*"}, 201),
    ("/exact/none", {"If-None-Match": "*"}, 404),
]


@BOTH
def test_conditions(serve: Factory) -> None:
    server = started(serve)
    server.allow("No such file")
    assert server.get("/exact/f").header("ETag") == ETAG
    for target, headers, status in CASES:
        for method in ("GET", "HEAD"):
            assert server.request(method, target, headers).status == status, (method, target, headers)


@BOTH
def test_a_304_has_validators_and_no_body(serve: Factory) -> None:
    server = started(serve)
    with server.client() as client:
        reply = client.get("/exact/f", {"If-None-Match": "*"})
        assert [name for name, _ in reply.headers] == ["Server", "Date", "Last-Modified", "Connection", "ETag"]
        assert (reply.header("Last-Modified"), reply.header("ETag")) == (DATE, ETAG)
        assert client.get("/exact/f").body == b"x"


@BOTH
def test_a_412_is_an_error_like_others(serve: Factory) -> None:
    server = serve(
        site("location / { error_page 412 /page; } location /own/ { error_page 412 =200 /page; }"),
        files={"html/f": "x", "html/own/f": "x", "html/page": "changed"},
    )
    reply = server.get("/f", {"If-Match": '"a"'})
    assert (reply.status, reply.body) == (412, b"changed")
    reply = server.get("/own/f", {"If-Match": server.get("/page").header("ETag") or ""})
    assert (reply.status, reply.body) == (200, b"changed")


def test_a_page_that_fails_the_same_condition_does_not_go_round_in_circles(headgate: Factory) -> None:
    server = headgate(site("error_page 412 =200 /page;"), files={"html/f": "x", "html/page": "p"})
    reply = server.get("/f", {"If-Match": '"a"'})
    assert reply.status == 412
    assert b"412 Precondition Failed" in reply.body


@BOTH
def test_etags_that_add_header_made(serve: Factory) -> None:
    """add_header comes after the conditions."""
    server = started(serve)
    assert server.get("/weak/f").header("ETag") == "W/x"
    assert server.get("/weak/f", {"If-None-Match": "x"}).status == 200
    assert server.get("/weak/f", {"If-None-Match": ETAG}).status == 304


@BOTH
def test_configuration_errors(serve: Factory) -> None:
    server = serve(site("\nif_modified_since maybe;"), start=False)
    assert f'invalid value "maybe" in {server.prefix}/nginx.conf:2' in server.check().stderr
