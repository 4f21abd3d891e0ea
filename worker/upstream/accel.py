"""X-Accel-*: what a response from an upstream server tells the proxy to do, and `proxy_ignore_headers`.

Redirect serves another location's answer instead (as a GET, with the fields that describe the body); Limit-Rate,
Charset and Buffering are about how the answer is sent. Expires is for a cache. See ngx_http_upstream_process_headers.
"""

import enum
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http import phases, special
from headgate.worker.http.limit_rate import set_rate
from headgate.worker.http.uri import split_unsafe

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.upstream import Upstream

FIELDS = (b"x-accel-redirect", b"x-accel-expires", b"x-accel-limit-rate", b"x-accel-buffering", b"x-accel-charset")
REPEATED = frozenset((b"x-accel-buffering", b"x-accel-charset"))  # of several the last counts, elsewhere the first

# what a redirected response keeps (nginx: the fields with the `redirect` mark)
KEPT = frozenset(
    (b"content-type", b"set-cookie", b"content-disposition", b"cache-control", b"expires", b"accept-ranges")
)


class Ignored(enum.Flag):
    """`proxy_ignore_headers`: fields that have no effect here (they are still passed on where nothing hides them)."""

    REDIRECT = enum.auto()
    EXPIRES = enum.auto()
    LIMIT_RATE = enum.auto()
    BUFFERING = enum.auto()
    CHARSET = enum.auto()
    HTTP_EXPIRES = enum.auto()
    CACHE_CONTROL = enum.auto()
    SET_COOKIE = enum.auto()
    VARY = enum.auto()


WORDS = {
    "x-accel-redirect": Ignored.REDIRECT,
    "x-accel-expires": Ignored.EXPIRES,
    "x-accel-limit-rate": Ignored.LIMIT_RATE,
    "x-accel-buffering": Ignored.BUFFERING,
    "x-accel-charset": Ignored.CHARSET,
    "expires": Ignored.HTTP_EXPIRES,
    "cache-control": Ignored.CACHE_CONTROL,
    "set-cookie": Ignored.SET_COOKIE,
    "vary": Ignored.VARY,
}


def apply(u: "Upstream", told: dict[bytes, bytes]) -> bytes | None:
    """Do as the fields say, by lower-case name; where X-Accel-Redirect wants to go is returned."""
    ignored = u.conf.ignore_headers
    rate = told.get(b"x-accel-limit-rate")
    if rate is not None and rate.isdigit() and Ignored.LIMIT_RATE not in ignored:
        set_rate(u.request, int(rate))
    charset = told.get(b"x-accel-charset")
    if charset is not None and Ignored.CHARSET not in ignored:
        u.request.charset = charset
    buffering = told.get(b"x-accel-buffering", b"").lower()
    if buffering in (b"yes", b"no") and Ignored.BUFFERING not in ignored:
        u.buffering = buffering == b"yes"
    return told.get(b"x-accel-redirect") if Ignored.REDIRECT not in ignored else None


def redirect(r: "Request", target: bytes) -> int:
    """Go on with another URI or a named location; the fields in `KEPT` are the response's already."""
    if target.startswith(b"@"):
        return special.to_named(r, target)
    found = split_unsafe(target)
    if found is None:
        r.log(Level.ERROR, f'unsafe URI "{target.decode("utf-8", "surrogateescape")}" was detected')
        return 404
    if r.method != b"HEAD":
        r.method = b"GET"
    return phases.internal_redirect(r, *found)
