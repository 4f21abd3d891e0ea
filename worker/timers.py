"""Lazy deadlines: many timers for the price of storing a number.

Whoever has a timeout stores `deadline` (loop time, seconds; 0 for none) and is filed once in a bucket. A
coarse tick looks at the bucket that is due: what has a later deadline by then is filed anew, what is due
gets `on_deadline()`. Moving a deadline later, the common case, costs nothing but the store.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from mypy_extensions import mypyc_attr

TICK: Final = 0.05  # seconds


@mypyc_attr(allow_interpreted_subclasses=True)  # not all that waits is compiled
class Timed(ABC):
    """What can be filed: `filed` is the bucket it lies in, 0 for none; both belong to `Timers`."""

    __slots__ = ("deadline", "filed")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.filed = 0

    @abstractmethod
    def on_deadline(self) -> None:
        """The deadline has come; there is none any more."""


class Timers:
    """One worker's deadlines. The tick runs only while something is filed.

    `now` is the loop's time when it last called, which is what deadlines count from: at most a tick old.
    """

    __slots__ = ("_buckets", "_handle", "_next", "loop", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._buckets: dict[int, list[Timed]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._next = 0
        self.now = loop.time()

    def refresh(self) -> float:
        """Whoever the loop calls calls this first: `now` is the time for all that follows from it."""
        self.now = now = self.loop.time()
        return now

    def set(self, timed: Timed, seconds: float) -> None:
        """Give `timed` a deadline `seconds` from now."""
        timed.deadline = deadline = self.now + seconds
        filed = timed.filed
        if not filed or deadline < (filed - 1) * TICK:
            self._file(timed)

    def _file(self, timed: Timed) -> None:
        key = max(int(timed.deadline / TICK) + 1, self._next)
        timed.filed = key
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.append(timed)
            return
        self._buckets[key] = [timed]
        if self._handle is None:
            self._next = int(self.refresh() / TICK) + 1
            self._handle = self.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        now = self.refresh()
        current = int(now / TICK)
        buckets = self._buckets
        due = range(self._next, current + 1)
        keys = list(due) if len(due) < len(buckets) else sorted(key for key in buckets if key <= current)
        self._next = current + 1
        for key in keys:
            for timed in buckets.pop(key, ()):
                if timed.filed != key:
                    continue  # it was filed anew with an earlier deadline
                timed.filed = 0
                if timed.deadline == 0.0:
                    continue
                if timed.deadline > now:
                    self._file(timed)
                else:
                    timed.deadline = 0.0
                    timed.on_deadline()
        self._handle = self.loop.call_later(TICK, self._tick) if buckets else None
