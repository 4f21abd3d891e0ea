"""Response heads: whatever the pieces they come in, the same head; a wrong start is refused at once."""

from __future__ import annotations

import pytest
from headgate.worker.proxy.reader import read_head
from headgate.worker.upstream.header import HeadError, ResponseHead

OK = b"HTTP/1.1 200 OK\r\n"


def fed(wire: bytes, step: int) -> tuple[ResponseHead, int] | None:
    """What a reader that is asked after every `step` bytes says first."""
    for end in range(step, len(wire) + step, step):
        found = read_head(wire[:end])
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("behind", [b"", b"hello", b"\r\n\r\n", b"\n\nx\r\n\r\n", OK + b"\r\n"])
@pytest.mark.parametrize(
    ("wire", "status", "reason", "fields"),
    [
        (OK + b"\r\n", 200, b"200 OK", []),
        (b"HTTP/1.1 200\r\n\r\n", 200, b"200", []),
        (b"HTTP/1.1 200 \r\n\r\n", 200, b"200 ", []),
        (b"HTTP/1.0 404 Not Here\r\nA: b\r\n\r\n", 404, b"404 Not Here", [(b"A", b"b")]),
        (b"HTTP/1.9 299 Own \xc3\xa4\r\n\r\n", 299, "299 Own \u00e4".encode(), []),
        (b"HTTP/1.1 200 OK\nA: b\nC: d\n\n", 200, b"200 OK", [(b"A", b"b"), (b"C", b"d")]),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", 200, b"200 OK", [(b"A", b"b")]),
        (b"HTTP/1.1 200 OK\nA: b\r\n\n", 200, b"200 OK", [(b"A", b"b")]),
        (OK + b"A:b\r\nC:  d e \t\r\nE:\r\n\r\n", 200, b"200 OK", [(b"A", b"b"), (b"C", b"d e"), (b"E", b"")]),
        (OK + b"X_y: \xff\tz\r\nx!: :\r\n\r\n", 200, b"200 OK", [(b"X_y", b"\xff\tz"), (b"x!", b":")]),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            101,
            b"101 Switching",
            [(b"Upgrade", b"x"), (b"Connection", b"upgrade")],
        ),
    ],
)
def test_heads(wire: bytes, status: int, reason: bytes, fields: list[tuple[bytes, bytes]], behind: bytes) -> None:
    for step in (len(wire + behind), len(wire), 1, 3):
        found = fed(wire + behind, step)
        assert found is not None
        head, taken = found
        assert (head.status, head.reason, head.fields, taken) == (status, reason, fields, len(wire))


def test_not_yet() -> None:
    wire = OK + b"Content-Length: 5\r\nX-A: b\r\n\r\n"
    assert [end for end in range(len(wire)) if read_head(wire[:end]) is not None] == []


@pytest.mark.parametrize(
    "wire", [b"X", b"HTTX", b"http", b"\r", b"HTTP/2", b"HTTP/1.1 20\r\n", b"HTTP/1.1 2000 x\n", b"\x00"]
)
def test_no_status_line_is_known_at_once(wire: bytes) -> None:
    with pytest.raises(HeadError, match=r"no valid HTTP/1\.0 header"):
        read_head(wire)


@pytest.mark.parametrize(
    ("fields", "length", "chunked", "close"),
    [
        (b"", None, False, False),
        (b"Content-Length: 5\r\n", 5, False, False),
        (b"content-LENGTH: 005\r\n", 5, False, False),
        (b"Content-Length: 999999999999999999\r\n", 999999999999999999, False, False),
        (b"Transfer-Encoding: Chunked\r\n", None, True, False),
        (b"Connection: close\r\n", None, False, True),
        (b"Connection: X, Close\r\nConnection: y\r\n", None, False, True),
        (b"Connection: keep-alive\r\n", None, False, False),
    ],
)
def test_framing(fields: bytes, length: int | None, chunked: bool, close: bool) -> None:
    found = read_head(OK + fields + b"\r\n")
    assert found is not None
    head = found[0]
    assert (head.length, head.chunked, head.close) == (length, chunked, close)


def test_a_1_0_server_closes() -> None:
    found = read_head(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n")
    assert found is not None and found[0].close


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (b"X A: b\r\n", r'upstream sent invalid header: "X\\x20..."'),
        (b"Good: x\r\n: b\r\n", r'upstream sent invalid header: "\\x3a..."'),
        (b"X-A: b\x00c\r\n", r'upstream sent invalid header: "X-A: b\\x00..."'),
        (b"foo\r\n", r'upstream sent invalid header: "foo\\x0d..."'),
        (b"X-A: b\r\n c\r\n", r'upstream sent invalid header: "\\x20..."'),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n",
         r'duplicate header line: "Content-Length: 6", previous value: "Content-Length: 5"'),
        (b"Content-Length: x\r\n", r'upstream sent invalid "Content-Length" header: "Content-Length: x"'),
        (b"Transfer-Encoding: a\x80\r\n", 'upstream sent unknown "Transfer-Encoding": "a\x80"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: bytes, text: str) -> None:
    with pytest.raises(HeadError, match=text.replace("...", r"\.\.\.")):
        read_head(OK + fields + b"\r\n")


def test_repeated_fields() -> None:
    """Of some the first is kept and the log told; others may be repeated."""
    wire = OK + b"Date: 1\r\nX-A: 1\r\ndate: 2\r\nX-A: 2\r\nSet-Cookie: 1\r\nSet-Cookie: 2\r\nDATE: 3\r\n\r\n"
    found = read_head(wire)
    assert found is not None
    head = found[0]
    assert [value for name, value in head.fields if name.lower() == b"date"] == [b"1"]
    assert len(head.fields) == 5
    assert head.dropped == [
        'upstream sent duplicate header line: "date: 2", previous value: "Date: 1", ignored',
        'upstream sent duplicate header line: "DATE: 3", previous value: "Date: 1", ignored',
    ]


def test_accel_fields() -> None:
    wire = OK + b"X-Accel-Charset: a\r\nX-Accel-Charset: b\r\nX-Accel-Expires: 1\r\nx-accel-expires: 2\r\n\r\n"
    found = read_head(wire)
    assert found is not None
    assert found[0].accel == {b"x-accel-charset": b"b", b"x-accel-expires": b"1"}
    assert len(found[0].dropped or ()) == 1
