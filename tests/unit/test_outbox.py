"""Writes held back to the end of the event loop's turn: what leaves when, in what order, in how many calls."""

from collections.abc import Callable
from typing import Any

from headgate.worker.outbox import HOLD, TOGETHER, Outbox, Writer


class Loop:
    """An event loop's queue."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []
        self.errors: list[dict[str, Any]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.queue.append(callback)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def turn(self) -> None:
        queue, self.queue = self.queue, []
        for callback in queue:
            callback()


class Transport:
    def __init__(self, calls: list[Any], broken: bool = False) -> None:
        self.calls = calls
        self.broken = broken

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("closed")
        self.calls.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.calls.append(list(pieces))

    def close(self) -> None:
        self.calls.append("close")


class Connection(Writer):
    def on_deadline(self) -> None:
        pass


def writer(outbox: Outbox, calls: list[Any], broken: bool = False) -> Writer:
    made = Connection(outbox)
    made.transport = Transport(calls, broken)
    return made


def setup() -> tuple[Any, Outbox, list[Any]]:
    loop: Any = Loop()
    return loop, Outbox(loop), []


def test_all_leave_at_the_end_of_the_turn_in_their_order() -> None:
    loop, outbox, calls = setup()
    one, two = writer(outbox, calls), writer(outbox, calls)
    one.queue(b"1")
    two.queue(b"2")
    one.queue(b"more")
    assert calls == [] and len(loop.queue) == 1
    loop.turn()
    assert calls == [b"1more", b"2"]
    assert (one.sent, two.sent) == (5, 1)
    loop.turn()
    two.queue(b"again")
    loop.turn()
    assert calls[2:] == [b"again"]


def test_the_transport_comes_with_nothing_held_back() -> None:
    loop, outbox, calls = setup()
    one = writer(outbox, calls)
    one.queue(b"last")
    one.transport.close()
    loop.turn()
    assert calls == [b"last", "close"]


def test_much_leaves_at_once_and_is_not_joined() -> None:
    loop, outbox, calls = setup()
    one = writer(outbox, calls)
    one.queue(b"head")
    one.queue(b"x" * HOLD)
    assert calls == [[b"head", b"x" * HOLD]]
    loop.turn()
    assert len(calls) == 1


def test_many_do_not_wait_for_the_end() -> None:
    loop, outbox, calls = setup()
    writers = [writer(outbox, calls) for _ in range(TOGETHER + 1)]
    for each in writers:
        each.queue(b"x")
    assert len(calls) == TOGETHER
    loop.turn()
    assert len(calls) == TOGETHER + 1


def test_what_is_dropped_is_not_written() -> None:
    loop, outbox, calls = setup()
    one = writer(outbox, calls)
    one.queue(b"lost")
    one.drop_held()
    loop.turn()
    assert calls == []


def test_a_failure_is_told_and_holds_up_nobody() -> None:
    loop, outbox, calls = setup()
    writer(outbox, calls, broken=True).queue(b"x")
    writer(outbox, calls).queue(b"y")
    loop.turn()
    assert calls == [b"y"]
    assert isinstance(loop.errors[0]["exception"], RuntimeError)
