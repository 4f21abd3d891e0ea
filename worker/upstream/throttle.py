"""`proxy_limit_rate`: how fast a buffered response is read from the upstream server.

nginx's rule (ngx_event_pipe): one second's worth more than the time since the head allows may have been read, and
after a read comes the time that it was worth. What has arrived and may not be taken yet stays with the connection,
which stops reading when there is much of it.
"""

from typing import TYPE_CHECKING

from headgate.worker.http.request import UPSTREAM

if TYPE_CHECKING:
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.upstream import Upstream


class Throttle:
    """The limit for one response, in bytes a second."""

    __slots__ = ("_next", "_start", "_taken", "_u", "rate")

    def __init__(self, u: "Upstream", rate: int) -> None:
        self._u = u
        self.rate = rate
        self._start = u.worker.loop.time()
        self._taken = 0
        self._next = 0.0  # loop time before which nothing is taken

    async def take(self, conn: "UpstreamConnection") -> bytes:
        """Some of conn.data, once the rate allows it. Raises Interrupted."""
        loop = self._u.worker.loop
        while True:
            now = loop.time()
            if now >= self._next:
                allowed = int(self.rate * (now - self._start + 1)) - self._taken
                if allowed > 0:
                    break
                self._next = now + -allowed / self.rate + 0.001
            timer = loop.call_at(self._next, self._u.request.wake, UPSTREAM)
            try:
                await self._u.request.wait(UPSTREAM)  # more data may come first
            finally:
                timer.cancel()
        data = conn.data[:allowed]
        conn.data = conn.data[allowed:]
        self._taken += len(data)
        self._next = now + len(data) / self.rate
        return data


def throttle(u: "Upstream") -> Throttle | None:
    """The limit that the location sets for this response, if any."""
    if u.conf.limit_rate is None or not u.buffering:
        return None
    rate = u.conf.limit_rate.get(u.request)
    return Throttle(u, rate) if rate else None
