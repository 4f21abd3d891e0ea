"""`least_time header|last_byte [inflight]`: the peer whose requests should be done first.

The times are exponential averages in the zone, so all workers learn from all; `inflight` counts requests that are
still under way too.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, command
from headgate.shm.peers import OK, Least, Peers, now_ms
from headgate.worker.upstream.balancer.method import UPS, BalancingConf, choose

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


@command("least_time", UPS, "1|2")
def least_time(call: Call) -> None:
    mode, *more = call.args
    if vars(call.conf(BalancingConf)).setdefault("least_time", call) is not call:
        raise call.error("is duplicate")
    if more and more[0] != "inflight":
        raise call.error_at(f'invalid parameter "{more[0]}"')
    if mode not in ("header", "last_byte"):
        raise call.error_at(f'invalid value "{mode}"')
    choose(call, lambda peers: make(peers, mode, bool(more)))


def make(peers: Peers, mode: str, inflight: bool) -> "Timed":
    """The balancer."""
    method = Least(peers, f"{mode} inflight" if inflight else mode)
    return Timed(peers, method.get, inflight, inflight and mode == "header")


class Timed:
    """A balancer that notes how long successful responses took.

    `inflight`: it also tells what is under way; `early`: up to the response's head only.
    """

    __slots__ = ("get", "inflight", "notifies", "peers")

    def __init__(self, peers: Peers, get: Callable[..., int], inflight: bool, early: bool = False) -> None:
        self.peers = peers
        self.get = get
        self.inflight = inflight
        self.notifies = early

    def init(self, request: "Request") -> "_Tries":
        return _Tries(self, request)


class _Tries:
    """One request's tries."""

    __slots__ = ("_balancer", "_began", "_request")

    def __init__(self, balancer: Timed, request: "Request") -> None:
        self._balancer = balancer
        self._request = request
        self._began = 0  # ms, while the try is under way

    def get(self, tried: bytearray | None, now: int = -1, hint: int = -1, spare: int = -1) -> int:
        balancer = self._balancer
        index = balancer.get(tried, now, hint, spare)
        if balancer.inflight and index >= 0:
            self._began = now_ms()
            balancer.peers.begin(index, self._began)
        return index

    def notify(self, index: int, event: str) -> None:
        """The head is there: nginx takes its time at once then, whatever becomes of the rest."""
        header, _ = self._times()
        if header is not None:
            self._balancer.peers.note_header(index, header)
        self._end(index)

    def free(self, index: int, state: int) -> int:
        balancer = self._balancer
        self._end(index)
        if state == OK:  # a peer that fails fast is not a fast one
            header, whole = self._times()
            if header is not None and whole is not None:
                balancer.peers.note_whole(index, whole)
                if not balancer.notifies:
                    balancer.peers.note_header(index, header)
        return balancer.peers.free(index, state)

    def _end(self, index: int) -> None:
        if self._began:
            self._balancer.peers.end(index, self._began)
            self._began = 0

    def _times(self) -> tuple[int | None, int | None]:
        """Milliseconds to the response's head and to its end."""
        u = self._request.upstream
        attempt = u.attempt if u is not None else None
        if attempt is None:
            return None, None
        return _ms(attempt.header_time), _ms(attempt.response_time)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
