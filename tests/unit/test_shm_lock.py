"""The robust lock as Python sees it."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from headgate.shm.lock import Lock
from headgate.shm.segment import Segment


def child(work: Callable[[], None]) -> int:
    """A process that does `work` and is gone."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_excludes_other_processes_and_lets_them_in_again() -> None:
    segment = Segment.create(4096)
    lock = Lock(segment.map, 64, create=True)

    def add() -> None:
        for _ in range(2000):
            while True:
                try:
                    with lock:
                        value = int.from_bytes(segment.map[:8], "little")
                        segment.map[:8] = (value + 1).to_bytes(8, "little")
                        break
                except TimeoutError:
                    continue

    for pid in [child(add) for _ in range(4)]:
        os.waitpid(pid, 0)
    assert int.from_bytes(segment.map[:8], "little") == 8000


def test_a_lock_whose_holder_died_is_repaired_once_and_goes_on() -> None:
    segment = Segment.create(4096)
    repairs: list[int] = []
    lock = Lock(segment.map, 0, create=True, repair=lambda: repairs.append(1))

    def hold_and_die() -> None:
        with lock:
            die()

    os.waitpid(child(hold_and_die), 0)
    for _ in range(2):
        with lock:
            pass
    assert repairs == [1]


def test_without_a_repair_it_goes_on_too() -> None:
    segment = Segment.create(4096)
    lock = Lock(segment.map, 0, create=True)

    def hold_and_die() -> None:
        with lock:
            die()

    for _ in range(20):
        os.waitpid(child(hold_and_die), 0)
        with lock:
            pass


def test_a_repair_that_fails_closes_the_lock_for_good() -> None:
    segment = Segment.create(4096)

    def fail() -> None:
        raise KeyError("broken")

    lock = Lock(segment.map, 0, create=True, repair=fail)

    def hold_and_die() -> None:
        with lock:
            die()

    os.waitpid(child(hold_and_die), 0)
    with pytest.raises(KeyError), lock:
        pass
    with pytest.raises(TimeoutError), lock:
        pass


def test_a_stopped_holder_costs_one_bounded_wait() -> None:
    segment = Segment.create(4096)
    lock = Lock(segment.map, 0, create=True)

    def hold_and_stop() -> None:
        with lock:
            os.kill(os.getpid(), signal.SIGSTOP)

    pid = child(hold_and_stop)
    os.waitpid(pid, os.WUNTRACED)
    try:
        began = time.monotonic()
        for _ in range(1000):
            with pytest.raises(TimeoutError), lock:
                pass
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
    assert 0.005 <= took < 1, "a wait for each of the thousand would be 5 s"
    with lock:
        pass


def test_an_error_under_the_lock_frees_it() -> None:
    segment = Segment.create(4096)
    lock = Lock(segment.map, 0, create=True)
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock, pytest.raises(TimeoutError), lock:
        pass


def test_a_place_where_no_lock_can_stand_is_refused() -> None:
    segment = Segment.create(4096)
    for offset in (-8, 4, 4096 - 32):
        with pytest.raises(ValueError, match="no lock can stand"):
            Lock(segment.map, offset)
