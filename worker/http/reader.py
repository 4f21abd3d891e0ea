"""[2] Bytes from a client -> request heads and body pieces (sans-IO).

`RequestReader.feed()` takes bytes; `read_head()` and `read_body()` give an event, None for "need more",
or raise `BadRequest`. Framing is done here, exact to the byte, so that pipelined requests never depend on how
the bytes arrived (RFC 9112 sections 2, 6, 7).

A head as nearly all are is split by `wire`, every other one by httptools.
"""

import re
from typing import Final, Protocol

from headgate.worker.http.chunked import ChunkedError, ChunkedReader
from headgate.worker.http.head import BadRequest, RequestHead, parse_head, understand
from headgate.worker.http.wire import split_request

# the beginning of what can never become a head, such as TLS; waiting for its end would keep the client waiting
_HOPELESS: Final = re.compile(rb"[^A-Z_-]|[^\n]*?(?:[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\r[^\n])")
_SIMPLE_REQUEST: Final = re.compile(rb"GET +(/[^\x00-\x20\x7f]*) *\r?\n")


class Limits(Protocol):
    """client_header_buffer_size in bytes; large_client_header_buffers: how many, bytes each."""

    client_header_buffer_size: int
    large_buffers: tuple[int, int]


class RequestReader:
    """One connection's bytes. Heads and bodies must be read in turn: read_head, then read_body to its end."""

    __slots__ = ("_chunked", "_left", "_scanned", "data", "taken")

    def __init__(self) -> None:
        self.data = b""
        self.taken = 0  # bytes of the current body read so far, as they came
        self._scanned = 0
        self._left = 0
        self._chunked: ChunkedReader | None = None

    def feed(self, data: bytes) -> None:
        self.data = self.data + data if self.data else data

    def read_head(self, limits: Limits) -> RequestHead | None:
        """The next head, or None while it is not complete.

        A line that does not fit a buffer, or more lines than fit all of them, raises 414 (request line) or 494.
        """
        data = self.data
        if not self._scanned:
            usual = split_request(data)
            if usual is not None:
                end, method, target, version, headers = usual
                raw = data if end == len(data) else data[:end]
                if end > limits.client_header_buffer_size:
                    _check_size(raw, limits)
                return self._begin(understand(RequestHead(raw, method, target, version, headers)), end)
        if data and data[0] in b"\r\n":  # empty lines before a request are skipped (RFC 9112 2.2)
            self.data = data = data.lstrip(b"\r\n")
            self._scanned = 0
        # the first empty line ends the head, whichever line ends are used before it
        end = data.find(b"\n\r\n", self._scanned)
        bare = data.find(b"\n\n", self._scanned, end + 1 if end >= 0 else len(data))
        if bare >= 0:
            end = bare + 2
        elif end >= 0:
            end += 3
        else:
            if len(data) > limits.client_header_buffer_size:
                _check_size(data, limits)
            if not self._scanned and _HOPELESS.match(data):
                parse_head(data)
                raise BadRequest(400, "client sent invalid request")
            self._scanned = max(len(data) - 2, 0)
            return None
        self._scanned = 0
        raw = data if end == len(data) else data[:end]
        if end > limits.client_header_buffer_size:
            _check_size(raw, limits)
        return self._begin(parse_head(raw), end)

    def _begin(self, head: RequestHead, end: int) -> RequestHead:
        """The head takes `end` bytes; what follows is its body's, and the next one's."""
        self.data = self.data[end:]
        self.taken = 0
        self._left = head.content_length or 0
        if head.chunked:
            self._chunked = ChunkedReader()
        return head

    def read_simple(self) -> bytes | None:
        """The target of an HTTP/0.9 request (`GET /path`, no version), or None."""
        match = _SIMPLE_REQUEST.match(self.data)
        if match is None:
            return None
        self.data = self.data[match.end() :]
        return match[1]

    @property
    def body_done(self) -> bool:
        """Whether the current request's body has been read to its end."""
        return not self._left and self._chunked is None

    def read_body(self) -> bytes:
        """What has arrived of the body, b"" when nothing new has; `body_done` tells the end."""
        data = self.data
        if self._chunked is not None:
            try:
                out, used = self._chunked.feed(data)
            except ChunkedError as error:
                raise BadRequest(400, f"client sent invalid chunked body: {error}") from None
            self.data = data[used:]
            self.taken += used
            if self._chunked.done:
                self._chunked = None
            return out
        if len(data) <= self._left:
            self._left -= len(data)
            self.taken += len(data)
            self.data = b""
            return data
        out = data[: self._left]
        self.data = data[self._left :]
        self.taken += self._left
        self._left = 0
        return out

    def skip(self, count: int) -> None:
        """So many bytes of a body with a length have gone another way."""
        self._left -= count
        self.taken += count


def _check_size(data: bytes, limits: Limits) -> None:
    """nginx's limits: lines fill a small buffer, then large ones; none is split, and there are only so many."""
    count, size = limits.large_buffers
    room, used = limits.client_header_buffer_size, 0
    for number, line in enumerate(data.split(b"\n")):
        length = len(line) + 1
        if used + length > room:
            if length > size:
                raise BadRequest(494 if number else 414, f"client sent too long {'header line' if number else 'URI'}")
            if not count:
                raise BadRequest(494, "client sent too large request")
            room, used = size, 0
            count -= 1
        used += length
