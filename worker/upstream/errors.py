"""What can go wrong with an upstream server, in nginx's kinds, and what each kind means.

`Kind` has the names of `proxy_next_upstream`. Two tables say what a kind is to the client (`STATUS`) and
to the peer (`PEER_STATE`).
"""

import enum

from headgate.masterd.logfile import Level
from headgate.shm.peers import FAILED, NEXT


class Kind(enum.Flag):
    """Kinds of failure; `proxy_next_upstream` is a union of them (NGX_HTTP_UPSTREAM_FT_*)."""

    ERROR = enum.auto()
    TIMEOUT = enum.auto()
    INVALID_HEADER = enum.auto()
    HTTP_500 = enum.auto()
    HTTP_502 = enum.auto()
    HTTP_503 = enum.auto()
    HTTP_504 = enum.auto()
    HTTP_403 = enum.auto()
    HTTP_404 = enum.auto()
    HTTP_429 = enum.auto()
    NON_IDEMPOTENT = enum.auto()
    NO_LIVE = enum.auto()  # no peer could be had at all; never retried
    OFF = enum.auto()


WORDS = {
    kind.name.lower(): kind  # type: ignore[union-attr]
    for kind in Kind
    if kind is not Kind.NO_LIVE
}

STATUS = {
    Kind.ERROR: 502, Kind.TIMEOUT: 504, Kind.INVALID_HEADER: 502, Kind.NO_LIVE: 502,
    Kind.HTTP_500: 500, Kind.HTTP_502: 502, Kind.HTTP_503: 503, Kind.HTTP_504: 504,
    Kind.HTTP_403: 403, Kind.HTTP_404: 404, Kind.HTTP_429: 429,
}  # fmt: skip

# a 403 or 404 says nothing against the peer
PEER_STATE = {kind: NEXT if kind in (Kind.HTTP_403, Kind.HTTP_404) else FAILED for kind in STATUS}

BY_STATUS = {
    500: Kind.HTTP_500, 502: Kind.HTTP_502, 503: Kind.HTTP_503, 504: Kind.HTTP_504,
    403: Kind.HTTP_403, 404: Kind.HTTP_404, 429: Kind.HTTP_429,
}  # fmt: skip


class UpstreamError(Exception):
    """One attempt has failed. `cause` is the error log's text, "" when there is nothing to say; `level` its level."""

    def __init__(self, kind: Kind, cause: str, level: Level = Level.ERROR) -> None:
        super().__init__(kind, cause)
        self.kind = kind
        self.cause = cause
        self.level = level


class GiveUp(Exception):
    """The request ends with `status`, for a reason of our own: no peer is to blame, and another would not help."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
