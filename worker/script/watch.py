"""Handlers that block the event loop are reported with their stack (`py_blocking_limit`).

A thread of the worker looks whether the loop still beats; when it has not for longer than the limit, the error log
gets one line with where the main thread is. The thread exists only where the configuration has Python handlers.
"""

import asyncio
import sys
import threading
import time
import traceback
from itertools import takewhile
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.masterd.logfile import ErrorLog


class Watch:
    """Watches one loop; `limit` in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: "ErrorLog", limit: float) -> None:
        self._loop = loop
        self._log = log
        self._limit = limit
        self._main = threading.get_ident()
        self._beat = time.monotonic()
        self._reported = 0.0

    def start(self) -> None:
        """Begin; in the thread of the loop."""
        self._tick()
        threading.Thread(target=self._run, name="headgate-watch", daemon=True).start()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._loop.call_later(self._limit / 4, self._tick)

    def _run(self) -> None:
        while True:
            time.sleep(self._limit / 4)
            beat = self._beat
            late = time.monotonic() - beat
            if late > self._limit and beat != self._reported:
                self._reported = beat
                frame = sys._current_frames().get(self._main)
                stack = reversed(traceback.extract_stack(frame))
                user = takewhile(lambda entry: entry.name != "serve", stack)  # below it is the loop itself
                where = " < ".join(f'{entry.name} in "{entry.filename}":{entry.lineno}' for entry in user)
                self._log.emit(Level.WARN, f"the event loop has been blocked for {late:.3f} s by {where}")
