"""Response heads and framing: what is said of lengths, connections and dates, and what leaves in one write."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from headgate.worker.http import output
from headgate.worker.http.output import http_date, make_head, status_text, write


class FakeConnection:
    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.writes: list[bytes] = []

    def may_keep(self, r: object) -> bool:
        return self.keep

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class FakeRequest:
    """A request as the write filter sees it."""

    def __init__(self, status: int = 200, keep: bool = True, **given: Any) -> None:
        core: dict[str, Any] = {
            "server_tokens": "off",
            "chunked_transfer_encoding": True,
            "keepalive_timeout": (75.0, 0.0),
        }
        self.status = status
        self.conn = FakeConnection(keep)
        core |= given.pop("core", {})
        kept, shown = core["keepalive_timeout"]
        self.location = SimpleNamespace(
            core=SimpleNamespace(**core),
            server_tokens=core["server_tokens"],
            keepalive_timeout=kept,
            keepalive_header=shown,
        )
        self.method, self.version, self.keepalive = b"GET", 11, True
        self.status_line = self.content_type = self.charset = self.content_length = self.last_modified = None
        self.location_field = self.etag = self.trailers = self.limiter = self.out = None
        self.header_only = self.chunked = False
        self.head_size = self.postpone = 0
        self.fields: list[tuple[bytes, bytes]] = []
        for name, value in given.items():
            assert hasattr(self, name), name
            setattr(self, name, value)


def head(**given: Any) -> tuple[Any, list[str]]:
    """The request and the lines of its head, without those of Server and Date at their usual place."""
    r: Any = FakeRequest(**given)
    make_head(r)
    assert r.out.endswith(b"\r\n\r\n") and r.head_size == len(r.out)
    lines = r.out.decode("latin-1").split("\r\n")[:-2]
    if lines[1] == "Server: headgate":
        assert re.fullmatch(r"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", lines[2])
        del lines[1:3]
    return r, lines


LINE, KEEP, CLOSE = "HTTP/1.1 200 OK", "Connection: keep-alive", "Connection: close"


@pytest.mark.parametrize(
    "given, lines",
    [
        ({"content_length": 0}, [LINE, "Content-Length: 0", KEEP]),
        ({}, [LINE, "Transfer-Encoding: chunked", KEEP]),
        ({"content_type": b"a/b"}, [LINE, "Content-Type: a/b", "Transfer-Encoding: chunked", KEEP]),
        ({"version": 10}, [LINE, CLOSE]),
        ({"version": 10, "content_length": 1}, [LINE, "Content-Length: 1", KEEP]),
        ({"core": {"chunked_transfer_encoding": False}}, [LINE, CLOSE]),
        ({"keep": False, "content_length": 1}, [LINE, "Content-Length: 1", CLOSE]),
        ({"keepalive": False, "content_length": 1}, [LINE, "Content-Length: 1", CLOSE]),
        ({"method": b"HEAD"}, [LINE, KEEP]),
        ({"method": b"HEAD", "content_length": 5}, [LINE, "Content-Length: 5", KEEP]),
        ({"status": 204, "content_type": b"a/b", "content_length": 0}, ["HTTP/1.1 204 No Content", KEEP]),
        ({"status": 304, "etag": b'"e"'}, ["HTTP/1.1 304 Not Modified", KEEP, 'ETag: "e"']),
        ({"status": 101}, ["HTTP/1.1 101 ", "Connection: upgrade"]),
        ({"status": 299, "content_length": 0}, ["HTTP/1.1 299 ", "Content-Length: 0", KEEP]),
        ({"status": 299, "status_line": b"299 Odd", "content_length": 0}, None),
        (
            {"content_length": 0, "core": {"keepalive_timeout": (75.0, 20.0)}},
            [LINE, "Content-Length: 0", KEEP, "Keep-Alive: timeout=20"],
        ),
        (
            {"content_length": 0, "last_modified": 0, "location_field": b"/x", "fields": [(b"A", b"1"), (b"A", b"2")]},
            [
                *(LINE, "Content-Length: 0", "Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT", "Location: /x", KEEP),
                *("A: 1", "A: 2"),
            ],
        ),
        (
            {"status": 404, "content_length": 0, "last_modified": 0},
            ["HTTP/1.1 404 Not Found", "Content-Length: 0", KEEP],
        ),
    ],
)
def test_head(given: dict[str, Any], lines: list[str] | None) -> None:
    assert head(**given)[1] == (lines or ["HTTP/1.1 299 Odd", "Content-Length: 0", KEEP])


@pytest.mark.parametrize(
    "status, content_type, shown",
    [
        (200, b"text/html", "text/html; charset=utf-8"),
        (200, b"text/html; Charset=koi8-r; x=y", "text/html; x=y; charset=utf-8"),
        (302, b"text/html", "text/html"),
    ],
)
def test_charset(status: int, content_type: bytes, shown: str) -> None:
    r, lines = head(status=status, content_type=content_type, charset=b"utf-8", content_length=0)
    assert f"Content-Type: {shown}" in lines and r.content_type == shown.encode()


def test_a_backends_server_and_date_take_the_place_of_ours() -> None:
    _, lines = head(fields=[(b"server", b"theirs"), (b"X", b"1"), (b"DATE", b"then")], content_length=0)
    assert lines == [LINE, "Content-Length: 0", KEEP, "server: theirs", "X: 1", "DATE: then"]
    _, lines = head(fields=[(b"Server", b""), (b"Date", b"")], content_length=0)  # it sent none, and that is passed on
    assert lines == [LINE, "Content-Length: 0", KEEP]


@pytest.mark.parametrize("tokens, shown", [("on", r"headgate/\d[\d.]*"), ("off", "headgate")])
def test_server_tokens(tokens: str, shown: str) -> None:
    r, _ = head(core={"server_tokens": tokens}, content_length=0)
    assert re.search(rb"\r\nServer: " + shown.encode() + rb"\r\nDate: ", r.out)


def test_http_0_9_has_no_head() -> None:
    r: Any = FakeRequest(version=9)
    make_head(r)
    assert r.out == b"" and not r.keepalive
    write(r, b"body", True)
    assert r.conn.writes == [b"body"]


def written(r: Any, *pieces: bytes, end: bool = True) -> list[bytes]:
    """What is written for pieces of a body; the head is shown as HEAD."""
    make_head(r)
    whole = r.out
    for piece in pieces:
        write(r, piece, False)
    if end:
        write(r, b"", True)
    return [data.replace(whole, b"HEAD ") for data in r.conn.writes]


@pytest.mark.parametrize(
    "given, pieces, writes",
    [
        ({"content_length": 4}, [b"ab", b"cd"], [b"HEAD ab", b"cd"]),
        ({"content_length": 0}, [], [b"HEAD "]),
        ({"content_length": 0}, [b""], [b"HEAD "]),
        ({}, [b"ab", b"c"], [b"HEAD 2\r\nab\r\n", b"1\r\nc\r\n", b"0\r\n\r\n"]),
        ({}, [], [b"HEAD 0\r\n\r\n"]),
        ({"trailers": [(b"A", b"1")]}, [b"x"], [b"HEAD 1\r\nx\r\n", b"0\r\nA: 1\r\n\r\n"]),
        ({"method": b"HEAD"}, [b"ab"], [b"HEAD "]),
        ({"status": 304}, [b"ab"], [b"HEAD "]),
        ({"version": 10}, [b"ab"], [b"HEAD ab"]),
    ],
)
def test_write(given: dict[str, Any], pieces: list[bytes], writes: list[bytes]) -> None:
    assert written(FakeRequest(**given), *pieces) == writes


def test_the_last_piece_and_the_end_leave_together() -> None:
    r: Any = FakeRequest()
    make_head(r)
    whole = r.out
    write(r, b"all", True)
    assert r.conn.writes == [whole + b"3\r\nall\r\n0\r\n\r\n"]


def test_a_large_piece_is_not_copied_behind_the_head() -> None:
    large = b"x" * 100_000
    assert written(FakeRequest(content_length=len(large)), large, end=False) == [b"HEAD ", large]


def test_what_is_postponed_leaves_when_there_is_enough_or_at_the_end() -> None:
    assert written(FakeRequest(content_length=9, postpone=1000), b"abc", b"def", b"ghi") == [b"HEAD abcdefghi"]
    big = b"x" * 1000
    assert written(FakeRequest(content_length=1006, postpone=1000), b"abc", big, b"ghi") == [b"HEAD abc" + big, b"ghi"]


def test_flush_sends_a_head_that_waits_once() -> None:
    r: Any = FakeRequest()
    make_head(r)
    whole = r.out
    output.flush(r)
    output.flush(r)
    assert r.conn.writes == [whole]


def test_status_text_and_dates() -> None:
    assert (status_text(404), status_text(299)) == (b"404 Not Found", b"299 ")
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"  # the example of RFC 9110
