"""Request heads and bodies, however their bytes arrive; and what is refused because it means two things."""

from types import SimpleNamespace

import pytest
from headgate.worker.http.head import HTTP_10, HTTP_11, BadRequest, RequestHead, broken_head
from headgate.worker.http.reader import RequestReader

from tests.sansio import ways, ways_with

LIMITS = SimpleNamespace(client_header_buffer_size=1024, large_buffers=(4, 8192))


def read(pieces: list[bytes]) -> tuple[RequestHead | None, bytes, RequestReader]:
    """The head, the body, the reader after it."""
    reader = RequestReader()
    head, body = None, b""
    for piece in pieces:
        reader.feed(piece)
        if head is None:
            head = reader.read_head(LIMITS)
        if head is not None:
            while not reader.body_done and (data := reader.read_body()):
                body += data
    return head, body, reader


HEADS = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET / HTTP/1.0\r\n\r\n", b"GET", b"/", HTTP_10, []),
    (b"GET /a?b=c HTTP/1.1\r\nhOst:a\r\nX: \t1 2\t \r\nEmpty:\r\n\r\n", b"GET", b"/a?b=c", HTTP_11,
     [(b"hOst", b"a"), (b"X", b"1 2"), (b"Empty", b"")]),
    (b"PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n", b"PURGE", b"/x", HTTP_11, [(b"Host", b"a")]),
    (b"NO_SUCH-METHOD /x HTTP/1.1\r\nHost: a\r\n\r\n", b"NO_SUCH-METHOD", b"/x", HTTP_11, [(b"Host", b"a")]),
    (b"GET http://h:1/p HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"http://h:1/p", HTTP_11, [(b"Host", b"a")]),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS", b"*", HTTP_11, [(b"Host", b"a")]),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n", b"GET", b"/\xc3\xa9", HTTP_11,
     [(b"Host", b"a"), (b"X", b"\xe9")]),
    (b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET  /  HTTP/1.1 \r\nHost: a\r\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET / HTTP/1.1\nHost: a\n\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET / HTTP/1.0\nX: HTTP/1.1\r\n\r\n", b"GET", b"/", HTTP_10, [(b"X", b"HTTP/1.1")]),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET", b"/", HTTP_11, [(b"Host", b"a")]),
    (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"GET", b"/", HTTP_11,
     [(b"Host", b"a"), (b"Upgrade", b"x"), (b"Connection", b"upgrade")]),
]  # fmt: skip


@pytest.mark.parametrize("data, method, target, version, headers", HEADS)
@pytest.mark.parametrize("trailing", [b"", b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n", b"\r\n", b"junk"])
def test_head(
    data: bytes, method: bytes, target: bytes, version: int, headers: list[tuple[bytes, bytes]], trailing: bytes
) -> None:
    for pieces in ways_with(data, trailing):
        head, body, reader = read(pieces)
        assert head is not None
        assert (head.method, head.target, head.version, head.headers) == (method, target, version, headers)
        assert (body, reader.body_done, reader.data) == (b"", True, trailing)
        assert head.line == data.strip(b"\r\n").split(b"\n")[0].rstrip(b"\r")


BODIES = [
    (b"Content-Length: 5\r\n", b"hello", b"hello"),
    (b"content-length: 0\r\n", b"", b""),
    (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    (b"Transfer-Encoding: Chunked\r\n", b"0\r\nTrailer: x\r\n\r\n", b""),
]


@pytest.mark.parametrize("field, wire, body", BODIES)
@pytest.mark.parametrize("trailing", [b"", b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n"])
def test_body(field: bytes, wire: bytes, body: bytes, trailing: bytes) -> None:
    for pieces in ways_with(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n" + wire, trailing):
        head, got, reader = read(pieces)
        assert head is not None
        assert (got, reader.body_done, reader.data, reader.taken) == (body, True, trailing, len(wire))


def test_pipelined() -> None:
    one = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    two = b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    three = b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
    for pieces in ways(one + two + three):
        reader, seen, body = RequestReader(), [], b""
        for piece in pieces:
            reader.feed(piece)
            while True:
                if not reader.body_done:
                    data = reader.read_body()
                    body += data
                    if data or reader.body_done:
                        continue
                    break
                head = reader.read_head(LIMITS)
                if head is None:
                    break
                seen.append(head.target)
        assert (seen, body, reader.data) == ([b"/1", b"/2", b"/3"], b"abcx", b"")


def test_what_a_head_means() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nUpgrade: h2c\r\nX_Y: 1\r\n\r\n"
    head = read([text])[0]
    assert head is not None
    assert (head.host, head.close, head.keep_alive, head.expect, head.upgrade, head.odd) == (
        b"a", True, False, True, b"h2c", True,
    )  # fmt: skip
    plain = read([b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"])[0]
    assert plain is not None
    assert (plain.close, plain.keep_alive, plain.expect, plain.upgrade, plain.odd) == (False, True, False, None, False)


REFUSED = [
    (400, b"garbage\r\n\r\n"),
    (400, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET\r\n\r\n"),
    (400, b"GET / \r\n\r\n"),
    (400, b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/x.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1000\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n X: 1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\x00Y: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\rHost: a\r\n\r\n"),
    # framing that two readers could take for two things
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n"),
    (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n"),
]


@pytest.mark.parametrize("status, data", REFUSED)
def test_refused(status: int, data: bytes) -> None:
    for pieces in ways(data):
        with pytest.raises(BadRequest) as caught:
            read(pieces)
        assert caught.value.status == status


@pytest.mark.parametrize(
    "begun", [b"\x16\x03\x01\x02\x00\x01", b"get / HTTP", b"\r\nx", b"GET / HTTP/1.1\rHost: a", b"GET /\0", b"GET\t/"]
)
def test_what_can_become_no_head_is_refused_at_once(begun: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read([begun])
    assert caught.value.status == 400
    head = read([HEADS[0][0]])[0]
    assert head is not None and head.headers == [(b"Host", b"a")]


def test_refused_head_leaves_the_next_reader_sound() -> None:
    for status, data in REFUSED:
        with pytest.raises(BadRequest):
            read([data])
        head = read([HEADS[0][0]])[0]
        assert head is not None and head.headers == [(b"Host", b"a")], (status, data)


def test_head_with_bare_line_feeds_hides_nothing() -> None:
    """The first empty line ends the head, whatever its line ends: what follows is another request."""
    hidden = b"GET / HTTP/1.1\nHost: a\n\nPOST /hidden HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n"
    for pieces in ways(hidden):
        reader, seen = RequestReader(), []
        for piece in pieces:
            reader.feed(piece)
            while (head := reader.read_head(LIMITS)) is not None:
                seen.append((head.target, head.headers))
        assert seen == [(b"/", [(b"Host", b"a")]), (b"/hidden", [(b"Host", b"b"), (b"X", b"y")])]


@pytest.mark.parametrize(
    "status, data",
    [
        (414, b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\n"),
        (494, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8192 + b"\r\n\r\n"),
        (494, b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"x" * 4000 + b"\r\n") * 9 + b"\r\n"),
    ],
)
def test_too_large(status: int, data: bytes) -> None:
    for pieces in ([data], [data[:9000], data[9000:]]):
        with pytest.raises(BadRequest) as caught:
            read(pieces)
        assert caught.value.status == status


def test_large_but_allowed() -> None:
    data = b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"x" * 8000 + b"\r\n") * 2 + b"\r\n"
    head = read([data])[0]
    assert head is not None and len(head.headers) == 3


def test_simple_request() -> None:
    for pieces in ways_with(b"GET /old\r\n", b""):
        reader = RequestReader()
        for piece in pieces:
            reader.feed(piece)
        assert reader.read_head(LIMITS) is None
        assert reader.read_simple() == b"/old"
    reader = RequestReader()
    reader.feed(b"POST /old\r\n")
    assert reader.read_simple() is None


@pytest.mark.parametrize(
    "data, method, target, headers",
    [
        (b"garbage", b"", b"", []),
        (b"", b"", b"", []),
        (b"GET / HTTP/2.0\r\n", b"", b"", []),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nbad line\r\nX: y\r\n\r\n", b"GET", b"/a", [(b"Host", b"h")]),
        (b"GET /a HTTP/1.1\r\nHost: h\r\nCut", b"GET", b"/a", [(b"Host", b"h")]),
    ],
)
def test_what_is_known_of_a_broken_head(data: bytes, method: bytes, target: bytes, headers: list[object]) -> None:
    head = broken_head(data)
    assert (head.method, head.target, head.headers) == (method, target, headers)
    assert head.host == (b"h" if headers else None)
    assert head.line == data.split(b"\r\n")[0]
