"""The chunked coding: decoded however it arrives, and nothing lenient."""

import pytest
from headgate.worker.http.chunked import MAX_LINE, ChunkedError, ChunkedReader, chunk, last_chunk

from tests.sansio import ways, ways_with


def read(pieces: list[bytes]) -> tuple[bytes, ChunkedReader, bytes]:
    """Body, reader and what is left over."""
    reader = ChunkedReader()
    body, held = b"", b""
    for piece in pieces:
        held += piece
        data, used = reader.feed(held)
        body += data
        held = held[used:]
    return body, reader, held


BODIES = [
    (b"0\r\n\r\n", b"", []),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (b"1\r\na\r\nA\r\n0123456789\r\n000\r\n\r\n", b"a0123456789", []),
    (b'3;ext=1;q="x y"\r\nabc\r\n0;last\r\n\r\n', b"abc", []),
    (b"2 \t\r\n\r\n\r\n0\r\n\r\n", b"\r\n", []),
    (b"0\r\nA: 1\r\nb-c:\t2 3 \r\nEmpty:\r\n\r\n", b"", [(b"A", b"1"), (b"b-c", b"2 3"), (b"Empty", b"")]),
]


@pytest.mark.parametrize("data, body, trailers", BODIES)
def test_body(data: bytes, body: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    for pieces in ways(data):
        got, reader, rest = read(pieces)
        assert (got, reader.done, reader.trailers, rest) == (body, True, trailers, b"")


@pytest.mark.parametrize("data, body, trailers", BODIES)
def test_what_follows_is_left_alone(data: bytes, body: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    for pieces in ways_with(data, b"GET / HTTP/1.1\r\n\r\n"):
        got, reader, rest = read(pieces)
        assert (got, reader.done, reader.trailers, rest) == (body, True, trailers, b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n", b"\r\n", b" 3\r\nabc", b"+3\r\nabc", b"-1\r\n", b"0x3\r\nabc", b"3_\r\nabc", b"3 3\r\nabc",
        b"3\nabc\r\n", b"3\r\nabc\n", b"3\r\nabcd\r\n", b"3\r\nabc\rx", b"3;\x00\r\nabc", b"3;a\rb\r\nabc",
        b"ffffffffffffffff\r\n", b"0\r\nbad name: x\r\n\r\n", b"0\r\nA : x\r\n\r\n", b"0\r\n folded\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: b\rc\r\n\r\n", b"0\r\nA: b\n\r\n", b"0\r\n:\r\n\r\n", b"0\r\nx\r\n\r\n",
        b"\xd9\xa1\r\na",
    ],
)  # fmt: skip
def test_refused(data: bytes) -> None:
    for pieces in ways(data):
        with pytest.raises(ChunkedError):
            read(pieces)


def test_line_without_end() -> None:
    with pytest.raises(ChunkedError, match="too long line"):
        ChunkedReader().feed(b"1;" + b"x" * MAX_LINE)


def test_too_many_trailers() -> None:
    reader = ChunkedReader(trailer_limit=20)
    with pytest.raises(ChunkedError, match="too large trailers"):
        reader.feed(b"0\r\nA: 1234567\r\nB: 1234567\r\n\r\n")


def test_not_done_before_the_end() -> None:
    for data in (b"", b"3", b"3\r\n", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n", b"0\r\nA: b\r\n"):
        assert not read([data])[1].done


def test_written_is_read() -> None:
    trailers = [(b"A", b"1"), (b"B", b"2")]
    body, reader, rest = read([chunk(b"x" * 300) + chunk(b"y") + last_chunk(trailers)])
    assert (body, reader.trailers, rest) == (b"x" * 300 + b"y", trailers, b"")
    assert read([last_chunk()])[1].done
