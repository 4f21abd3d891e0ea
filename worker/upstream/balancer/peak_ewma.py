"""`peak_ewma`: of two peers drawn by lot, the one with less expected work.

A peer's cost is a peak-sensitive moving average of the time to its responses' heads, times its connections and one
more; the shared zone holds the averages. The papers and implementations that it follows stand in docs/balancing.md.
"""

from typing import TYPE_CHECKING

from headgate.conf.directive import Call, command
from headgate.shm.peers import OK, Peers, Random
from headgate.worker.upstream.balancer.method import UPS, choose

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


@command("peak_ewma", UPS, "0")
def peak_ewma(call: Call) -> None:
    choose(call, PeakEwma)


class PeakEwma:
    """The balancer."""

    __slots__ = ("get", "peers")

    notifies = False

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.get = Random(peers, True, "peak").get

    def init(self, request: "Request") -> "_Tries":
        return _Tries(self, request)


class _Tries:
    """One request's tries."""

    __slots__ = ("_balancer", "_request", "get")

    def __init__(self, balancer: PeakEwma, request: "Request") -> None:
        self._balancer = balancer
        self._request = request
        self.get = balancer.get

    def free(self, index: int, state: int) -> int:
        u = self._request.upstream
        attempt = u.attempt if u is not None else None
        peers = self._balancer.peers
        if attempt is not None:
            # A failure says how slow a peer is, but never how fast.
            seconds = attempt.header_time if state == OK else attempt.response_time
            if seconds is not None:
                peers.note_peak(index, seconds * 1000, state == OK)
        return peers.free(index, state)

    def notify(self, index: int, event: str) -> None:
        """The time is taken when the connection is given back."""
