"""The workers as the master sees them: started, heard of, reaped, started again.

A worker writes to its pipe when it serves. One that dies later is replaced at once; one that dies
before that is tried again after a growing delay; exit code 2 says that a further try is useless.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from headgate.masterd.cycle import Cycle
from headgate.masterd.logfile import Level, failed
from headgate.masterd.zones import Slots

FATAL = 2  # exit code of a worker that can never start
FIRST_DELAY, MAX_DELAY = 0.1, 5.0  # seconds before a worker that died while starting is tried again


@dataclass(slots=True)
class Worker:
    """A child process. `index` counts the workers of a cycle; `slots` are its rows in the shared zones."""

    cycle: Cycle
    index: int
    slots: Slots
    master: int
    pid: int = 0
    pipe: int = -1  # open until the worker serves
    leaving: bool = False

    @property
    def starting(self) -> bool:
        return self.pipe >= 0

    def close_pipe(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1


class Workers:
    """All children. `run(worker, pipe)` is the life of one: called in the child, it never returns."""

    def __init__(self, run: Callable[[Worker, int], NoReturn], cycle: Cycle) -> None:
        self.run = run
        self.cycle = cycle  # the newest: only its workers are replaced
        self.live: dict[int, Worker] = {}
        self.retries: list[tuple[float, int]] = []  # when (monotonic), index
        self.delay = 0.0

    def __len__(self) -> int:
        return len(self.live)

    def start(self, cycle: Cycle) -> None:
        """Start the workers of a cycle; those of the one before go on until `retire`."""
        self.cycle = cycle
        self.retries.clear()
        cycle.log.emit(Level.NOTICE, "start worker processes")
        for index in range(cycle.config.main.worker_processes):
            self.spawn(index)

    def spawn(self, index: int) -> None:
        """Fork one worker."""
        worker, theirs = Worker(self.cycle, index, {}, master=os.getpid()), -1
        try:
            worker.slots = self.cycle.zones.claim()
            worker.pipe, theirs = os.pipe()
            # the kernel sends SIGIO when the worker writes, so the loop waits for signals only
            fcntl.fcntl(worker.pipe, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(worker.pipe, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
            worker.pid = os.fork()
        except (IndexError, OSError) as error:
            worker.close_pipe()
            self.cycle.zones.release(worker.slots)
            self.cycle.log.emit(Level.ALERT, f'fork() failed while spawning "worker process" ({error})')
            self._retry(index)
        else:
            if worker.pid == 0:
                for other in (worker, *self.live.values()):
                    other.close_pipe()
                self.cycle.leave_starter()
                self.run(worker, theirs)
            self.cycle.zones.own(worker.slots, worker.pid)
            self.cycle.log.emit(Level.NOTICE, f"start worker process {worker.pid}")
            self.live[worker.pid] = worker
        finally:
            if theirs >= 0:
                os.close(theirs)

    def _retry(self, index: int) -> None:
        self.delay = min(max(self.delay * 2, FIRST_DELAY), MAX_DELAY)
        self.retries.append((time.monotonic() + self.delay, index))

    def respawn(self) -> None:
        """Try again the workers whose delay is over."""
        now = time.monotonic()
        due = [index for at, index in self.retries if at <= now]
        self.retries = [(at, index) for at, index in self.retries if at > now]
        for index in due:
            self.spawn(index)

    def next_try(self) -> float | None:
        """The time (monotonic) of the next `respawn` that has something to do."""
        return min((at for at, _ in self.retries), default=None)

    def hear(self) -> None:
        """Read the pipes: which workers serve now. That of one that died stays open, it was still starting."""
        for worker in self.live.values():
            with contextlib.suppress(BlockingIOError):
                if worker.starting and os.read(worker.pipe, 1):
                    worker.close_pipe()
                    self.delay = 0.0

    def serving(self) -> bool:
        """Whether all workers of the newest cycle serve."""
        current = [worker for worker in self.live.values() if worker.cycle is self.cycle]
        return len(current) >= self.cycle.config.main.worker_processes and not any(w.starting for w in current)

    def retire(self, number: signal.Signals) -> None:
        """Send `number` to the workers of older cycles, which have to leave."""
        for worker in self.live.values():
            if worker.cycle is not self.cycle and not worker.leaving:
                self._kill(worker, number)

    def has(self, cycle: Cycle) -> bool:
        """Whether a worker of this cycle is still there."""
        return any(worker.cycle is cycle for worker in self.live.values())

    def tell(self, number: signal.Signals, leave: bool = True) -> None:
        """Send `number` to all; `leave`: it tells them to go, so they are not replaced."""
        for worker in self.live.values():
            self._kill(worker, number, leave)
        if leave:
            self.retries.clear()

    def _kill(self, worker: Worker, number: signal.Signals, leave: bool = True) -> None:
        try:
            os.kill(worker.pid, number)
        except OSError as error:
            self.cycle.log.emit(Level.ALERT, failed(f"kill({worker.pid}, {int(number)})", error))
        worker.leaving = worker.leaving or leave

    def reap(self) -> None:
        """Collect the dead, log how each went, replace those that should be here."""
        dead = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            worker = self.live.pop(pid, None)
            self._log_exit("worker process" if worker else "unknown process", pid, status)
            if worker is not None:
                worker.cycle.zones.release(worker.slots)
                dead.append((worker, os.waitstatus_to_exitcode(status)))
        for worker, code in dead:
            starting = worker.starting
            worker.close_pipe()
            if worker.leaving or worker.cycle is not self.cycle:
                continue
            if code == FATAL:
                text = f"worker process {worker.pid} exited with fatal code {code} and cannot be respawned"
                self.cycle.log.emit(Level.ALERT, text)
            elif starting:
                self._retry(worker.index)
            else:
                self.spawn(worker.index)

    def _log_exit(self, name: str, pid: int, status: int) -> None:
        if os.WIFSIGNALED(status):
            dumped = " (core dumped)" if os.WCOREDUMP(status) else ""
            self.cycle.log.emit(Level.ALERT, f"{name} {pid} exited on signal {os.WTERMSIG(status)}{dumped}")
        else:
            self.cycle.log.emit(Level.NOTICE, f"{name} {pid} exited with code {os.WEXITSTATUS(status)}")
