"""[11a] The response head from an upstream server: what is understood, what is copied, what is hidden.

Two tables, as nginx's ngx_http_upstream_headers_in. `understand` looks at a head as it comes: what frames the
body or may stand only once is checked, whatever protocol it came by. `FieldTable` makes the client's response
of it: known fields go to their handlers, all others are copied, those that the location hides are left out.
Names are learned by spelling, so that the usual field costs one dict look-up.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headgate.worker.http.head import HTTP_11
from headgate.worker.http.llhttp import Header
from headgate.worker.http.output import REASONS
from headgate.worker.http.request import ONE_RANGE
from headgate.worker.http.special import absolute
from headgate.worker.http.wire import decimal
from headgate.worker.upstream import accel
from headgate.worker.upstream.intercept import intercept

if TYPE_CHECKING:
    from headgate.worker.upstream.conf import UpstreamConf
    from headgate.worker.upstream.upstream import Upstream


class HeadError(Exception):
    """The head is invalid; the text is for the error log."""


class ResponseHead:
    """A head as received. `reason` is the status line's rest, `200 OK`; `length` None: no Content-Length.

    `accel` holds the X-Accel-* fields by lower-case name; `dropped` what the log should say of fields that were
    repeated and are left out; `trailers` what came behind the body, once it is complete.
    """

    __slots__ = (
        "accel", "chunked", "close", "dropped", "fields", "length", "reason", "status", "trailers", "upgrade",
        "version",
    )  # fmt: skip

    def __init__(self, status: int, reason: bytes, version: int, fields: list[Header]) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        self.fields = fields
        self.length: int | None = None
        self.chunked = False
        self.close = version < HTTP_11  # as nginx: a HTTP/1.0 server's connection is used once
        self.upgrade: bytes | None = None
        self.accel: dict[bytes, bytes] | None = None
        self.dropped: list[str] | None = None
        self.trailers: list[Header] | None = None

    def get(self, name: bytes) -> bytes | None:
        """A field's value by its lower-case name; the first of several."""
        for key, value in self.fields:
            if key.lower() == name:
                return value
        return None


# -- understanding -------------------------------------------------------------------------------

Check = Callable[[ResponseHead, bytes, bytes], None]


def text(field: Header) -> str:
    """`Name: value`, for the error log."""
    return b": ".join(field).decode("latin-1")


def _content_length(head: ResponseHead, name: bytes, value: bytes) -> None:
    if head.length is not None:
        before = text((name, b"%d" % head.length))
        raise HeadError(f'upstream sent duplicate header line: "{text((name, value))}", previous value: "{before}"')
    if head.chunked:
        raise HeadError('upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time')
    length = decimal(value)
    if length < 0:
        raise HeadError(f'upstream sent invalid "Content-Length" header: "{text((name, value))}"')
    head.length = length


def _transfer_encoding(head: ResponseHead, name: bytes, value: bytes) -> None:
    if head.chunked:
        line = text((name, value))
        raise HeadError(f'upstream sent duplicate header line: "{line}", previous value: "{text((name, b"chunked"))}"')
    if head.length is not None:
        raise HeadError('upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time')
    if value.lower() != b"chunked":
        raise HeadError(f'upstream sent unknown "Transfer-Encoding": "{value.decode("latin-1")}"')
    head.chunked = True


def _connection(head: ResponseHead, name: bytes, value: bytes) -> None:
    low = value.lower()
    if low != b"keep-alive" and b"close" in low:  # `in` takes long to say no
        head.close = True


def _upgrade(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.upgrade = value


def _accel(head: ResponseHead, name: bytes, value: bytes) -> None:
    low = name.lower()
    if head.accel is None:
        head.accel = {low: value}
    elif low in accel.REPEATED or low not in head.accel:
        head.accel[low] = value


# What a name means is learned by the server's spelling, as a number: 0 nothing, a negative one which check, a positive
# one the bit of a field that may stand once (of several the first counts, the others are left out).
_CHECKS: dict[bytes, tuple[int, Check]] = {
    b"content-length": (-1, _content_length),
    b"transfer-encoding": (-2, _transfer_encoding),
    b"connection": (-3, _connection),
    b"upgrade": (-4, _upgrade),
    **dict.fromkeys(accel.FIELDS, (-5, _accel)),
}
_SINGLE = (b"status", b"content-type", b"date", b"last-modified", b"etag", b"server", b"location", b"refresh",
           b"expires")  # fmt: skip
_MEANING: Final = {name: 1 << i for i, name in enumerate(_SINGLE)} | {name: code for name, (code, _) in _CHECKS.items()}
_BY_CODE: Final = dict(_CHECKS.values())
_DROPPED: Final = frozenset((*_SINGLE, *accel.FIELDS)) - accel.REPEATED
_UNKNOWN: Final = -6

_known: Final[dict[bytes, int]] = {}


def understand(head: ResponseHead) -> None:
    """Check the fields and note what frames the body. Raises HeadError."""
    known = _known
    seen = 0
    repeated = False
    for name, value in head.fields:
        meaning = known.get(name, _UNKNOWN)
        if meaning == _UNKNOWN:
            meaning = _learn(name)
        if meaning > 0:
            if seen & meaning:
                repeated = True
            seen |= meaning
        elif meaning < 0:
            _BY_CODE[meaning](head, name, value)
    if repeated or head.accel is not None:
        _drop_repeated(head)


def _learn(name: bytes) -> int:
    meaning = _MEANING.get(name.lower(), 0)
    if len(_known) < 1024 and len(name) < 64:
        _known[name] = meaning
    return meaning


def _drop_repeated(head: ResponseHead) -> None:
    first: dict[bytes, Header] = {}
    kept = []
    for field in head.fields:
        low = field[0].lower()
        if low not in _DROPPED or low not in first:
            first[low] = field
            kept.append(field)
            continue
        if head.dropped is None:
            head.dropped = []
        head.dropped.append(
            f'upstream sent duplicate header line: "{text(field)}", previous value: "{text(first[low])}", ignored'
        )
    head.fields = kept


# -- copying -------------------------------------------------------------------------------------

# (upstream, name as spelled, value): put into the response what should be there
Copy = Callable[["Upstream", bytes, bytes], None]


def _ignore(u: "Upstream", name: bytes, value: bytes) -> None:
    """Not passed on: it is ours to say."""


def _content_type(u: "Upstream", name: bytes, value: bytes) -> None:
    u.request.content_type = value


def _location(u: "Upstream", name: bytes, value: bytes) -> None:
    rewritten = u.protocol.rewrite_redirect(u, value)
    if rewritten is not value:  # what was rewritten is a place of ours, as `return 301 /path` names one
        value = absolute(u.request, rewritten)
    u.request.fields.append((name, value))


def _refresh(u: "Upstream", name: bytes, value: bytes) -> None:
    start = value.lower().find(b"url=") + 4
    if start >= 4:
        value = value[:start] + u.protocol.rewrite_redirect(u, value[start:])
    u.request.fields.append((name, value))


def _cookie(u: "Upstream", name: bytes, value: bytes) -> None:
    u.request.fields.append((name, u.protocol.rewrite_cookie(u, value)))


HANDLERS: Final[dict[bytes, Copy]] = {
    b"content-type": _content_type,
    b"content-length": _ignore,
    b"connection": _ignore,
    b"keep-alive": _ignore,
    b"transfer-encoding": _ignore,
    b"location": _location,
    b"refresh": _refresh,
    b"set-cookie": _cookie,
}


class FieldTable:
    """A location's decision for each field name, by spelling."""

    __slots__ = ("_by_name", "_hidden", "empty")

    def __init__(self, conf: "UpstreamConf") -> None:
        self._hidden = conf.hidden
        self._by_name: dict[bytes, Copy | None] = {}
        if conf.force_ranges:
            self._hidden |= {b"accept-ranges"}  # ours to say then
        # where the server's own Server and Date are passed on, it may also leave them out
        self.empty = [(name, b"") for name in (b"Server", b"Date") if name.lower() not in self._hidden]

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
        if self.empty:
            present = {name.lower() for name, _ in out}
            out.extend(field for field in self.empty if field[0].lower() not in present)

    def shown(self, fields: list[Header]) -> list[Header]:
        """The fields of an interim head or a trailer that are neither hidden nor about the connection."""
        return [f for f in fields if (low := f[0].lower()) not in self._hidden and HANDLERS.get(low) is not _ignore]

    def _learn(self, name: bytes) -> Copy | None:
        low = name.lower()
        handler = _ignore if low in self._hidden else HANDLERS.get(low)
        if len(self._by_name) < 1024:
            self._by_name[name] = handler
        return handler


def _keep(u: "Upstream", fields: list[Header]) -> None:
    """Copy what another location's answer will have from this one, whatever is hidden."""
    for name, value in fields:
        low = name.lower()
        if low in accel.KEPT and not (low == b"accept-ranges" and u.conf.force_ranges):
            handler = HANDLERS.get(low)
            if handler is None:
                u.request.fields.append((name, value))
            else:
                handler(u, name, value)


def process(u: "Upstream") -> int | None:
    """Make the request's response from u.head. A redirect code or status when it is not to be sent; else None."""
    head = u.head
    assert head is not None
    conf = u.conf
    if head.status >= 300:
        rc = intercept(u, head)
        if rc is not None:
            return rc
    if head.accel is not None:
        target = accel.apply(u, head.accel)
        if target is not None:
            _keep(u, head.fields)
            return accel.redirect(u.request, target)
    r = u.request
    r.status = head.status
    if REASONS.get(head.status, "").encode() != head.reason[4:] or head.status == 204:
        r.status_line = head.reason  # of a 204 it says too whose it is
    r.content_length = head.length if not head.chunked else None
    conf.table.copy(u, head.fields)
    if conf.force_ranges:
        r.allow_ranges = ONE_RANGE
    return None
