"""Lazy deadlines over a clock of the test's own: who is told when, and what moving a deadline costs."""

from collections.abc import Callable
from typing import Any

import pytest
from headgate.worker.timers import TICK, Timed, Timers


class Clock:
    """An event loop's clock and its one timer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: tuple[float, Callable[[], None]] | None = None
        self.calls = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        assert self.due is None, "one tick at a time"
        self.due = (self.now + delay, callback)
        self.calls += 1
        return self.due

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the ticks that fall into it."""
        end = self.now + seconds
        while self.due is not None and self.due[0] <= end:
            (self.now, callback), self.due = self.due, None
            callback()
        self.now = end


class Waiter(Timed):
    __slots__ = ("clock", "told")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.told: list[float] = []

    def on_deadline(self) -> None:
        self.told.append(self.clock.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timers(clock: Clock) -> Timers:
    loop: Any = clock
    return Timers(loop)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.07, 1.0, 60.0])
def test_it_is_told_once_never_early_and_at_most_two_ticks_late(clock: Clock, timers: Timers, seconds: float) -> None:
    waiter = Waiter(clock)
    start = clock.now
    timers.set(waiter, seconds)
    clock.advance(seconds + 1)
    (told,) = waiter.told
    assert start + seconds <= told <= start + seconds + 2 * TICK
    assert waiter.deadline == 0.0 and waiter.filed == 0


def test_the_tick_runs_only_while_something_is_filed(clock: Clock, timers: Timers) -> None:
    timers.set(Waiter(clock), 0.2)
    clock.advance(10)
    assert clock.due is None
    ticks = clock.calls
    clock.advance(10)
    assert clock.calls == ticks <= 6


def test_a_later_deadline_costs_no_filing(clock: Clock, timers: Timers) -> None:
    waiter = Waiter(clock)
    timers.set(waiter, 0.1)
    filed = waiter.filed
    for _ in range(50):
        clock.now += 0.001
        timers.set(waiter, 5)
        assert waiter.filed == filed
    clock.advance(4.9)
    assert waiter.told == []
    clock.advance(1)
    assert len(waiter.told) == 1


def test_an_earlier_deadline_is_kept(clock: Clock, timers: Timers) -> None:
    waiter = Waiter(clock)
    timers.set(waiter, 60)
    timers.set(waiter, 0.1)
    clock.advance(0.3)
    assert len(waiter.told) == 1
    clock.advance(120)
    assert len(waiter.told) == 1


def test_a_deadline_that_is_taken_back(clock: Clock, timers: Timers) -> None:
    waiter = Waiter(clock)
    timers.set(waiter, 0.1)
    waiter.deadline = 0.0
    clock.advance(1)
    assert waiter.told == [] and waiter.filed == 0 and clock.due is None
    timers.set(waiter, 0.1)
    clock.advance(1)
    assert len(waiter.told) == 1


def test_who_is_told_may_set_a_new_deadline(clock: Clock, timers: Timers) -> None:
    class Again(Waiter):
        __slots__ = ()

        def on_deadline(self) -> None:
            super().on_deadline()
            if len(self.told) < 5:
                timers.set(self, 0.0)

    waiter = Again(clock)
    timers.set(waiter, 0.1)
    clock.advance(2)
    assert len(waiter.told) == 5


def test_many_at_once_and_a_clock_that_jumps(clock: Clock, timers: Timers) -> None:
    waiters = [Waiter(clock) for _ in range(200)]
    for number, waiter in enumerate(waiters):
        timers.set(waiter, number * 0.01)
    due = clock.due
    assert due is not None
    clock.due, clock.now = None, clock.now + 1.0  # the loop was held up for a second
    due[1]()
    assert [len(waiter.told) for waiter in waiters[:99]] == [1] * 99
    assert sum(len(waiter.told) for waiter in waiters[102:]) == 0
    clock.advance(2)
    assert [len(waiter.told) for waiter in waiters] == [1] * 200
