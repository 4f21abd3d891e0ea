"""[8] One attempt with one peer: taking it, noting what happened, giving it back."""

from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.shm.peers import NEXT, OK
from headgate.worker.upstream.errors import PEER_STATE, Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


class Attempt:
    """What the $upstream_* variables say of one attempt; times in seconds since its start, None: not reached."""

    __slots__ = (
        "bytes_received", "bytes_sent", "connect_time", "header_time", "peer", "response_length", "response_time",
        "start", "status",
    )  # fmt: skip

    def __init__(self, peer: bytes, start: float) -> None:
        self.peer = peer
        self.start = start
        self.status = 0
        self.connect_time: float | None = None
        self.header_time: float | None = None
        self.response_time: float | None = None
        self.response_length = 0
        self.bytes_received = 0
        self.bytes_sent = 0


def get_peer(u: "Upstream") -> None:
    """Take a peer and, if there is one, a cached connection to it. Raises UpstreamError (NO_LIVE)."""
    group = u.group
    now = u.worker.timers.now
    index = u.balancer.get(u.tried)
    if index < 0:
        u.address = nobody = group.nobody
        u.attempt = None
        u.cached = False
        none = Attempt(nobody.name, now)
        none.response_time = 0.0
        u.note_attempt(none)
        raise UpstreamError(Kind.NO_LIVE, "no live upstreams")
    u.index = index
    u.address = address = group.addresses[index]
    u.attempt = attempt = Attempt(address.name, now)
    u.note_attempt(attempt)
    cache = group.keepalive
    if cache is not None:
        u.key = u.cache_key()
        conn = cache.get(u.key)
        if conn is not None:
            conn.owner = u
            conn.cache = None
            u.conn = conn
            u.cached = True
            attempt.connect_time = 0.0
            return
    u.conn = None
    u.cached = False


def free_peer(u: "Upstream", error: UpstreamError | None) -> None:
    """Give the peer back, once an attempt; says so when that made it unavailable."""
    index = u.index
    if index < 0:
        return
    u.index = -1
    if error is None:
        u.balancer.free(index, OK)
        return
    # a connection that idled too long for the server says nothing against it, though nginx counts a failure
    stale = u.cached and error.kind is Kind.ERROR and not u.conn_received()
    state = NEXT if stale else PEER_STATE[error.kind]
    if u.balancer.free(index, state):
        u.request.log(Level.WARN, "upstream server temporarily disabled")
    if u.tried is None:
        u.tries = u.tries_left()
        u.tried = bytearray(u.group.peers.count)
    if not stale:
        u.tried[index] = 1
        u.tries -= 1
