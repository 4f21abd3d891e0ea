"""Range requests (RFC 9110 section 14, as nginx answers them): 206 with one part or several, 416, If-Range.

The header filter acts on a 200 response whose `allow_ranges` says that parts of it may be sent. A file's
sender takes the parts from `r.ranges`; with ONE_RANGE the part is cut out of the body as it passes.
"""

import random
import re
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.worker.http import httpdate, validators
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.head import HTTP_10
from headgate.worker.http.request import ANY_RANGES, ONE_RANGE, Replaced
from headgate.worker.http.sendfile import Piece

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

UNLIMITED = (1 << 31) - 1
_MAX = (1 << 63) - 1
_SPEC = re.compile(rb" *(?:([0-9]+) *- *([0-9]*)|-([0-9]+)) *(,|\Z)")
_boundaries = count(random.getrandbits(48))


class RangesConf(Conf, level=Ctx.LOCATION):
    """How many ranges of one response a client may ask for; 0: none, and they are not offered."""

    max_ranges: int = directive("max_ranges", HSL, "1", slots.number, default=UNLIMITED)

    def attach(self, node: Location) -> None:
        if self.max_ranges:
            node.filters += (ranges_filter,)


class NotSatisfiable(Exception):
    """416: the field cannot be read, or nothing of it lies in the body."""


@dataclass(slots=True)
class Ranges:
    """The parts of a body to send: (what stands before it, start, end), and what stands behind the last."""

    parts: list[tuple[bytes, int, int]]
    tail: bytes = b""

    def pieces(self) -> list[Piece]:
        """As `sendfile.send_file` wants it."""
        out: list[Piece] = []
        for before, start, end in self.parts:
            if before:
                out.append(before)
            out.append((start, end - start))
        if self.tail:
            out.append(self.tail)
        return out


def parse(value: bytes, length: int, limit: int) -> list[tuple[int, int]] | None:
    """`0-9,-5` -> (start, end) pairs within a body of `length` bytes; None: answer with the whole.

    Raises NotSatisfiable. More than `limit` ranges, or more bytes than the whole, give the whole.
    """
    out: list[tuple[int, int]] = []
    at, more = 0, True
    while more:
        match = _SPEC.match(value, at)
        if match is None:
            raise NotSatisfiable
        at, more = match.end(), match[4] == b","
        if match[3] is not None:
            number = int(match[3])
            start, end = max(length - number, 0), length
        else:
            start = int(match[1])
            end = min(int(match[2]) + 1, length) if match[2] else length
            number = max(start, int(match[2] or 0))
        if number > _MAX:
            raise NotSatisfiable
        if start < end:
            if len(out) == limit:
                return None
            out.append((start, end))
        elif start == 0:
            return None
    if not out:
        raise NotSatisfiable
    if len(out) > 1:
        total = sum(end - start for start, end in out)
        # without a limit of its own, many small parts must not cost more than the whole
        allowed = length + 4096 - 256 * len(out) if limit == UNLIMITED else length
        if total > min(length, allowed):
            return None
    return out


def ranges_filter(r: "Request") -> None:
    """The header filter."""
    if not r.allow_ranges or r.status != 200:
        return
    length = r.content_length
    if length is None or r.version < HTTP_10 or r.parent is not None:
        return
    value = r.header(b"range")
    if value is None or len(value) < 7 or value[:6].lower() != b"bytes=" or not _if_range(r):
        r.fields.append((b"Accept-Ranges", b"bytes"))
        return
    limit = 1 if r.allow_ranges != ANY_RANGES else r.location.get(RangesConf).max_ranges
    try:
        found = parse(value[6:], length, limit)
    except NotSatisfiable:
        _drop_content_range(r)
        r.fields.append((b"Content-Range", b"bytes */%d" % length))
        raise Replaced(416) from None
    if found is None:
        r.fields.append((b"Accept-Ranges", b"bytes"))
        return
    r.status = 206
    r.status_line = None
    _drop_content_range(r)
    if len(found) > 1:
        _multipart(r, found, length)
        return
    start, end = found[0]
    r.fields.append((b"Content-Range", b"bytes %d-%d/%d" % (start, end - 1, length)))
    r.content_length = end - start
    r.ranges = Ranges([(b"", start, end)])
    if r.allow_ranges == ONE_RANGE:
        r.add_body_filter(_Cut(r, start, end), first=True)


def _if_range(r: "Request") -> bool:
    """Whether If-Range, if there is one, names what we have."""
    value = r.header(b"if-range")
    if value is None:
        return True
    if len(value) >= 2 and value.endswith(b'"'):
        return value == validators.etag(r)
    modified = validators.last_modified(r)
    return modified is not None and httpdate.parse(value) == modified


def _drop_content_range(r: "Request") -> None:
    r.fields = [field for field in r.fields if field[0].lower() != b"content-range"]


def _multipart(r: "Request", found: list[tuple[int, int]], length: int) -> None:
    boundary = b"%020d" % next(_boundaries)
    before = b"\r\n--%b\r\n" % boundary
    if r.content_type:
        before += b"Content-Type: %b\r\n" % r.content_type
    parts = [
        (b"%bContent-Range: bytes %d-%d/%d\r\n\r\n" % (before, start, end - 1, length), start, end)
        for start, end in found
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    r.ranges = Ranges(parts, tail)
    r.content_type = b"multipart/byteranges; boundary=" + boundary
    r.content_length = sum(len(head) + end - start for head, start, end in parts) + len(tail)


class _Cut(BodyFilter):
    """The body filter for ONE_RANGE: it comes before all others."""

    __slots__ = ("at", "end", "start")

    def __init__(self, r: "Request", start: int, end: int) -> None:
        super().__init__(r)
        self.start = start
        self.end = end
        self.at = 0

    def __call__(self, data: bytes, last: bool) -> None:
        at, self.at = self.at, self.at + len(data)
        self.push(data[max(self.start - at, 0) : max(self.end - at, 0)], last)
