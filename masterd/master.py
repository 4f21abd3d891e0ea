"""The master: starts workers, obeys signals, replaces what dies and, on SIGHUP, the whole cycle.

It runs no event loop and no thread, so a fork copies nothing half done. All it waits for is a signal.
"""

import gc
import signal
import time

from headgate.masterd import notify, signals
from headgate.masterd.cycle import Cycle
from headgate.masterd.logfile import Level
from headgate.masterd.signals import Event
from headgate.masterd.workers import Worker, Workers
from headgate.worker import process

KILL_AFTER = 1.0  # seconds from SIGTERM to SIGKILL


class Master:
    """The process that the pid file names."""

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.workers = Workers(process.run, cycle)
        self.quitting = False  # no worker is started any more
        self.kill_at = 0.0  # monotonic, once terminated
        self.settled = True  # all workers of the newest cycle serve, the older ones know

    def run(self) -> None:
        """Serve until told to stop and the last worker is gone."""
        self._start(self.cycle)
        while True:
            event = signals.wait(self._patience(), self._note)
            self.workers.hear()
            if Event.REAP in event:
                self.workers.reap(self._released)
            if self.quitting and not self.workers:
                return self.cycle.end()
            if self.kill_at and time.monotonic() >= self.kill_at:
                self._kill()
            if Event.TERMINATE in event and not self.kill_at:
                self._stop(signal.SIGTERM)
                self.kill_at = time.monotonic() + KILL_AFTER
            elif Event.QUIT in event and not self.quitting:
                self._stop(signal.SIGQUIT)
            if Event.REOPEN in event:
                self._reopen()
            if self.quitting:
                continue
            if Event.RELOAD in event:
                self._reload()
            if Event.NOACCEPT in event:
                self.workers.tell(signals.RETIRE)
            self.workers.respawn()
            if not self.settled and self.workers.serving():
                self._settle()

    def _start(self, cycle: Cycle) -> None:
        # the objects of the configuration stay out of the collector's way, so forks go on sharing their pages
        gc.collect()
        gc.freeze()
        self.settled = False
        self.workers.start(cycle)

    def _settle(self) -> None:
        self.settled = True
        self.workers.retire(signals.RETIRE)
        notify.ready(f"{self.cycle.config.main.worker_processes} worker processes")

    def _patience(self) -> float | None:
        """Seconds to wait for a signal."""
        times = [at for at in (self.kill_at, self.workers.next_try()) if at]
        if not times:
            return 0.0 if self.quitting and not self.workers else None
        return max(min(times) - time.monotonic(), 0.0)

    def _note(self, line: str) -> None:
        self.cycle.log.emit(Level.NOTICE, line)

    def _released(self, worker: Worker) -> None:
        pass

    def _stop(self, number: signal.Signals) -> None:
        self.quitting = True
        notify.stopping("stopping")
        self.workers.tell(number)
        self.cycle.listeners.close(self.cycle.log)

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
        else:
            self.cycle = new
            gc.unfreeze()  # what only the old cycle used can go
            self._start(new)
