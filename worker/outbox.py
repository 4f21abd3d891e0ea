"""Writes held back until the event loop has called all whose turn it is; then they leave one after the other.

A write wakes whoever waits for it. Made between the requests of one turn of the loop, each write wakes a process that
has gone to sleep again since the last one; made together, most of them find theirs awake, and that is what costs.
What one connection writes in a turn leaves in one call, too.

Nothing else is ever late: who wants a connection's transport, to close it or to write past it, gets it with nothing
held back.
"""

import asyncio
from typing import Any, Final

from headgate.worker.timers import Timed

# Bytes that one connection holds back; more leaves at once, while it is in the CPU's cache. It is far less than what
# makes a transport say that it is full (64 kB), so that holding back hides no full one.
HOLD: Final = 16384
TOGETHER: Final = 64  # connections that are waited for


class Outbox:
    """The connections of a worker that hold something back."""

    __slots__ = ("_full", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._full: list[Writer] = []

    def add(self, writer: "Writer") -> None:
        full = self._full
        full.append(writer)
        if len(full) == 1:
            self._loop.call_soon(self.send)
        elif len(full) == TOGETHER:
            self.send()

    def send(self) -> None:
        """Write what is held back."""
        full = self._full
        self._full = []
        for writer in full:
            try:
                writer.send_held()
            except Exception as error:
                self._loop.call_exception_handler({"message": "a write failed", "exception": error})


class Writer(Timed):
    """A connection: what it writes leaves at the end of the loop's turn."""

    __slots__ = ("_held", "_outbox", "_size", "_transport", "sent")

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self.sent = 0  # bytes written so far
        self._outbox = outbox
        self._transport: Any = None
        self._held: list[bytes] | None = None
        self._size = 0

    @property
    def transport(self) -> Any:
        """The transport, which has been given all that was written."""
        if self._held is not None:
            self.send_held()
        return self._transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport

    def queue(self, data: bytes) -> None:
        """Write, at the end of the turn at the latest."""
        size = len(data)
        self.sent += size
        held = self._held
        if held is None:
            self._held = [data]
            self._size = size
            self._outbox.add(self)
        else:
            held.append(data)
            self._size += size
        if self._size > HOLD:
            self.send_held()

    def send_held(self) -> None:
        """Write now."""
        held = self._held
        if held is None:
            return
        self._held = None
        if len(held) == 1:
            self._transport.write(held[0])
        elif self._size <= HOLD:
            self._transport.write(b"".join(held))
        else:
            self._transport.writelines(held)

    def drop_held(self) -> None:
        """There is nobody to write to any more."""
        self._held = None
