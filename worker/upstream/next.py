"""After a failed attempt: try the next peer, or give up with a status. Decided here and nowhere else.

`decide` is the whole rule, over plain values (nginx: the conditions of ngx_http_upstream_next and
ngx_http_upstream_test_next, which are one); the other functions gather the values, and
ask the group's retry budget where it has one.
"""

from typing import TYPE_CHECKING, Final

from headgate.worker.upstream import retries
from headgate.worker.upstream.errors import BY_STATUS, STATUS, Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream

NOT_IDEMPOTENT: Final = frozenset((b"POST", b"LOCK", b"PATCH"))
CLIENT_GONE: Final = 499


def decide(
    kind: Kind, listed: Kind, *, left: int, method: bytes, sent: bool, streamed: bool, cached: bool, late: bool
) -> bool:
    """Whether a failure of this kind is followed by another attempt.

    `listed` is proxy_next_upstream, `left` the attempts that remain after this one; `sent`: the request (or a part)
    has gone to the peer, `streamed`: its body was passed on as it came and is gone, `cached`: the connection had been
    kept from an earlier request, `late`: proxy_next_upstream_timeout is over.
    """
    if cached and kind is Kind.ERROR:
        left += 1  # a connection that the server had closed meanwhile: this attempt was for free
    if sent and method in NOT_IDEMPOTENT:
        kind |= Kind.NON_IDEMPOTENT
    return left > 0 and listed & kind == kind and not (sent and streamed) and not late


def next_upstream(u: "Upstream", error: UpstreamError) -> int:
    """After an attempt was given up: 0 to try the next peer, otherwise the status to end with."""
    if u.request.conn.lost and not u.request.client_gone_ok:
        return CLIENT_GONE
    return 0 if _another(u, error.kind, u.tries) else STATUS[error.kind]


def status_error(u: "Upstream", status: int) -> UpstreamError | None:
    """A response that is to be treated as a failure, because another peer may do better; None to pass it on."""
    kind = BY_STATUS.get(status)
    if kind is None or not _another(u, kind, u.tries_left() - 1):
        return None
    return UpstreamError(kind, "")


def _another(u: "Upstream", kind: Kind, left: int) -> bool:
    limit = u.conf.next_upstream_timeout
    again = decide(
        kind,
        u.conf.next_upstream,
        left=left,
        method=u.request.method,
        sent=u.request_sent,
        streamed=u.streams_body,
        cached=u.cached,
        late=bool(limit) and u.worker.loop.time() - u.started >= limit,
    )
    if not again or u.group.retries is None or (u.cached and kind is Kind.ERROR):
        return again
    return retries.allowed(u)
