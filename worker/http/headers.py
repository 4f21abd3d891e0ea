"""`add_header` and `expires`: fields added to responses. nginx: ngx_http_headers_filter_module.

What `add_header` does to Cache-Control and Link is to add a line; Last-Modified and ETag it replaces.
`Line` and `inherit` serve `add_trailer` too.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.slots import enum_of, parse_time
from headgate.conf.template import Template, fsencode
from headgate.worker.http import httpdate, validators
from headgate.worker.http.conf import Location
from headgate.worker.http.output import http_date

if TYPE_CHECKING:
    from headgate.worker.http.llhttp import Header
    from headgate.worker.http.request import Request

CONTEXTS = HSL | Ctx.LOCATION_IF
INHERIT = enum_of({"off": "off", "on": "on", "merge": "merge"})
SAFE = frozenset((200, 201, 204, 206, 301, 302, 303, 304, 307, 308))  # the others only with `always`

C = TypeVar("C", bound=Conf)


@dataclass(slots=True, frozen=True)
class Line:
    """One `add_header` or `add_trailer`."""

    name: bytes
    value: Template
    always: bool


def line(call: Call) -> Line:
    """`NAME VALUE [always]`."""
    name, value, *rest = call.args
    if rest and rest[0] != "always":
        raise call.error_at(f'invalid parameter "{rest[0]}"')
    return Line(fsencode(name), call.template(value), bool(rest))


def inherit(cls: type[C], parent: C | None, own: C | None, merged: C, field: str) -> C:
    """Apply `FIELD_inherit` (off, on, merge) to what the usual merge has made of `field`."""
    mode = getattr(merged, f"{field}_inherit")
    mine: list[Line] = vars(own).get(field, []) if own is not None else []
    above: list[Line] = getattr(parent, field) if parent is not None else []
    if mode == "on" or not above or (mode == "merge" and not mine):
        return merged
    out = cls.__new__(cls)
    vars(out).update(vars(merged))
    setattr(out, field, mine + above if mode == "merge" else mine)
    return out


@dataclass(slots=True, frozen=True)
class Expires:
    """When a response expires. `kind`: "off", "epoch", "max", "daily" (at `seconds` after midnight) or "after".

    "after" counts `seconds` from now, or from Last-Modified when `modified`. A `text` is read for each request.
    """

    kind: str
    seconds: int = 0
    modified: bool = False
    text: Template | None = None


def parse_expires(text: str, modified: bool) -> Expires:
    """`off`, `epoch`, `max`, `[+|-]time`, `@time`; ValueError with nginx's words."""
    if not modified and text in ("off", "epoch", "max"):
        return Expires(text)
    daily = text.startswith("@")
    if daily and modified:
        raise ValueError('daily time cannot be used with "modified" parameter')
    seconds = parse_time(text[1:] if text[:1] in ("@", "+", "-") else text, msec=False)
    if seconds is None:
        raise ValueError("invalid value")
    if daily and seconds > 86400:
        raise ValueError("daily time value must be less than 24 hours")
    return Expires("daily" if daily else "after", int(-seconds if text[0] == "-" else seconds), modified)


def _expires(call: Call) -> Expires:
    modified = len(call.args) == 2
    if modified and call.args[0] != "modified":
        raise call.error("invalid value")
    text = call.template(call.args[-1])
    if text.const is None:
        return Expires("", modified=modified, text=text)
    try:
        return parse_expires(call.args[-1], modified)
    except ValueError as error:
        raise call.error(str(error)) from None


class HeadersConf(Conf, level=Ctx.LOCATION):
    """Fields to add to a location's responses."""

    add_header: list[Line] = directive("add_header", CONTEXTS, "2|3", line, many=True)
    add_header_inherit: str = directive("add_header_inherit", CONTEXTS, "1", INHERIT, default="on")
    expires: Expires = directive("expires", CONTEXTS, "1|2", _expires, default=Expires("off"))

    @classmethod
    def merge(cls: type[C], parent: C | None, own: C | None, noname: bool = False) -> C:
        return inherit(cls, parent, own, super().merge(parent, own, noname), "add_header")

    def attach(self, node: Location) -> None:
        if self.add_header or self.expires.kind != "off":
            node.filters += (headers_filter,)


def headers_filter(r: "Request") -> None:
    """The header filter."""
    if r.parent is not None:
        return
    conf = r.location.get(HeadersConf)
    safe = r.status in SAFE
    if safe and conf.expires.kind != "off":
        _set_expires(r, conf.expires)
    for each in conf.add_header:
        if safe or each.always:
            value = each.value.get(r)
            known = _REPLACED.get(each.name.lower())
            if known is not None:
                known(r, each.name, value)
            elif value:
                r.fields.append((each.name, value))


def _without(fields: "Iterable[Header]", *names: bytes) -> "list[Header]":
    return [field for field in fields if field[0].lower() not in names]


def _set_last_modified(r: "Request", name: bytes, value: bytes) -> None:
    """The value is sent as it is written, and is what later filters compare with when it is a date."""
    r.fields = _without(r.fields, b"last-modified")
    date = httpdate.parse(value)
    r.last_modified = date
    if value and (date is None or http_date(date) != value):
        r.last_modified = None
        r.fields.append((name, value))


def _set_etag(r: "Request", name: bytes, value: bytes) -> None:
    r.fields = _without(r.fields, b"etag")
    r.etag = value or None


_REPLACED = {b"last-modified": _set_last_modified, b"etag": _set_etag}


def _set_expires(r: "Request", conf: Expires) -> None:
    if conf.text is not None:
        try:
            conf = parse_expires(conf.text.get(r).decode("latin-1"), conf.modified)
        except ValueError:
            return
        if conf.kind == "off":
            return
    modified = validators.last_modified(r) if conf.modified else None
    date, control = _expiry(conf, int(time.time()), modified)
    r.fields = [*_without(r.fields, b"expires", b"cache-control"), (b"Expires", date), (b"Cache-Control", control)]


def _expiry(conf: Expires, now: int, last_modified: int | None) -> tuple[bytes, bytes]:
    """The values of Expires and Cache-Control."""
    if conf.kind == "epoch":
        return b"Thu, 01 Jan 1970 00:00:01 GMT", b"no-cache"
    if conf.kind == "max":
        return b"Thu, 31 Dec 2037 23:55:55 GMT", b"max-age=315360000"  # ten years
    if conf.kind == "daily":
        at = _next_time(now, conf.seconds)
    elif not conf.seconds:
        return http_date(now), b"max-age=0"
    elif conf.modified and last_modified is not None:
        at = last_modified + conf.seconds
    else:
        at = now + conf.seconds
    age = at - now
    return http_date(at), b"no-cache" if conf.seconds < 0 or age < 0 else b"max-age=%d" % age


def _next_time(now: int, seconds: int) -> int:
    """The next time the local clock is `seconds` after midnight."""
    today = time.localtime(now)
    clock = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    at = time.mktime((*today[:3], *clock, 0, 0, today.tm_isdst))
    if at <= now:
        at = time.mktime((today.tm_year, today.tm_mon, today.tm_mday + 1, *clock, 0, 0, today.tm_isdst))
    return int(at)
