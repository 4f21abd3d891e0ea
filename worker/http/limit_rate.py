"""`limit_rate`, `limit_rate_after`, $limit_rate: how fast a response goes to its client.

nginx's rule (ngx_http_write_filter): at any time `limit_rate_after` bytes and one second's worth more than the
time since the request's start allows may have been sent, and after a write comes the time that it was worth.
What is held back counts as a client that does not read: whoever sends waits in `Request.drain`.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.slots import parse_size
from headgate.conf.template import Template, Variable
from headgate.masterd.logfile import Level
from headgate.worker.http.conf import Location

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_BUSY = 0.05  # seconds between looks at a client that reads more slowly than the rate


class Size:
    """A size in bytes that may have variables in it; 0 when what they give is none."""

    __slots__ = ("_template", "const")

    def __init__(self, template: Template) -> None:
        self._template = template
        self.const = None if template.const is None else parse_size(template.const.decode("latin-1"))

    def get(self, r: "Request") -> int:
        if self.const is not None:
            return self.const
        text = self._template.get(r).decode("latin-1")
        size = parse_size(text)
        if size is None:
            r.log(Level.ERROR, f'invalid size "{text}"')
            return 0
        return size


def size(call: Call) -> Size:
    """A parser for directives: `10k`, `$variable` (ngx_http_set_complex_value_size_slot)."""
    template = call.template(call.args[0])
    value = Size(template)
    if template.const is not None and value.const is None:
        raise call.error("invalid value")
    return value


class LimitRateConf(Conf, level=Ctx.LOCATION):
    """Bytes a second, and the bytes before the limit begins."""

    rate: Size | None = directive("limit_rate", HSL | Ctx.LOCATION_IF, "1", size)
    after: Size | None = directive("limit_rate_after", HSL | Ctx.LOCATION_IF, "1", size)

    def attach(self, node: Location) -> None:
        if self.rate is not None and self.rate.const != 0:
            node.filters += (limit_rate_filter,)


def limit_rate_filter(r: "Request") -> None:
    """The header filter: the location's rate, unless the request has been given one of its own."""
    if r.limiter is None and r.parent is None:
        conf = r.location.get(LimitRateConf)
        assert conf.rate is not None
        rate = conf.rate.get(r)
        if rate:
            r.limiter = Limiter(r, rate)


def set_rate(r: "Request", rate: int) -> None:
    """Give a request a rate of its own, in bytes a second; 0: no limit, whatever the location says."""
    if r.limiter is None:
        r.limiter = Limiter(r, rate)
    else:
        r.limiter.rate = rate


class Limiter:
    """Lets one response's bytes through at `rate` bytes a second (0: at once)."""

    __slots__ = ("_after", "_held", "_next", "_timer", "_unsent", "rate", "request")

    def __init__(self, request: "Request", rate: int) -> None:
        self.request = request
        self.rate = rate
        self._after: int | None = None  # looked up with the first bytes: the location is known then
        self._held: deque[bytes] = deque()
        self._next = 0.0  # loop time before which nothing is written
        self._unsent = 0  # bytes that the client had not taken when they were last looked at
        self._timer: asyncio.TimerHandle | None = None
        request.on_finish(self.close)

    @property
    def holds(self) -> bool:
        """Whether bytes wait for their time."""
        return bool(self._held)

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; the connection counts as full while some are held back."""
        conn = self.request.conn
        if not self.rate and not self._held:
            conn.write(data)
            return
        if not self._held:
            self._held.append(data)
            self._send()
        else:
            self._held.append(data)

    def _send(self) -> None:
        """Write what the rate allows now, and come back for the rest."""
        self._timer = None
        r = self.request
        conn = r.conn
        loop = conn.worker.loop
        now = loop.time()
        unsent = 0 if conn.lost else conn.transport.get_write_buffer_size()
        if not unsent:
            conn.paused = False
            if self._unsent:
                conn.deadline = 0.0
        else:
            self._next = now + _BUSY
            if unsent != self._unsent:
                conn.pause_writing()  # send_timeout counts from the last time that something was taken
        self._unsent = unsent
        while self._held and not conn.paused and not conn.lost and now >= self._next:
            self._piece(now)
        if not self._held or conn.lost:
            self._held.clear()
        else:
            conn.paused = True
            self._timer = loop.call_at(max(self._next, now), self._send)
        if not conn.paused:
            r.drained()

    def _piece(self, now: float) -> None:
        r = self.request
        rate = self.rate
        if self._after is None:
            after = r.location.get(LimitRateConf).after
            self._after = after.get(r) if after is not None else 0
        past = r.bytes_sent - self._after  # beyond what is free
        allowed = int(rate * (now - r.started + 1)) - past if rate else len(self._held[0])
        if allowed <= 0:
            self._next = now + -allowed / rate + 0.001
            return
        data = self._held.popleft()
        if len(data) > allowed:
            self._held.appendleft(data[allowed:])
            data = data[:allowed]
        r.conn.write(data)
        if rate:
            self._next = now + (max(past + len(data), 0) - max(past, 0)) / rate

    def close(self) -> None:
        """The request has ended: nothing more is to come."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _limit_rate(r: "Request") -> bytes:
    return b"%d" % r.limiter.rate if r.limiter is not None else b"0"


def _set_limit_rate(r: "Request", value: bytes) -> None:
    rate = parse_size(value.decode("latin-1"))
    if rate is None:
        r.log(Level.ERROR, f'invalid $limit_rate "{value.decode("utf-8", "surrogateescape")}"')
    else:
        set_rate(r, rate)


VARIABLES = [Variable("limit_rate", _limit_rate, _set_limit_rate, changeable=True)]
