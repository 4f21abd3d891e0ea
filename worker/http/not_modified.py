"""Conditional requests (RFC 9110 section 13, as nginx answers them): 304 and 412.

The header filter looks at 200 responses of the main request. Answers that an upstream server has given are
left alone (`disable_not_modified`): it has seen the conditions itself.
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.worker.http import httpdate
from headgate.worker.http.conf import Location
from headgate.worker.http.request import NO_RANGES, Replaced

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_MODES = {"off": "off", "exact": "exact", "before": "before"}


class NotModifiedConf(Conf, level=Ctx.LOCATION):
    """How If-Modified-Since is compared: not at all, for equality, or as "not later"."""

    since: str = directive("if_modified_since", HSL, "1", slots.enum_of(_MODES), default="exact")

    def attach(self, node: Location) -> None:
        node.filters += (not_modified_filter,)


def not_modified_filter(r: "Request") -> None:
    """The header filter."""
    if r.status != 200 or r.disable_not_modified or r.parent is not None:
        return
    conditions: dict[bytes, bytes] | None = None
    for name, value in r.headers:  # one pass for all, and for most requests there is nothing more to do
        if name[2:3] == b"-" and name[:2].lower() == b"if":
            if conditions is None:
                conditions = {}
            conditions.setdefault(name.lower(), value)
    if conditions is not None:
        _test(r, conditions)


def _test(r: "Request", conditions: dict[bytes, bytes]) -> None:
    unmodified, match = conditions.get(b"if-unmodified-since"), conditions.get(b"if-match")
    if unmodified is not None and not _unmodified(r, unmodified):
        raise Replaced(412)
    if match is not None and not matches(match, r.etag, weak=False):
        raise Replaced(412)
    modified, none_match = conditions.get(b"if-modified-since"), conditions.get(b"if-none-match")
    if modified is None and none_match is None:
        return
    if modified is not None and _modified(r, modified):
        return
    if none_match is not None and not matches(none_match, r.etag, weak=True):
        return
    r.status = 304
    r.status_line = None
    r.content_type = None
    r.content_length = None
    r.allow_ranges = NO_RANGES
    r.fields = [field for field in r.fields if field[0].lower() != b"content-encoding"]


def _unmodified(r: "Request", value: bytes) -> bool:
    since = httpdate.parse(value)
    return since is not None and r.last_modified is not None and since >= r.last_modified


def _modified(r: "Request", value: bytes) -> bool:
    mode = r.location.get(NotModifiedConf).since
    if r.last_modified is None or mode == "off":
        return True
    since = httpdate.parse(value)
    if since == r.last_modified:
        return False
    return mode == "exact" or since is None or since < r.last_modified


def matches(value: bytes, etag: bytes | None, weak: bool) -> bool:
    """Whether a list of entity tags (or `*`) holds `etag`; `weak` leaves the W/ prefixes out of account."""
    if value == b"*":
        return True
    if etag is None:
        return False
    if weak:
        etag = etag.removeprefix(b"W/")
    for entry in value.split(b","):
        tag = entry.strip(b" \t")
        if (tag.removeprefix(b"W/") if weak else tag) == etag:
            return True
    return False
