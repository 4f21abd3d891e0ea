"""[11c] A large body past Python: the kernel moves it from socket to pipe to socket (splice), or through a file.

For bodies that nobody has to look at: plain on both sides, no filter, no keeper, no rate limit. The transports stand
still meanwhile; their sockets are read and written on descriptors of our own (`Tap`). A client that does not keep up
makes the pipe's bytes go to a temporary file, and sendfile brings them from there, as far as proxy_max_temp_file_size
goes; then the server waits, with no more in the pipe than `proxy_buffers` would hold or one read brought. Timeouts,
byte counts, the client's leaving and a body cut short are as in `pipe.py`.
"""

import asyncio
import os
from typing import TYPE_CHECKING

from headgate.worker.http import aio
from headgate.worker.http.request import DRAIN, UPSTREAM, Interrupted
from headgate.worker.http.tempfile import TempFile
from headgate.worker.kernel import PIPE_SIZE, READ, WRITE, Pipe, Tap
from headgate.worker.upstream.errors import UpstreamError
from headgate.worker.upstream.response import cut, cut_short, ended
from headgate.worker.upstream.spool import WARNING

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream

LEAST = 65536  # bytes still to come (or gone by already, of a body without length) that make this worth while
_PATIENCE = 0.02  # seconds that a client may be busy before its bytes go to a file


def possible(u: "Upstream") -> bool:
    """Whether the rest of this body may go by unseen; asked once."""
    r = u.request
    conn = u.conn
    assert conn is not None
    u.plain = (
        r.part is None
        and r.limiter is None
        and u.throttle is None
        and not r.body_filters
        and not r.header_only
        and conn.tls is None
        and r.conn.plain
    )
    return u.plain


async def run(u: "Upstream") -> bool:
    """Move the rest of the body; then it is with the client. False when the client is behind already, and nothing
    was done. Raises UpstreamError, Interrupted.
    """
    r = u.request
    conn = u.conn
    assert conn is not None
    conn.pause_reading()
    r.flush()
    if not await _caught_up(u):
        return False
    move = _Move(u)
    try:
        await move.run()
    finally:
        move.close()
    if move.short:
        await cut(r)
    if move.framed:
        r.conn.write(b"\r\n")
    r.send(b"", last=True)
    if r.conn.paused:
        await r.drain()
    return True


async def _caught_up(u: "Upstream") -> bool:
    """Have the client's transport write all that it has; False when the client is too busy for that."""
    r = u.request
    transport = r.conn.transport
    if r.conn.lost or not transport.get_write_buffer_size():
        return True
    timer = u.worker.loop.call_later(_PATIENCE, r.wake, DRAIN)
    transport.set_write_buffer_limits(0)
    try:
        await r.wait(DRAIN)
    finally:
        timer.cancel()
        transport.set_write_buffer_limits(u.conf.busy_size if u.bounded else None)
    return not transport.get_write_buffer_size()


class _Move:
    """One body on its way. `file` has what the client could not take; `quota` is what is left of a chunk begun."""

    __slots__ = (
        "at", "client", "conn", "dst", "file", "framed", "limit", "literal", "loop", "pipe", "quota", "request",
        "short", "slow", "src", "stuck", "timer", "u",
    )  # fmt: skip

    def __init__(self, u: "Upstream") -> None:
        conn = u.conn
        assert conn is not None
        self.u = u
        self.conn = conn
        self.request = r = u.request
        self.client = r.conn
        self.loop = u.worker.loop
        self.limit = u.conf.buffers[0] * u.conf.buffers[1]
        self.pipe = Pipe()
        self.file = TempFile(r, u.conf.temp_path)
        self.at = 0  # of the file, where the client is
        self.short = False  # the server has failed
        self.slow = False  # the client has been busy for too long
        self.stuck = False  # the pipe takes no more, or there was no more: try again when it is empty
        self.timer: asyncio.TimerHandle | None = None
        self.framed = False  # in chunks
        self.quota = 0
        self.literal = b""
        self.src = Tap(u.worker, conn.transport, READ, self._readable)
        self.dst = Tap(u.worker, self.client.transport, WRITE, self._writable)

    async def run(self) -> None:
        """To the body's end; or until all is with the client that came, when the server has failed (`short`)."""
        while not await self._step():
            try:
                await self._wait()
            except UpstreamError as error:
                self._fail(error)

    async def _step(self) -> bool:
        """Move what can be moved; whether that was the last of it."""
        u, pipe, file = self.u, self.pipe, self.file
        while True:
            moved = self._out()
            try:
                if u.conn is not None and not u.body_done and self._in():
                    moved = True
            except UpstreamError as error:
                self._fail(error)
            if pipe.held and not self.dst.ready and (self.slow or self.at < file.size) and self._spills():
                await aio.writing(self.request, self._spill)
                moved = True
            if u.body_done and u.conn is not None:
                self._release()
            if u.conn is None and not (pipe.held or self.literal or self.at < file.size):
                return True
            if not moved:
                return False

    def _out(self) -> bool:
        """To the client, from the file or the pipe; whether anything went."""
        dst, pipe, file = self.dst, self.pipe, self.file
        behind = file.size - self.at
        size = behind or pipe.held
        if not dst.ready or not (size or self.literal):
            return False
        if self.request.chunked and not self.literal:
            if not self.quota:
                self.literal = b"%b%x\r\n" % (b"\r\n" if self.framed else b"", size)
                self.quota = size
                self.framed = True
            size = min(size, self.quota)
        try:
            if self.literal:
                done = os.write(dst.fd, self.literal)
                self.literal = self.literal[done:]
            elif behind:
                done = os.sendfile(dst.fd, file.fd, self.at, size)
                self.at += done
                self.quota -= done
                if self.at == file.size:
                    os.ftruncate(file.fd, 0)
                    self.at = file.size = 0
            else:
                done = os.splice(pipe.reader, dst.fd, size)
                pipe.held -= done
                self.quota -= done
        except BlockingIOError:
            dst.ready = False
            return False
        except ConnectionError:
            raise Interrupted(499) from None
        self.client.sent += done
        return True

    def _in(self) -> bool:
        """From the server into the pipe; whether anything came."""
        u, src, pipe = self.u, self.src, self.pipe
        if not pipe.held:
            self.stuck = False
        room = self._room()
        if not src.ready or self.stuck or room <= 0:
            return False
        left = u.length
        try:
            done = os.splice(src.fd, pipe.writer, room if left is None else min(room, left))
        except BlockingIOError:
            if pipe.held:
                self.stuck = True
            else:
                src.ready = False
            return False
        except OSError as error:
            self.conn.eof = True
            self.conn.error = error
            done = 0
        if not done:
            self.conn.eof = True
            ended(u)
            return True
        pipe.held += done
        self.conn.received += done
        assert u.attempt is not None
        u.attempt.response_length += done
        if left is not None:
            u.length = left = left - done
            u.body_done = not left
        return True

    def _room(self) -> int:
        """Bytes that the pipe may take now."""
        behind = self.at < self.file.size
        if (self.dst.ready and not behind) or (behind and self._spills()):
            return PIPE_SIZE - self.pipe.held
        return self.limit - self.pipe.held

    def _spills(self) -> bool:
        u = self.u
        return u.buffering and not self.file.broken and self.file.size + self.pipe.held <= u.conf.max_temp_file_size

    def _spill(self) -> None:
        """Empty the pipe into the file; what a full disk does not take stays in the pipe."""
        file, pipe = self.file, self.pipe
        if file.fd < 0 and not file.open(WARNING):
            return
        pipe.held -= file.splice(pipe.reader, pipe.held)

    def _fail(self, error: UpstreamError) -> None:
        self.short = True
        self.src.close()
        cut_short(self.u, error)

    def _release(self) -> None:
        """All has come: the server is free before the client has taken everything."""
        self.src.close()
        self.conn.deadline = 0.0
        self.u.close_attempt(None)

    async def _wait(self) -> None:
        u, pipe, dst = self.u, self.pipe, self.dst
        if u.conn is None:
            pass
        elif self._room() > 0 and not self.stuck:
            u.worker.timers.set(self.conn, u.conf.read_timeout)
        else:  # it is not the server that is waited for
            self.conn.deadline = 0.0
        if not dst.ready and not self.client.paused:
            self.client.pause_writing()
        if self.timer is None and not dst.ready and not self.slow and (self.stuck or pipe.held >= self.limit):
            self.timer = self.loop.call_later(_PATIENCE, self._too_slow)
        await self.request.wait(DRAIN | UPSTREAM)

    # what is waited for

    def _readable(self) -> None:
        self.stuck = False
        self.request.wake(UPSTREAM)

    def _writable(self) -> None:
        self.slow = False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.client.paused:
            self.client.resume_writing()
        else:
            self.request.wake(DRAIN)

    def _too_slow(self) -> None:
        self.timer = None
        self.slow = True
        self.request.wake(UPSTREAM)

    def close(self) -> None:
        """Whatever happened, nothing of ours stays open."""
        if self.timer is not None:
            self.timer.cancel()
        self.src.close()
        self.dst.close()
        self.pipe.close()
        self.file.close()
