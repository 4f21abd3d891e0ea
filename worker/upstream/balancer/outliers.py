"""`outlier_ejection`: peers whose responses stand out are left alone for a time (Envoy's outlier detection).

What the parameters mean is in docs/balancing.md; the rules are `Outliers` of headgate.shm.peers. Here the end of every
try is told to it: a response from 500 up, or none at all, is a failure. In every worker a timer asks for the sweep that
ends an interval; the zone lets one of them do it.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, directive
from headgate.masterd.logfile import Level
from headgate.shm.peers import NEXT, Outliers

if TYPE_CHECKING:
    from headgate.shm.peers import Peers
    from headgate.worker.http.request import Request
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.upstream.contract import Balancer, Choice
    from headgate.worker.upstream.group import Group


@dataclass(slots=True)
class OutlierConf:
    """The parameters; times in seconds, shares in percent."""

    consecutive_5xx: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    success_rate_stdev_factor: float = 1.9
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    latency_factor: float = 3.0
    panic_threshold: int = 50

    def outliers(self, peers: "Peers") -> Outliers:
        """The outliers among these peers."""
        return Outliers(
            peers,
            consecutive=self.consecutive_5xx,
            interval=int(self.interval * 1000),
            base_time=int(self.base_ejection_time * 1000),
            max_time=int(self.max_ejection_time * 1000),
            max_percent=self.max_ejection_percent,
            stdev_factor=self.success_rate_stdev_factor,
            minimum_hosts=self.success_rate_minimum_hosts,
            volume=self.success_rate_request_volume,
            latency_factor=self.latency_factor,
            panic=self.panic_threshold,
        )


_TIMES = ("interval", "base_ejection_time", "max_ejection_time")
_FACTORS = ("success_rate_stdev_factor", "latency_factor")
_SHARES = ("max_ejection_percent", "panic_threshold")
_NAMES = frozenset(field.name for field in fields(OutlierConf))


def _parse(call: Call) -> OutlierConf:
    conf = OutlierConf()
    for word in call.args:
        name, eq, text = word.partition("=")
        value = _value(name, text) if eq and name in _NAMES else None
        if value is None:
            raise call.error_at(f'invalid parameter "{word}"')
        setattr(conf, name, value)
    return conf


def _value(name: str, text: str) -> float | None:
    """A parameter's value, None for an invalid one."""
    if name in _TIMES:
        return slots.parse_time(text) or None
    if not (text.isascii() and text.replace(".", "", 1 if name in _FACTORS else 0).isdigit()):
        return None
    if name in _FACTORS:
        return float(text)
    number = int(text)
    return None if number > (100 if name in _SHARES else 1_000_000_000) else number


class OutlierDirective(Conf, level=Ctx.UPSTREAM):
    """The directive of an upstream block."""

    ejection: OutlierConf | None = directive("outlier_ejection", Ctx.UPSTREAM, "0+", _parse)


class Ejecting:
    """The balancer: another one's, whose tries are judged when they end."""

    __slots__ = ("_group", "_inner", "_worker", "notifies", "outliers")

    def __init__(self, inner: "Balancer", outliers: Outliers, group: "Group", worker: "HttpWorker") -> None:
        self._inner = inner
        self.outliers = outliers
        self._group = group
        self._worker = worker
        self.notifies = inner.notifies

    def init(self, request: "Request") -> "Tries":
        return Tries(self._inner.init(request), self, request)

    def judged(self, index: int, failed: bool, seconds: float) -> None:
        """A try on a peer has ended."""
        if self.outliers.note(index, failed, int(seconds * 1_000_000)):
            say_ejected(self._worker, self._group, index, "consecutive failures")


class Tries:
    """One request's tries."""

    __slots__ = ("_ejecting", "_inner", "_request", "get")

    def __init__(self, inner: "Choice", ejecting: Ejecting, request: "Request") -> None:
        self._inner = inner
        self._ejecting = ejecting
        self._request = request
        self.get = inner.get

    def free(self, index: int, state: int) -> int:
        u = self._request.upstream
        attempt = u.attempt if u is not None else None
        if attempt is not None:
            if attempt.status:
                self._ejecting.judged(index, attempt.status >= 500, attempt.header_time or 0.0)
            elif state not in (0, NEXT):  # no response; one that the client did not wait for says nothing
                self._ejecting.judged(index, True, 0.0)
        return self._inner.free(index, state)

    def notify(self, index: int, event: str) -> None:
        self._inner.notify(index, event)


class Sweeper:
    """The timer of a group in a worker."""

    __slots__ = ("_group", "_interval", "_worker")

    def __init__(self, conf: OutlierConf, group: "Group", worker: "HttpWorker") -> None:
        self._group = group
        self._worker = worker
        self._interval = conf.interval
        worker.loop.call_later(conf.interval, self._sweep)

    def _sweep(self) -> None:
        if self._worker.leaving:
            return
        group = self._group if self._group.live is None else self._group.live.current()
        if group.outliers is not None:
            found, back = group.outliers.sweep()
            for index in back:
                self._worker.log.emit(Level.NOTICE, f"{_named(group, index)} is back from its ejection")
            for index, reason in found:
                say_ejected(self._worker, group, index, reason)
        self._worker.loop.call_later(self._interval, self._sweep)


def say_ejected(worker: "HttpWorker", group: "Group", index: int, reason: str) -> None:
    """Log that a peer was ejected."""
    worker.log.emit(Level.WARN, f"{_named(group, index)} is ejected: {reason}")


def _named(group: "Group", index: int) -> str:
    return f'peer {group.addresses[index].text} in upstream "{group.name}"'
