"""The chunked transfer coding, both ways (RFC 9112 section 7.1; sans-IO).

Used for request bodies and for responses of upstream servers. Strict where leniency has been used for
smuggling: sizes are plain hexadecimal, every line ends with CR LF, the data is followed by CR LF.
"""

import re

MAX_LINE = 4096  # a chunk-size line with its extensions, or one trailer field line

_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r\n")


class ChunkedError(ValueError):
    """The bytes are not a chunked body; the text says what is wrong."""


class ChunkedReader:
    """Decodes one chunked body. `done` is set at its end; `trailers` holds its trailer fields."""

    __slots__ = ("_left", "_state", "done", "limit", "trailers")

    SIZE, DATA, DATA_END, TRAILERS = range(4)

    def __init__(self, trailer_limit: int = 32768) -> None:
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self.limit = trailer_limit  # bytes of trailer fields in all
        self._state = self.SIZE
        self._left = 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Decode what is there: (body bytes, how many of `data` were used).

        What is not used must be fed again with more behind it; bytes after the end are never used.
        """
        out: list[bytes] = []
        at, size = 0, len(data)
        while not self.done and at < size:
            state = self._state
            if state == self.DATA:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._state = self.DATA_END
            elif state == self.DATA_END:
                if size - at < 2:
                    if data[at : at + 1] != b"\r":
                        raise ChunkedError("no CRLF after chunk data")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise ChunkedError("no CRLF after chunk data")
                at += 2
                self._state = self.SIZE
            else:
                end = data.find(b"\n", at)
                if end < 0:
                    if size - at > MAX_LINE:
                        raise ChunkedError("too long line")
                    break
                self._line(data, at, end + 1)
                at = end + 1
        return (out[0] if len(out) == 1 else b"".join(out)), at

    def _line(self, data: bytes, at: int, end: int) -> None:
        if self._state == self.SIZE:
            match = _SIZE_LINE.fullmatch(data, at, end)
            if match is None:
                raise ChunkedError("invalid chunk size")
            self._left = int(match[1], 16)
            self._state = self.DATA if self._left else self.TRAILERS
            return
        self.limit -= end - at
        if data[at:end] == b"\r\n":
            self.done = True
            return
        match = _TRAILER.fullmatch(data, at, end)
        if match is None or self.limit < 0:
            raise ChunkedError("invalid trailer field" if self.limit >= 0 else "too large trailers")
        self.trailers.append((match[1], match[2]))


def chunk(data: bytes) -> bytes:
    """One chunk; `data` must not be empty (an empty chunk would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def last_chunk(trailers: list[tuple[bytes, bytes]] | None = None) -> bytes:
    """The end of a chunked body, with trailer fields."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % t for t in trailers) + b"\r\n"
