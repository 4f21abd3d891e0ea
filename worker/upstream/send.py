"""[10] The request to an upstream server: its head, and the body from memory, a file, or as the client sends it.

A body that fits leaves with the head in one write. Any other is a `Sender`'s: it goes on until the body is sent or
the server says something, so that an answer that comes early (an interim one too) is looked at in between; whoever
has looked lets it go on. A server that does not take the body within send_timeout ends the attempt.

Where both sides are plain the kernel moves the bytes: sendfile from the body's file, splice from client to server.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from headgate.worker.http import aio
from headgate.worker.http.body import LEAST, receive
from headgate.worker.http.chunked import LAST_CHUNK, chunk
from headgate.worker.http.request import BODY, UPSTREAM
from headgate.worker.kernel import PIPE_SIZE, READ, WRITE, Pipe, Tap
from headgate.worker.upstream.connect import broken

if TYPE_CHECKING:
    from headgate.worker.http.body import RequestBody
    from headgate.worker.upstream.upstream import Upstream


def send_request(u: "Upstream") -> "Coroutine[Any, Any, object] | None":
    """Send head and body. None: all is written, and taken; else what to await for that.

    That returns early, with u.sender set, when the server says something before it has all.
    """
    conn = u.conn
    assert conn is not None
    request = u.request
    request.action = "sending request to upstream"
    u.request_sent = True
    body = request.body
    if u.body is not None:
        conn.write(u.wire + u.body)
    elif body is None or not u.conf.pass_request_body:
        conn.write(u.wire)
    elif u.streams_body or body.file is not None:
        u.body_sent = False
        u.sender = sender = _Stream(u, body) if u.streams_body else _Stored(u, body)
        return sender.run()
    else:
        conn.write(u.wire)
        for piece in body.chunks:
            conn.write(piece)
    u.body_sent = True
    return _taken(u) if conn.paused else None


async def _taken(u: "Upstream") -> bool:
    """Wait while the server does not read; False when it has said something, or closed. Raises UpstreamError."""
    conn = u.conn
    assert conn is not None
    said = conn.data
    if conn.paused and not conn.eof:
        u.worker.timers.set(conn, u.conf.send_timeout)
        while conn.paused and conn.data is said and not conn.eof:
            await u.request.wait(UPSTREAM)
        conn.deadline = 0.0
    if conn.error is not None and not conn.data:
        raise broken("writev()", conn.error)
    return conn.data is said and not conn.eof


class Sender(ABC):
    """A body on its way to the server, its head going first."""

    __slots__ = ("body", "conn", "tap", "u")

    def __init__(self, u: "Upstream", body: "RequestBody") -> None:
        assert u.conn is not None
        self.u = u
        self.conn = u.conn
        self.body = body
        self.tap: Tap | None = None  # the server's socket, when the kernel writes to it

    @abstractmethod
    async def run(self) -> None:
        """Go on; returns when u.body_sent is set, or the server has said something new."""

    def close(self) -> None:
        """Sent, or not wanted any more. Idempotent."""
        if self.tap is not None:
            self.tap.close()
            self.tap = None

    def _sent(self) -> None:
        self.close()
        self.u.body_sent = True
        self.u.sender = None

    def _ready(self) -> None:
        """The server's socket takes more."""
        self.conn.paused = False
        self.u.request.wake(UPSTREAM)

    async def _past_transport(self) -> bool:
        """Have the transport write all that it has, and make the tap; False as `_taken`."""
        transport = self.conn.transport
        if transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)
            free = await _taken(self.u)
            transport.set_write_buffer_limits()
            if not free:
                return False
        self.tap = Tap(self.u.worker, transport, WRITE, self._ready)
        return True

    def _failed(self, what: str, error: OSError) -> None:
        """A write past the transport has failed: the transport sees it too, after what came before."""
        self.conn.eof = True
        self.conn.error = self.conn.error or error
        if not self.conn.data:
            raise broken(what, error)


class _Stored(Sender):
    """From the body's file."""

    __slots__ = ("at",)

    def __init__(self, u: "Upstream", body: "RequestBody") -> None:
        super().__init__(u, body)
        self.at = 0
        self.conn.write(u.wire)

    async def run(self) -> None:
        file = self.body.file
        conn = self.conn
        assert file is not None
        if conn.tls is None and self.tap is None and not await self._past_transport():
            return
        while self.at < file.size:
            if not await _taken(self.u):
                return
            if self.tap is None:
                data = await aio.reading(self.u.request, partial(file.read, self.at))
                conn.write(data)
                self.at += len(data)
                continue
            try:
                count = os.sendfile(self.tap.fd, file.fd, self.at, file.size - self.at)
            except BlockingIOError:
                conn.paused = True
                continue
            except OSError as error:
                self._failed("sendfile()", error)
                return
            self.at += count
            conn.sent += count
        if await _taken(self.u):
            self._sent()


class _Stream(Sender):
    """As the client sends it; what had come before is in body.chunks."""

    __slots__ = ("ended", "pipe", "source", "started")

    def __init__(self, u: "Upstream", body: "RequestBody") -> None:
        super().__init__(u, body)
        self.source: Tap | None = None  # the client's socket, when the kernel reads from it
        self.pipe: Pipe | None = None
        self.started = False
        self.ended = False

    async def run(self) -> None:
        u, body, conn = self.u, self.body, self.conn
        if not self.started:
            self.started = True
            first = b"".join(body.chunks)
            conn.write(u.wire + self._framed(first))
            body.chunks = []
            body.streamed = True
        length = u.request.head.content_length or 0
        while True:
            if not await _taken(u):
                return
            if self.pipe is not None:
                if not await self._splice(self.pipe, length):
                    return
                break
            if self.ended:
                break
            wire = self._framed(body.take())
            self.ended = body.done
            if self.ended and u.chunked_body:
                wire += LAST_CHUNK
            if wire:
                conn.write(wire)
            elif not self.ended and length - body.size >= LEAST and conn.tls is None and u.request.conn.plain:
                if not await self._past_transport():
                    return
                self._take_over()
            elif not self.ended:
                said = conn.data
                await body.more(BODY | UPSTREAM)
                if conn.data is not said or conn.eof:
                    return
        self._sent()

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self.u.chunked_body and data else data

    def _take_over(self) -> None:
        """From here on the kernel moves the body."""
        client = self.u.request.conn
        client.pause_reading()
        self.pipe = Pipe()
        self.source = Tap(self.u.worker, client.transport, READ, lambda: self.u.request.wake(BODY))

    async def _splice(self, pipe: Pipe, length: int) -> bool:
        """Client to server through the pipe, to the body's end; False when the server has said something."""
        body, conn, source, tap = self.body, self.conn, self.source, self.tap
        assert source is not None and tap is not None
        while pipe.held or body.size < length:
            if pipe.held:
                try:
                    count = os.splice(pipe.reader, tap.fd, pipe.held)
                except BlockingIOError:
                    conn.paused = True
                    if not await _taken(self.u):
                        return False
                    continue
                except OSError as error:
                    self._failed("splice()", error)
                    return False
                pipe.held -= count
                conn.sent += count
            elif not receive(body, source, pipe, min(PIPE_SIZE, length - body.size)):
                said = conn.data
                await body.arrival(BODY | UPSTREAM)
                if conn.data is not said or conn.eof:
                    return False
        return True

    def close(self) -> None:
        super().close()
        if self.source is not None and self.pipe is not None:
            self.source.close()
            self.pipe.close()
            self.source = self.pipe = None
            self.u.request.conn.resume_reading()
