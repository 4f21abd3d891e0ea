"""After a failed attempt: try the next peer, or give up with a status. Decided here and nowhere else.

nginx: ngx_http_upstream_next and ngx_http_upstream_test_next.
"""

from typing import TYPE_CHECKING

from headgate.worker.upstream.errors import BY_STATUS, STATUS, Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream

NOT_IDEMPOTENT = frozenset((b"POST", b"LOCK", b"PATCH"))


def next_upstream(u: "Upstream", error: UpstreamError) -> int:
    """0: try the next peer. Otherwise the status to end with."""
    kind = error.kind
    status = STATUS[kind]
    if kind is Kind.NO_LIVE:
        return status
    if u.cached and kind is Kind.ERROR:
        u.tries += 1  # a cached connection that the server had closed says nothing: the peer is tried for free
    if u.tries <= 0 or not may_retry(u, kind):
        return status
    return 0


def may_retry(u: "Upstream", kind: Kind) -> bool:
    """Whether `proxy_next_upstream` and what was already done allow another attempt after this kind."""
    conf = u.conf
    wanted = kind
    if u.request_sent and u.request.method in NOT_IDEMPOTENT:
        wanted |= Kind.NON_IDEMPOTENT
    if conf.next_upstream & wanted != wanted:
        return False
    if u.request_sent and u.streams_body:
        return False  # the body has gone by and cannot be sent again
    limit = conf.next_upstream_timeout
    return not limit or u.worker.loop.time() - u.started < limit


def status_error(u: "Upstream", status: int) -> UpstreamError | None:
    """A response that is to be treated as a failure, because another peer may do better; None to pass it on."""
    kind = BY_STATUS.get(status)
    if kind is None or u.tries_left() <= 1 or not may_retry(u, kind):
        return None
    return UpstreamError(kind, "", logged=True)
