"""`queue N [timeout=]`: a request that finds no peer waits for one, in its turn among those of all workers.

The order is kept by tickets in the group's zone. A worker serves its own waiting requests when the oldest ticket is
one of them and a peer is free; it looks when a request of its own has ended, and every few milliseconds, since another
worker's may have. A worker that does not take its turn while a peer stands free (it was stopped) is waited for no more
after a moment, until it goes on. A request leaves when its client does, or after the timeout, with 502.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, command
from headgate.shm.peers import Peers
from headgate.shm.peers import Queue as Tickets
from headgate.worker.http.request import UPSTREAM
from headgate.worker.timers import Timed
from headgate.worker.upstream.balancer.method import UPS, BalancingConf

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.upstream.contract import Balancer, Choice
    from headgate.worker.upstream.upstream import Upstream

LOOK = 0.005  # seconds between looks at what other workers have done
PATIENCE = 4  # looks at a peer that stands free, before whoever has the turn is passed over


@dataclass(frozen=True, slots=True)
class QueueConf:
    """How many requests may wait, all workers together, and for how many seconds each."""

    limit: int
    timeout: float = 60.0


@command("queue", UPS, "1|2")
def queue(call: Call) -> None:
    values = vars(call.conf(BalancingConf))
    if "queue" in values:
        raise call.error("is duplicate")
    number, *more = call.args
    if not (number.isascii() and number.isdigit()) or not int(number):
        raise call.error_at(f'invalid value "{number}" in "queue" directive')
    conf = QueueConf(int(number))
    if more:
        name, eq, value = more[0].partition("=")
        if name + eq != "timeout=":
            raise call.error_at(f'invalid parameter "{more[0]}"')
        timeout = slots.parse_time(value, msec=True)
        if not timeout:
            raise call.error_at(f'invalid parameter "{more[0]}"')
        conf = QueueConf(int(number), timeout)
    values["queue"] = conf


class Queue:
    """The waiting requests of a group in this worker, in the order in which they came."""

    __slots__ = ("_conf", "_free_looks", "_looking", "_passed", "_tickets", "_waiters", "_worker")

    def __init__(self, conf: QueueConf, peers: Peers, worker: "HttpWorker") -> None:
        self._conf = conf
        self._worker = worker
        self._tickets = Tickets(peers)
        self._waiters: list[_Waiter] = []
        self._looking = False
        self._free_looks = 0  # how often in a row a peer stood free while others had the turn
        self._passed = 0  # the last ticket that was not waited for any more

    @property
    def size(self) -> int:
        """How many requests wait, in all workers."""
        return self._tickets.waiting()

    @property
    def limit(self) -> int:
        """How many may."""
        return self._conf.limit

    async def turn(self, u: "Upstream") -> None:
        """Take a peer for the next try, at once or when one is free; none is taken when the wait was in vain."""
        tries = u.balancer
        assert isinstance(tries, Tries)
        # nobody overtakes those that wait
        if not self._tickets.oldest(self._passed) and tries.take(u.tried):
            return
        ticket = self._tickets.enter(self.limit) if u.group.peers.waitable(u.tried) else 0
        if not ticket:
            return
        waiter = _Waiter(u, tries, ticket)
        self._waiters.append(waiter)
        self._worker.timers.set(waiter, self._conf.timeout)
        self._look_later()
        u.request.action = "waiting for upstream"
        try:
            while tries.granted < 0 and not waiter.expired:
                await u.request.wait(UPSTREAM)
        finally:
            waiter.deadline = 0.0
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._publish()

    def freed(self) -> None:
        """A request of this worker has given its peer back."""
        if self._waiters:
            self._worker.loop.call_soon(self._serve)

    def _publish(self) -> None:
        waiters = self._waiters
        self._tickets.publish(waiters[0].ticket if waiters else 0, len(waiters))

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._worker.loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._waiters:
            waiter = self._waiters[0]
            oldest = self._tickets.oldest(self._passed)
            if waiter.ticket == oldest or not waiter.u.group.peers.available(waiter.u.tried):
                self._free_looks = 0
            else:
                self._free_looks += 1
                if self._free_looks == PATIENCE:
                    self._free_looks = 0
                    self._passed = oldest
            self._serve()
        if self._waiters:
            self._look_later()

    def _serve(self) -> None:
        """Give peers to those whose turn it is, as long as there are any."""
        for waiter in list(self._waiters):
            if waiter.ticket != self._tickets.oldest(self._passed):
                return
            if waiter.tries.take(waiter.u.tried):
                self._waiters.remove(waiter)
                self._publish()
                waiter.u.request.wake(UPSTREAM)
            elif waiter.u.tried is None:
                return  # no peer at all; one that was tried may still do for others


class _Waiter(Timed):
    """A request in the queue."""

    __slots__ = ("expired", "ticket", "tries", "u")

    def __init__(self, u: "Upstream", tries: "Tries", ticket: int) -> None:
        super().__init__()
        self.u = u
        self.tries = tries
        self.ticket = ticket
        self.expired = False

    def on_deadline(self) -> None:
        self.expired = True
        self.u.request.wake(UPSTREAM)


class Queued:
    """The balancer: another one's, whose peers are given out by the queue."""

    __slots__ = ("inner", "notifies", "queue")

    def __init__(self, inner: "Balancer", queue: Queue) -> None:
        self.inner = inner
        self.queue = queue
        self.notifies = inner.notifies

    def init(self, request: "Request") -> "Tries":
        return Tries(self.inner.init(request), self.queue)


class Tries:
    """One request's tries. `granted` is the peer taken for the next one, or -1."""

    __slots__ = ("_inner", "_queue", "granted")

    def __init__(self, inner: "Choice", queue: Queue) -> None:
        self._inner = inner
        self._queue = queue
        self.granted = -1

    def take(self, tried: bytearray | None) -> bool:
        """Take a peer, if there is one."""
        self.granted = self._inner.get(tried)
        return self.granted >= 0

    def get(self, tried: bytearray | None, now: int = -1, hint: int = -1, spare: int = -1) -> int:
        index, self.granted = self.granted, -1
        return index

    def free(self, index: int, state: int) -> int:
        disabled = self._inner.free(index, state)
        self._queue.freed()
        return disabled

    def notify(self, index: int, event: str) -> None:
        self._inner.notify(index, event)
