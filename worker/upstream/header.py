"""[11a] The response head from an upstream server: what is understood, what is copied, what is hidden.

One table gives the known fields their handlers; all others are copied. Which fields a location hides is
learned by spelling, so that the usual field costs one dict look-up.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.worker.http.output import REASONS
from headgate.worker.http.reader import Header

if TYPE_CHECKING:
    from headgate.worker.upstream.conf import UpstreamConf
    from headgate.worker.upstream.upstream import Upstream


class ResponseHead:
    """A head as received. `reason` is the status line's rest, `200 OK`; `length` None: no Content-Length."""

    __slots__ = ("chunked", "close", "fields", "length", "reason", "status", "version")

    def __init__(self, status: int, reason: bytes, version: int, fields: list[Header]) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        self.fields = fields
        self.length: int | None = None
        self.chunked = False
        self.close = False

    def get(self, name: bytes) -> bytes | None:
        """A field's value by its lower-case name; the first of several."""
        for key, value in self.fields:
            if key.lower() == name:
                return value
        return None


# (upstream, name as spelled, value): put into the response what should be there
Copy = Callable[["Upstream", bytes, bytes], None]


def _ignore(u: "Upstream", name: bytes, value: bytes) -> None:
    """Not passed on: it is ours to say."""


def _content_type(u: "Upstream", name: bytes, value: bytes) -> None:
    u.request.content_type = value


def _redirect(u: "Upstream", name: bytes, value: bytes) -> None:
    u.request.fields.append((name, u.protocol.rewrite_redirect(u, value)))


def _cookie(u: "Upstream", name: bytes, value: bytes) -> None:
    u.request.fields.append((name, u.protocol.rewrite_cookie(u, value)))


HANDLERS: dict[bytes, Copy] = {
    b"content-type": _content_type,
    b"content-length": _ignore,
    b"connection": _ignore,
    b"keep-alive": _ignore,
    b"transfer-encoding": _ignore,
    b"location": _redirect,
    b"refresh": _redirect,
    b"set-cookie": _cookie,
}


class FieldTable:
    """A location's decision for each field name, by spelling."""

    __slots__ = ("_by_name", "_hidden")

    def __init__(self, conf: "UpstreamConf") -> None:
        self._hidden = conf.hidden
        self._by_name: dict[bytes, Copy | None] = {}

    def copy(self, u: "Upstream", fields: list[Header]) -> None:
        """Put the fields into u.request.fields, or where their handlers want them."""
        known = self._by_name
        out = u.request.fields
        for field in fields:
            name = field[0]
            try:
                handler = known[name]
            except KeyError:
                handler = self._learn(name)
            if handler is None:
                out.append(field)
            else:
                handler(u, name, field[1])

    def _learn(self, name: bytes) -> Copy | None:
        low = name.lower()
        handler = _ignore if low in self._hidden else HANDLERS.get(low)
        if len(self._by_name) < 1024:
            self._by_name[name] = handler
        return handler


def process(u: "Upstream") -> int | None:
    """Make the request's response from u.head. A redirect code or status when it is not to be sent; else None."""
    head = u.head
    assert head is not None
    r = u.request
    r.status = head.status
    if REASONS.get(head.status, "").encode() != head.reason[4:]:
        r.status_line = head.reason
    r.content_length = head.length if not head.chunked else None
    u.conf.table.copy(u, head.fields)
    return None
