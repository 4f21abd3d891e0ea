"""The request body: read whole (in memory, then a temporary file) or piece by piece, or thrown away.

The size is held against client_max_body_size as it comes, `Expect: 100-continue` is answered when the body is first
wanted, and a client that stalls for client_body_timeout ends the request (408).

In memory stays what client_body_buffer_size allows, and on top of it what a connection may read ahead anyway; a
larger body goes to a file, moved there by the kernel where it can be. To $request_body the limit is exactly
client_body_buffer_size, as on nginx; $request_body_file makes the file then, if there is none yet.
"""

import os

from headgate.masterd.logfile import Level
from headgate.worker.http import aio
from headgate.worker.http.body_conf import BodyConf
from headgate.worker.http.head import HTTP_11, BadRequest
from headgate.worker.http.request import BODY, Interrupted, Request
from headgate.worker.http.tempfile import TempFile
from headgate.worker.kernel import PIPE_SIZE, READ, Pipe, Tap

READ_AHEAD = 65536  # bytes in memory beyond client_body_buffer_size
LEAST = 65536  # bytes still to come that make it worth while to have the kernel move them

_WARNING = "a client request body is buffered to a temporary file"


class RequestBody:
    """One request's body. `size` is what has been read so far: in `chunks`, or in `file` when there is one."""

    __slots__ = ("chunks", "file", "passing", "read_started", "request", "size", "streamed", "whole")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: list[bytes] = []
        self.file: TempFile | None = None
        self.size = 0
        self.read_started = False
        self.passing = False  # on its way to a server without being read first: no file is made of it
        self.whole = False  # read to its end, or thrown away
        self.streamed = False  # passed on as it came: it is gone for anybody else

    # -- for variables ---------------------------------------------------------------------------

    @classmethod
    def of(cls, request: Request, data: bytes) -> "RequestBody":
        """A body that is there already: a subrequest's own."""
        body = cls(request)
        body.chunks = [data]
        body.size = len(data)
        body.whole = True
        return body

    @property
    def received(self) -> int:
        """Bytes of the body read so far, as they came (with the chunked coding's own); not what was thrown away."""
        dropped = self.streamed and not self.size
        return self.request.conn.reader.taken if self.read_started and not dropped else 0

    @property
    def _large(self) -> bool:
        return self.size > self.request.location.core.client_body_buffer_size

    def text(self) -> bytes | None:
        """$request_body: a body that has been read and is not in a file, nor too large for the buffer."""
        if self.file is not None or not (self.chunks or self.whole) or self.streamed or self._large:
            return None
        return b"".join(self.chunks)

    def file_name(self) -> str | None:
        """$request_body_file; a body too large for the buffer is written to its file now."""
        if self.file is None and self.chunks and self._large and not self.passing:
            try:
                self._spill()
            except BadRequest:
                return None
        return self.file.name if self.file is not None else None

    # -- as it arrives ---------------------------------------------------------------------------

    def take(self) -> bytes:
        """What has arrived, b"" when nothing new has; `done` tells the end. Raises BadRequest (400, 413)."""
        if not self.read_started:
            self._begin()
        r = self.request
        data = r.conn.reader.read_body()
        if data:
            self.size += len(data)
            limit = r.location.core.client_max_body_size
            if limit and self.size > limit:  # only a chunked body's length is not known before
                text = f"{self.size - len(data)}+{len(data)} bytes"
                raise BadRequest(413, f"client intended to send too large chunked body: {text}")
        return data

    @property
    def done(self) -> bool:
        """Whether the client has sent all of it."""
        return self.read_started and self.request.conn.reader.body_done

    def _begin(self) -> None:
        self.read_started = True
        r = self.request
        if r.head.expect and r.version >= HTTP_11:
            r.conn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        r.head.expect = False

    async def more(self, events: int = BODY) -> None:
        """Wait for more to arrive (or another event); raises Interrupted (408, 400)."""
        r = self.request
        conn = r.conn
        if conn.eof:
            r.log(Level.INFO, "client prematurely closed connection")
            raise Interrupted(400)
        conn.resume_reading()
        await self.arrival(events)

    async def arrival(self, events: int = BODY) -> None:
        """Wait as `more`, while the connection is read past its transport."""
        r = self.request
        conn = r.conn
        conn.worker.timers.set(conn, r.location.core.client_body_timeout)
        action, r.action = r.action, "reading client request body"
        try:
            await r.wait(events)
        finally:
            conn.deadline = 0.0
        r.action = action

    def at_hand(self) -> bool:
        """Take what has arrived; whether that is the whole body, so that it need not be streamed."""
        if self._gone():
            return True
        self.passing = True
        return self._take_all()

    def _take_all(self) -> bool:
        data = self.take()
        while data:
            self.chunks.append(data)
            data = self.take()
        self.whole = self.done
        return self.whole

    def _gone(self) -> bool:
        """After an internal redirect: what was streamed to one server cannot be read again, so there is no body."""
        if self.streamed:
            self.size = 0
            self.whole = True
        return self.streamed

    async def discard(self) -> None:
        """Read the rest and throw it away, so that a response can follow and the connection live on."""
        while not self.done:
            if not self.take() and not self.done:
                await self.more()
        self.whole = True

    def drop(self) -> None:
        """Nobody wants it: throw away what has come, so that a broken coding is noticed. Raises BadRequest (400)."""
        if not self.read_started:
            self._begin()
            self.streamed = True
            while self.request.conn.reader.read_body():
                pass

    # -- whole -----------------------------------------------------------------------------------

    def arrived(self) -> bool:
        """Whether it has come whole already, to stay in memory: then it is taken, and there is nothing to wait for."""
        r = self.request
        length = r.head.content_length
        if length is None or self.streamed or length > len(r.conn.reader.data):
            return False
        core = r.location.core
        if length > core.client_body_buffer_size + READ_AHEAD or r.location.get(BodyConf).in_file_only != "off":
            return False
        return self._take_all()

    async def read(self) -> None:
        """Read it whole. Raises BadRequest (500 when it cannot be stored) and Interrupted."""
        if self.whole or self._gone():
            return
        r = self.request
        limit = r.location.core.client_body_buffer_size + READ_AHEAD
        length = r.head.content_length or 0
        in_file = r.location.get(BodyConf).in_file_only != "off"
        while True:
            data = self.take()
            if data:
                self.chunks.append(data)
            if (in_file or max(length, self.size) > limit) and (self.chunks or self.file is None):
                await aio.writing(r, self._spill)
            if self.done:
                break
            if self.file is not None and length - self.size >= LEAST and not data and r.conn.plain:
                await self._by_kernel(length)
            elif not data:
                await self.more()
        self.whole = True

    def _spill(self) -> None:
        """Write what is in memory to the file."""
        file = self.file or self._open()
        for data in self.chunks:
            if file.write(data) < len(data):
                raise BadRequest(500, "")  # it is logged
        self.chunks = []

    def _open(self) -> TempFile:
        r = self.request
        conf = r.location.get(BodyConf)
        keep = conf.in_file_only != "off"
        self.file = file = TempFile(r, conf.temp_path)
        if not file.open(_WARNING, keep, level=Level.NOTICE if keep else Level.WARN):
            raise BadRequest(500, "")
        if conf.in_file_only == "clean":
            r.on_finish(file.unlink)
        return file

    async def _by_kernel(self, length: int) -> None:
        """Have the rest of a body of `length` bytes moved from the socket to the file."""
        r = self.request
        conn = r.conn
        file = self.file
        assert file is not None
        conn.pause_reading()
        pipe = Pipe()
        tap = Tap(conn.worker, conn.transport, READ, lambda: r.wake(BODY))
        try:
            while self.size < length:
                count = receive(self, tap, pipe, min(PIPE_SIZE, length - self.size))
                if not count:
                    await self.arrival(BODY)
                    continue
                pipe.held -= await aio.writing(r, lambda: file.splice(pipe.reader, pipe.held))
                if pipe.held:
                    raise BadRequest(500, "")  # it is logged
        finally:
            tap.close()
            pipe.close()
        conn.resume_reading()

    async def joined(self) -> bytes:
        """All of it, once it has been read, in one piece of memory."""
        file = self.file
        if file is None:
            return b"".join(self.chunks)
        return await aio.reading(self.request, lambda: file.read(0, file.size))

    def close(self) -> None:
        """The request has ended."""
        if self.file is not None:
            self.file.close()
            self.file = None
        self.chunks = []


def receive(body: RequestBody, tap: Tap, pipe: Pipe, size: int) -> int:
    """Move up to `size` bytes of a body from the client's socket into a pipe; how many.

    0: nothing is there yet (or the pipe is full). Raises Interrupted (400) when the client has gone.
    """
    r = body.request
    try:
        count = os.splice(tap.fd, pipe.writer, size)
    except BlockingIOError:
        tap.ready = False
        return 0
    except OSError as error:
        r.log(Level.INFO, f"recv() failed ({error.errno}: {error.strerror})")
        raise Interrupted(400) from None
    if not count:
        r.log(Level.INFO, "client prematurely closed connection")
        raise Interrupted(400)
    pipe.held += count
    body.size += count
    r.conn.reader.skip(count)
    return count
