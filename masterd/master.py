"""The master: starts workers, obeys signals, replaces what dies and, on SIGHUP, the whole cycle.

It runs no event loop and no thread, so a fork copies nothing half done. All it waits for is a signal.
"""

import gc
import signal
import time

from headgate.masterd import notify, signals
from headgate.masterd.cycle import Cycle, CycleError
from headgate.masterd.logfile import Level
from headgate.masterd.signals import Event
from headgate.masterd.workers import Workers
from headgate.worker import process

KILL_AFTER = 1.0  # seconds from SIGTERM to SIGKILL


class Master:
    """The process that the pid file names."""

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.past: list[Cycle] = []  # replaced, but workers of theirs may still be here
        self.workers = Workers(process.run, cycle)
        self.code = 0
        self.quitting = False  # no worker is started any more
        self.kill_at: float | None = None  # monotonic, once terminated
        self.settled = True  # all workers of the newest cycle serve, those of the past were told to leave

    def run(self) -> int:
        """Serve until told to stop and the last worker is gone; returns the exit code."""
        self._start()
        while self.workers or not self.quitting:
            event = signals.wait(self._patience(), self._note)
            self.workers.hear()
            if Event.REAP in event:
                self._reap()
            if Event.TERMINATE in event:
                self._terminate()
            elif Event.QUIT in event:
                self._stop(signal.SIGQUIT)
            if Event.REOPEN in event:
                self._reopen()
            if Event.RELOAD in event and not self.quitting:
                self._reload()
            if Event.NOACCEPT in event and not self.quitting:
                self.workers.tell(signals.RETIRE)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self._kill()
            self.workers.respawn()
            if not self.settled and self.workers.serving():
                self._settle()
        self.cycle.end()
        return self.code

    def _start(self) -> None:
        self._start_workers()
        try:
            self.cycle.write_pid_file()
        except CycleError as error:
            self.cycle.log.emit(Level.EMERG, str(error))
            self.code = 1
            self._terminate()

    def _start_workers(self) -> None:
        # the objects of the configuration stay out of the collector's way, so forks go on sharing their pages
        gc.collect()
        gc.freeze()
        self.settled = False
        self.workers.start(self.cycle)

    def _settle(self) -> None:
        self.settled = True
        self.workers.retire(signals.RETIRE)
        notify.ready(f"{self.cycle.config.main.worker_processes} worker processes")

    def _patience(self) -> float | None:
        """Seconds to wait for a signal."""
        times = [at for at in (self.kill_at, self.workers.next_try()) if at is not None]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _note(self, line: str) -> None:
        self.cycle.log.emit(Level.NOTICE, line)

    def _reap(self) -> None:
        self.workers.reap()
        for cycle in [cycle for cycle in self.past if not self.workers.has(cycle)]:
            self.past.remove(cycle)
            self.cycle.zones.retire(cycle.zones)

    def _stop(self, number: signal.Signals) -> None:
        self.quitting = self.settled = True
        notify.stopping("stopping")
        self.workers.tell(number)
        self.cycle.listeners.close(self.cycle.log)

    def _terminate(self) -> None:
        self._stop(signal.SIGTERM)
        if self.kill_at is None:
            self.kill_at = time.monotonic() + KILL_AFTER

    def _kill(self) -> None:
        self.workers.tell(signal.SIGKILL)
        self.kill_at = time.monotonic() + KILL_AFTER

    def _reopen(self) -> None:
        self.cycle.log.emit(Level.NOTICE, "reopening logs")
        self.cycle.reopen_logs(master=True)
        self.workers.tell(signal.SIGUSR1, leave=False)

    def _reload(self) -> None:
        notify.reloading()
        new = self.cycle.successor()
        if new is None:
            notify.ready("the new configuration was refused, see the error log")
            return
        self.past.append(self.cycle)
        self.cycle = new
        gc.unfreeze()  # what only cycles of the past used can go
        self._start_workers()
