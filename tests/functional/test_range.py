"""Range requests: one part, several, none; If-Range; max_ranges; on headgate and on nginx alike."""

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


DATA = bytes(range(256)) * 4
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MTIME = 784111777


@BOTH
def test_one_range(serve: Factory) -> None:
    server = serve(site(""), files={"html/f": DATA})
    for value, start, end in (
        ("bytes=0-8", 0, 9),
        ("bytes=-5", 1019, 1024),
        ("bytes=-5000", 0, 1024),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1023-1023", 1023, 1024),
        ("bytes=10-9999999", 10, 1024),
        ("bytes= 1 - 2 ", 1, 3),
        ("Bytes=0-0", 0, 1),
        ("bytes=2000-3000,0-1", 0, 2),
    ):
        reply = server.get("/f", {"Range": value})
        assert (reply.status, reply.body) == (206, DATA[start:end]), value
        assert reply.header("Content-Range") == f"bytes {start}-{end - 1}/1024", value
        assert reply.header("Content-Length") == str(end - start)
        assert reply.header("Accept-Ranges") is None
        assert reply.header("ETag") and reply.header("Last-Modified")


@BOTH
@pytest.mark.parametrize(
    "value",
    ["", "bytes", "bytes=", "bytes=,", "items=0-1", "bytes=0-511,512-1023,0-0", "bytes=0-1023,5-6", "0-5"],
)
def test_the_whole_where_no_part_is_due(serve: Factory, value: str) -> None:
    server = serve(site(""), files={"html/f": DATA})
    reply = server.get("/f", {"Range": value})
    if value == "bytes=,":  # long enough to be read, and not a range
        assert reply.status == 416
        return
    assert (reply.status, reply.body, reply.header("Accept-Ranges")) == (200, DATA, "bytes")
    assert reply.header("Content-Range") is None


@BOTH
@pytest.mark.parametrize(
    "value",
    [
        "bytes=1024-",
        "bytes=2000-3000",
        "bytes=5",
        "bytes=a-b",
        "bytes=0-1,",
        "bytes=0-1x",
        "bytes=1-2;3-4",
        "bytes=-",
        "bytes=- 5",
        "bytes=0-1 2",
        "bytes=9223372036854775808-",
        "bytes=0-9223372036854775808",
        "bytes=-0",
    ],
)
def test_not_satisfiable(serve: Factory, value: str) -> None:
    server = serve(site(""), files={"html/f": DATA})
    reply = server.get("/f", {"Range": value})
    assert (reply.status, reply.header("Content-Range")) == (416, "bytes */1024")
    assert b"416 Requested Range Not Satisfiable" in reply.body


def test_an_answer_that_became_416_brings_nothing_of_its_own(headgate: Factory) -> None:
    """nginx sends the fields of the 200 answer too, and those with `always` and ETag twice."""
    server = headgate(site("add_header A 1; add_header B 2 always;"), files={"html/f": DATA})
    reply = server.get("/f", {"Range": "bytes=2000-"})
    assert [name for name, _ in reply.headers if name not in ("Server", "Date", "Connection")] == [
        "Content-Type",
        "Content-Length",
        "Content-Range",
        "B",
    ]


@BOTH
def test_an_error_page_for_416_keeps_content_range(serve: Factory) -> None:
    server = serve(site("error_page 416 /page; location /n/ { error_page 416 @n; } location @n { return 416 n; }"),
                   files={"html/f": DATA, "html/n/f": DATA, "html/page": "page"})  # fmt: skip
    reply = server.get("/f", {"Range": "bytes=2000-"})
    assert (reply.status, reply.body, reply.header("Content-Range")) == (416, b"page", "bytes */1024")
    reply = server.get("/n/f", {"Range": "bytes=2000-"})
    assert (reply.status, reply.body, reply.header("Content-Range")) == (416, b"n", "bytes */1024")


@BOTH
def test_an_empty_file_has_no_parts(serve: Factory) -> None:
    server = serve(site(""), files={"html/f": ""})
    for value, status in (("bytes=0-", 200), ("bytes=-5", 200), ("bytes=0-0", 200), ("bytes=5-", 416)):
        assert server.get("/f", {"Range": value}).status == status, value


def parts(reply: object) -> list[tuple[bytes, bytes]]:
    """The (head, data) pairs of a multipart body."""
    kind = reply.header("Content-Type")  # type: ignore[attr-defined]
    assert kind.startswith("multipart/byteranges; boundary=")
    mark = b"\r\n--" + kind.partition("=")[2].encode()
    before, *middle, last = reply.body.split(mark)  # type: ignore[attr-defined]
    assert (before, last) == (b"", b"--\r\n")
    out = []
    for part in middle:
        head, _, data = part.partition(b"\r\n\r\n")
        out.append((head, data))
    return out


@BOTH
def test_several_ranges(serve: Factory) -> None:
    server = serve(site("types { text/x f; }"), files={"html/a.f": DATA, "html/b": DATA})
    reply = server.get("/a.f", {"Range": "bytes=0-9, 100-109 ,-3"})
    assert reply.status == 206
    assert reply.header("Content-Length") == str(len(reply.body))
    assert reply.header("Content-Range") is None
    assert parts(reply) == [
        (b"\r\nContent-Type: text/x\r\nContent-Range: bytes 0-9/1024", DATA[:10]),
        (b"\r\nContent-Type: text/x\r\nContent-Range: bytes 100-109/1024", DATA[100:110]),
        (b"\r\nContent-Type: text/x\r\nContent-Range: bytes 1021-1023/1024", DATA[-3:]),
    ]
    again = server.get("/a.f", {"Range": "bytes=0-0,5-5"})
    assert again.header("Content-Type") != reply.header("Content-Type")
    overlapping = server.get("/b", {"Range": "bytes=0-100,50-150"})
    assert [data for _, data in parts(overlapping)] == [DATA[:101], DATA[50:151]]
    with server.client() as client:
        head = client.request("HEAD", "/b", {"Range": "bytes=0-9,20-29"})
        assert (head.status, head.body) == (206, b"")
        assert client.get("/b", {"Range": "bytes=0-9,20-29"}).header("Content-Length") == head.header("Content-Length")


@BOTH
def test_parts_have_no_type_where_the_file_has_none(serve: Factory) -> None:
    server = serve(site('default_type "";'), files={"html/f": DATA})
    reply = server.get("/f")
    assert reply.header("Content-Type") is None
    assert parts(server.get("/f", {"Range": "bytes=0-0,1-1"}))[0] == (b"\r\nContent-Range: bytes 0-0/1024", DATA[:1])


@BOTH
def test_max_ranges(serve: Factory) -> None:
    server = serve(site("location /none/ { max_ranges 0; } location /two/ { max_ranges 2; }"),
                   files={"html/none/f": DATA, "html/two/f": DATA})  # fmt: skip
    reply = server.get("/none/f", {"Range": "bytes=0-1"})
    assert (reply.status, reply.header("Accept-Ranges")) == (200, None)
    assert server.get("/two/f", {"Range": "bytes=0-1,3-4"}).status == 206
    assert server.get("/two/f", {"Range": "bytes=0-1,3-4,6-7"}).status == 200
    assert server.get("/two/f", {"Range": "bytes=0-1,3-4,6-7,x"}).status == 200
    assert server.get("/two/f", {"Range": "bytes=0-1,5000-,6-7"}).status == 206


def test_many_small_parts_do_not_cost_more_than_the_whole(headgate: Factory) -> None:
    server = headgate(site("location /limit/ { alias %%DIR%%/html/; max_ranges 1000; }"), files={"html/f": DATA})
    many = "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 100, 2))
    assert server.get("/f", {"Range": many}).status == 200
    assert len(parts(server.get("/limit/f", {"Range": many}))) == 50


@BOTH
def test_if_range(serve: Factory) -> None:
    server = serve(site('location /plain/ { etag off; } location /set/ { add_header ETag "\\"mine\\""; }'),
                   files={"html/f": DATA, "html/plain/f": DATA, "html/set/f": DATA})  # fmt: skip
    for name in ("f", "plain/f", "set/f"):
        os.utime(server.prefix / "html" / name, (MTIME, MTIME))
    etag = server.get("/f").header("ETag")
    for target, condition, status in (
        ("/f", etag, 206),
        ("/f", f"W/{etag}", 200),
        ("/f", '"other"', 200),
        ("/f", DATE, 206),
        ("/f", "Sunday, 06-Nov-94 08:49:37 GMT", 206),
        ("/f", "Sun Nov  6 08:49:37 1994", 206),
        ("/f", "Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ("/f", "junk", 200),
        ("/plain/f", etag, 200),
        ("/plain/f", DATE, 206),
        ("/set/f", '"mine"', 206),
        ("/set/f", etag, 200),
    ):
        reply = server.get(target, {"Range": "bytes=0-0", "If-Range": str(condition)})
        assert reply.status == status, (target, condition)


@BOTH
def test_only_200_answers_have_parts(serve: Factory) -> None:
    server = serve(
        site('location /r { return 200 "hello"; } location /g/ { error_page 404 /f; }'), files={"html/f": DATA}
    )
    reply = server.get("/r", {"Range": "bytes=0-0"})
    assert (reply.status, reply.body, reply.header("Accept-Ranges")) == (200, b"hello", None)
    server.allow("No such file")
    assert server.get("/g/x", {"Range": "bytes=0-0"}).body == DATA
    with server.client() as client:
        client.send("GET /f HTTP/1.0\r\nRange: bytes=0-0\r\n\r\n")
        assert client.response().body == DATA[:1]
