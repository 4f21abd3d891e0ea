"""What a client has not taken yet of a buffered response: in memory as far as the buffers go, then in a file.

The file's bytes are older than those in memory. When neither may grow, or the disk is full, the spool is `full` and
the server waits. Once the client has caught up the file is cut to nothing, so that its limit is one on what is held,
not on how much went by. A response that is to be kept (`Keeper`) is wholly in the keeper's file, and the client is
served from there.
"""

import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

from headgate.worker.http.tempfile import TempFile

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream

WARNING = "an upstream response is buffered to a temporary file"


class Keeper(Protocol):
    """What wants a whole response for itself: proxy_store, a cache. `file` is open; it takes every byte of the body."""

    file: TempFile

    def done(self, complete: bool) -> None:
        """The response has ended, once: keep the file, or drop it."""


class Spool:
    """The backlog of one response; false when there is none."""

    __slots__ = ("_at", "_conf", "_keeps", "_memory", "_queue", "file")

    def __init__(self, u: "Upstream", kept: TempFile | None = None) -> None:
        self._conf = u.conf
        self._keeps = kept is not None
        self._queue: deque[bytes] = deque()
        self._memory = 0  # bytes in the queue
        self._at = 0  # of the file, where the client is
        self.file = TempFile(u.request, u.conf.temp_path) if kept is None else kept

    def __bool__(self) -> bool:
        return self._memory > 0 or self._at < self.file.size

    @property
    def spills(self) -> bool:
        """Whether the file may take more."""
        return not self.file.broken and (self._keeps or self.file.size < self._conf.max_temp_file_size)

    @property
    def full(self) -> bool:
        """Whether the server has to wait."""
        count, each = self._conf.buffers
        return self._memory >= count * each and not self.spills

    def put(self, data: bytes) -> None:
        """Add to the backlog, in memory."""
        if data:
            self._queue.append(data)
            self._memory += len(data)

    @property
    def over(self) -> bool:
        """Whether it is time to `spill`."""
        count, each = self._conf.buffers
        return (self._memory > 0 if self._keeps else self._memory >= count * each) and self.spills

    def spill(self) -> None:
        """Write what is in memory to the file; what it does not take stays."""
        file = self.file
        if file.fd < 0 and not file.open(WARNING):
            return
        room = self._memory if self._keeps else self._conf.max_temp_file_size - file.size
        step = self._conf.write_size
        while self._queue and room > 0 and not file.broken:
            left = memoryview(self._queue.popleft())
            while left and room > 0:
                piece = left[: min(step, room)]
                done = file.write(piece)
                self._memory -= done
                room -= done
                left = left[done:]
                if done < len(piece):
                    break
            if left:
                self._queue.appendleft(bytes(left))

    def take(self) -> bytes:
        """The next bytes for the client. Raises OSError when the file cannot be read."""
        file = self.file
        if self._at < file.size:
            data = file.read(self._at)
            self._at += len(data)
            if self._at == file.size and not self._keeps:
                os.ftruncate(file.fd, 0)
                file.size = self._at = 0
            return data
        data = self._queue.popleft()
        self._memory -= len(data)
        return data

    def skip(self) -> None:
        """The client has gone: nothing is for it any more."""
        self._at = self.file.size

    def close(self) -> None:
        """Let go of what is left; a kept file stays with its keeper."""
        if not self._keeps:
            self.file.close()
