"""Bytes that the kernel moves (splice, sendfile): sockets past their transports, and pipes between them.

Readiness comes from one edge-triggered epoll set a worker, itself watched by the event loop: once a descriptor is in
it, going on and stopping cost no system call. Whoever is told tries until EAGAIN before waiting again.
"""

import contextlib
import fcntl
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.worker.http.server import HttpWorker

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
PIPE_SIZE = 1 << 20  # bytes; where the system grants less, that is taken

_AT_ONCE = 256  # events taken in one go
_KEPT_PIPES = 64


class _Poller:
    """The epoll set of one worker."""

    __slots__ = ("_epoll", "_taps")

    def __init__(self, worker: "HttpWorker") -> None:
        self._epoll = select.epoll()
        self._taps: dict[int, Tap] = {}
        worker.loop.add_reader(self._epoll.fileno(), self._ready)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, _AT_ONCE):
            tap = self._taps.get(fd)
            if tap is not None:
                tap.ready = True
                tap.wake()

    def add(self, tap: "Tap", events: int) -> None:
        self._taps[tap.fd] = tap
        self._epoll.register(tap.fd, events | select.EPOLLET)

    def remove(self, tap: "Tap") -> None:
        del self._taps[tap.fd]
        self._epoll.unregister(tap.fd)


_pollers: dict[int, _Poller] = {}  # by the event loop's id; made after the fork


class Tap:
    """One direction of a transport's socket, past the transport, on a descriptor of our own.

    The transport must not be reading (or must have nothing to write) meanwhile. `ready` until a call says EAGAIN: set
    it to False then, and `wake` is called when it is worth trying again.
    """

    __slots__ = ("_poller", "fd", "ready", "wake")

    def __init__(self, worker: "HttpWorker", transport: Any, events: int, wake: Callable[[], object]) -> None:
        key = id(worker.loop)
        poller = _pollers.get(key)
        if poller is None:
            poller = _pollers[key] = _Poller(worker)
        self.fd = os.dup(transport.get_extra_info("socket").fileno())  # ours, whatever becomes of the transport
        self.ready = True
        self.wake = wake
        self._poller = poller
        poller.add(self, events)

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            self._poller.remove(self)
            os.close(self.fd)
            self.fd = -1


class Pipe:
    """A pipe that never blocks; `held` bytes are in it."""

    __slots__ = ("held", "reader", "writer")

    _empty: "list[tuple[int, int]]" = []  # for the next one

    def __init__(self) -> None:
        self.held = 0
        if Pipe._empty:
            self.reader, self.writer = Pipe._empty.pop()
            return
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a user's pipes may have used up what pipe-user-pages-soft allows
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def close(self) -> None:
        """Give it back for another body if nothing is left in it. Idempotent."""
        if self.reader < 0:
            return
        if not self.held and len(Pipe._empty) < _KEPT_PIPES:
            Pipe._empty.append((self.reader, self.writer))
        else:
            os.close(self.reader)
            os.close(self.writer)
        self.reader = self.writer = -1
        self.held = 0
