"""Reaping and replacing, with real forks of something that is no worker."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from headgate.masterd import signals
from headgate.masterd.logfile import ErrorLog, Level, LogFile, LogTarget
from headgate.masterd.workers import Worker, Workers
from headgate.masterd.zones import Zones

from tests.harness import until

Life = Callable[[Worker, int], NoReturn]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    file = LogFile(str(tmp_path / "error.log"))
    file.open()
    yield ErrorLog([LogTarget(file, Level.DEBUG)])
    file.close()


def cycle(log: ErrorLog, count: int = 1) -> Any:
    config = SimpleNamespace(main=SimpleNamespace(worker_processes=count))
    return SimpleNamespace(log=log, zones=Zones(), config=config, leave_starter=lambda: None)


# A pipe's signal would end the process. It is blocked before there is any thread that could get it: faulthandler
# starts one for each test, which blocks signals itself, but not at once.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})


@pytest.fixture
def started(log: ErrorLog) -> Iterator[Callable[..., Workers]]:
    made: list[Workers] = []

    def start(life: Life, count: int = 1) -> Workers:
        workers = Workers(life, cycle(log, count))
        made.append(workers)
        workers.start(workers.cycle)
        return workers

    yield start
    for workers in made:
        for worker in workers.live.values():
            os.kill(worker.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
            worker.close_pipe()
    while signal.sigtimedwait({signal.SIGIO}, 0):
        pass


def serve(worker: Worker, pipe: int) -> NoReturn:
    os.write(pipe, b"1")
    signal.pause()
    os._exit(0)


def stumble(worker: Worker, pipe: int) -> NoReturn:
    os._exit(1)


def give_up(worker: Worker, pipe: int) -> NoReturn:
    os._exit(2)


def text(log: ErrorLog) -> str:
    return Path(log.targets[0].file.path).read_text()


def heard(workers: Workers) -> bool:
    workers.hear()
    return workers.serving()


def reaped(workers: Workers, gone: int) -> bool:
    workers.reap()
    return gone not in workers.live


def test_serving_once_all_have_said_so(started: Callable[..., Workers]) -> None:
    workers = started(serve, 3)
    until(lambda: heard(workers), "three workers")
    assert len(workers) == 3
    assert all(worker.pipe == -1 for worker in workers.live.values())


def test_a_word_from_a_worker_is_a_signal(started: Callable[..., Workers]) -> None:
    workers = started(serve)
    assert signal.sigtimedwait({signal.SIGIO}, 10)
    until(lambda: heard(workers), "the worker")


def test_killed_worker_is_replaced_at_once(started: Callable[..., Workers], log: ErrorLog) -> None:
    workers = started(serve, 2)
    until(lambda: heard(workers), "two workers")
    victim = next(iter(workers.live.values()))
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: reaped(workers, victim.pid), "the dead")
    assert len(workers) == 2
    assert {worker.index for worker in workers.live.values()} == {0, 1}
    assert f"[alert] {os.getpid()}#{os.getpid()}: worker process {victim.pid} exited on signal 9" in text(log)


def test_worker_that_dies_while_starting_is_tried_again_later(started: Callable[..., Workers], log: ErrorLog) -> None:
    workers = started(stumble)
    delays = []
    for _ in range(3):
        (pid,) = workers.live
        until(lambda pid=pid: reaped(workers, pid), "the dead")
        assert not workers.live
        at = workers.next_try()
        assert at is not None
        delays.append(workers.delay)
        workers.respawn()
        assert not workers.live, "not yet"
        time.sleep(max(at - time.monotonic(), 0))
        workers.respawn()
    assert delays == [0.1, 0.2, 0.4]
    assert text(log).count("exited with code 1") == 3


def test_fatal_code_is_not_tried_again(started: Callable[..., Workers], log: ErrorLog) -> None:
    workers = started(give_up)
    (pid,) = workers.live
    until(lambda: reaped(workers, pid), "the dead")
    assert workers.next_try() is None
    assert f"worker process {pid} exited with fatal code 2 and cannot be respawned" in text(log)
    assert not workers.serving()


def test_told_to_leave_is_not_replaced(started: Callable[..., Workers]) -> None:
    workers = started(serve)
    (pid,) = workers.live
    workers.tell(signal.SIGKILL)
    until(lambda: reaped(workers, pid), "the dead")
    assert len(workers) == 0


def test_old_workers_leave_when_the_new_ones_serve(started: Callable[..., Workers], log: ErrorLog) -> None:
    workers = started(serve)
    until(lambda: heard(workers), "the old worker")
    (old,) = workers.live
    new = cycle(log, 2)
    workers.start(new)
    until(lambda: heard(workers), "the new workers")
    workers.retire(signal.SIGKILL)
    until(lambda: reaped(workers, old), "the old worker's end")
    assert {worker.cycle is new for worker in workers.live.values()} == {True}
    assert len(workers) == 2


def test_old_worker_that_dies_is_not_replaced_by_another_old_one(
    started: Callable[..., Workers], log: ErrorLog
) -> None:
    workers = started(serve)
    until(lambda: heard(workers), "the old worker")
    (old,) = workers.live
    workers.start(cycle(log, 1))
    os.kill(old, signal.SIGKILL)
    until(lambda: reaped(workers, old), "the dead")
    assert len(workers) == 1


def test_child_of_somebody_else_is_reaped_and_named(started: Callable[..., Workers], log: ErrorLog) -> None:
    workers = started(serve)
    other = os.fork()
    if other == 0:
        os._exit(3)
    until(lambda: reaped(workers, other) and f"unknown process {other} exited with code 3" in text(log), "the dead")


def test_signals_are_kept_until_asked_for() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(_collect())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _collect() -> int:
    """In a child: 0 when the signals set their bits and nothing else happens."""
    signals.block()
    me = os.getpid()
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGWINCH):
        os.kill(me, number)
    said: list[str] = []
    event = signals.wait(None, said.append)
    if event != signals.Event.RELOAD | signals.Event.TERMINATE | signals.Event.NOACCEPT:
        return 1
    if f"signal 1 (SIGHUP) received from {me}, reconfiguring" not in said or len(said) != 3:
        return 2
    return 3 if signals.wait(0.0, said.append) else 0
