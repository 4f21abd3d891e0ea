"""`proxy_limit_rate`: how fast a buffered response is read from the upstream server.

nginx's rule (ngx_event_pipe): one second's worth more than the time since the head allows may have been read, and
after a read comes the time that it was worth. What has arrived and may not be taken yet stays with the connection,
which stops reading when there is much of it.
"""

import asyncio
from typing import TYPE_CHECKING

from headgate.worker.http.request import UPSTREAM

if TYPE_CHECKING:
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.upstream import Upstream


class Throttle:
    """The limit for one response, in bytes a second."""

    __slots__ = ("_next", "_start", "_taken", "_timer", "_u", "rate")

    def __init__(self, u: "Upstream", rate: int) -> None:
        self._u = u
        self.rate = rate
        self._start = u.worker.loop.time()
        self._taken = 0
        self._next = 0.0  # loop time before which nothing is taken
        self._timer: asyncio.TimerHandle | None = None

    def take(self, conn: "UpstreamConnection") -> bytes:
        """What the rate allows now of conn.data; b"" when that is nothing, and the request is woken in time."""
        loop = self._u.worker.loop
        now = loop.time()
        allowed = int(self.rate * (now - self._start + 1)) - self._taken
        if allowed <= 0:
            self._next = max(self._next, now + -allowed / self.rate + 0.001)
        if now < self._next:
            self.close()
            self._timer = loop.call_at(self._next, self._u.request.wake, UPSTREAM)
            return b""
        data = conn.data[:allowed]
        conn.data = conn.data[allowed:]
        self._taken += len(data)
        self._next = now + len(data) / self.rate
        return data

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def throttle(u: "Upstream") -> Throttle | None:
    """The limit that the location sets for this response, if any."""
    if u.conf.limit_rate is None or not u.buffering:
        return None
    rate = u.conf.limit_rate.get(u.request)
    return Throttle(u, rate) if rate else None
