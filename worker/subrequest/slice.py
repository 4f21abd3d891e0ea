"""`slice`: a large response fetched in parts of a size, each with a request of its own (nginx: slice filter).

The location asks its upstream server for `$slice_range`. The first part's answer becomes the head of the whole; each
further part is a subrequest that enters the same location once the part before it is complete, so that every part can
be had from a cache. What of the parts lies outside the range that the client wants is cut off.
"""

import re
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.conf.template import Variable
from headgate.masterd.logfile import Level
from headgate.worker.http import validators
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.request import OWN_RANGE, Interrupted
from headgate.worker.subrequest.subrequest import SubrequestError, subrequest

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_CONTENT_RANGE = re.compile(rb"bytes *(\d{1,18}) *- *(\d{1,18}) */ *(?:(\d{1,18})|\*) *")
_START = re.compile(rb"bytes= *(\d*)[^,]*", re.IGNORECASE)
_LARGEST = 2**63 - 1  # an off_t; what is larger is read as no number


class SliceConf(Conf, level=Ctx.LOCATION):
    """The size of a part in bytes; 0: responses are not sliced."""

    size: int = directive("slice", HSL, "1", slots.size, default=0)

    def attach(self, node: Location) -> None:
        if self.size:
            node.filters += (slice_filter,)


class Slices:
    """The parts of one response; the requests for them share it. `start` is where the next one begins, `range` what the
    last one was asked for."""

    __slots__ = ("active", "end", "etag", "first", "range", "size", "start")

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        self.size = size
        self.first = 0  # of the whole, what the client wants: first <= byte < end
        self.end = 0
        self.etag: bytes | None = None
        self.active = False  # the part that is being fetched has turned out to be one
        self.range = b""
        self.ask()

    def ask(self) -> None:
        """The part that begins at `start` is to be fetched."""
        self.range = b"bytes=%d-%d" % (self.start, self.start + self.size - 1)


def slice_filter(r: "Request") -> None:
    """The header filter; it comes before all others."""
    slices = r.kept(Slices)
    if slices is None:
        return
    if r.status != 206:
        if r.parent is None:
            r.drop(Slices)
            return
        raise _failed(r, f"unexpected status code {r.status} in slice response")
    etag = validators.etag(r)
    if slices.etag is not None and etag != slices.etag:
        raise _failed(r, "etag mismatch in slice response")
    slices.etag = etag
    start, whole = _check(r, slices)
    slices.start = min(start + slices.size, whole)
    slices.active = True
    r.status = 200
    r.status_line = None
    r.content_length = whole
    validators.drop(r, b"content-range", b"accept-ranges")
    if r.parent is None:
        slices.end = whole
        r.allow_ranges = OWN_RANGE
        r.postpone = r.location.core.postpone_output
    r.add_body_filter(_Part(r, slices, start))


def _failed(r: "Request", text: str) -> Interrupted:
    r.log(Level.ERROR, text)
    return Interrupted(500)


def _check(r: "Request", slices: Slices) -> tuple[int, int]:
    """Where the part begins and how long the whole is. Raises Interrupted when it is not the part asked for."""
    value = next((value for name, value in r.fields if name.lower() == b"content-range"), b"")
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        raise _failed(r, "invalid range in slice response")
    if match[3] is None:
        raise _failed(r, "no complete length in slice response")
    start, end, whole = int(match[1]), int(match[2]) + 1, int(match[3])
    wanted = min(start + slices.size, whole)
    if start != slices.start or end != wanted:
        expected = f"{slices.start}-{wanted}"
        raise _failed(r, f"unexpected range in slice response: {start}-{end}, expected: {expected}")
    return start, whole


class _Part(BodyFilter):
    """One part's body: what the client does not want is left out; the main request's end is that of the last part."""

    __slots__ = ("at", "begun", "slices")

    def __init__(self, r: "Request", slices: Slices, start: int) -> None:
        super().__init__(r)
        self.slices = slices
        self.at = start
        self.begun = False

    def __call__(self, data: bytes, last: bool) -> None:
        slices = self.slices
        if not self.begun:
            self.begun = True
            if self.request.parent is None:
                self._wanted()
        at, self.at = self.at, self.at + len(data)
        data = data[max(slices.first - at, 0) : max(slices.end - at, 0)]
        if self.request.parent is not None:
            self.push(data, last)
            return
        if data:
            self.push(data, False)
        if last:
            self._next()

    def _wanted(self) -> None:
        """What the client has asked for, once the head is made."""
        slices, ranges = self.slices, self.request.ranges
        if ranges is None:
            return
        _, slices.first, slices.end = ranges.parts[0]
        if slices.start + slices.size <= slices.first:
            slices.start = slices.size * (slices.first // slices.size)

    def _next(self) -> None:
        r = self.request
        slices = self.slices
        if slices.start >= slices.end:
            r.drop(Slices)
            self.push(b"", True)
            return
        try:
            sr = subrequest(r, r.uri, r.args, clone=True, done=self._done)
        except SubrequestError:
            r.conn.abort()
            return
        slices.active = False
        slices.ask()
        sr.keep(slices)

    def _done(self, sr: "Request", rc: int) -> int:
        if rc:
            return rc
        if not self.slices.active:
            self.request.log(Level.ERROR, "missing slice response")
            return 500
        self._next()
        return 0


# -- $slice_range --------------------------------------------------------------------------------


def _slice_range(r: "Request") -> bytes | None:
    slices = r.kept(Slices)
    if slices is None:
        size = r.location.get(SliceConf).size
        if r.parent is not None or r.status or not size:
            return None
        slices = r.keep(Slices(_wanted_start(r) // size * size, size))
    return slices.range


def _wanted_start(r: "Request") -> int:
    """Where the range that the client asks for begins, if it is one that can be known now."""
    value = r.header(b"range")
    if value is None or r.header(b"if-range") is not None:
        return 0
    match = _START.fullmatch(value)
    start = int(match[1][:20] or 0) if match is not None else 0
    return start if start <= _LARGEST else 0


VARIABLES = [Variable("slice_range", _slice_range)]
