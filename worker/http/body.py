"""The request body: read whole (in memory, then a temporary file) or piece by piece, or thrown away.

The size is held against client_max_body_size as it comes, `Expect: 100-continue` is answered when
the body is first wanted, and a client that stalls for client_body_timeout ends the request (408).
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.masterd.logfile import Level
from headgate.worker.http.reader import HTTP_11, BadRequest
from headgate.worker.http.request import BODY, Interrupted, Request
from headgate.worker.http.tempfile import TempPath, temp_path

if TYPE_CHECKING:
    from headgate.conf.build import Scope

FILE_PIECE = 65536  # bytes read at a time from a spilled body


class BodyConf(Conf, level=Ctx.LOCATION):
    """Where bodies go that are larger than client_body_buffer_size."""

    temp_path: TempPath = directive("client_body_temp_path", HSL, "1|2|3|4", temp_path)
    in_file_only: str = directive(
        "client_body_in_file_only", HSL, "1", slots.enum_of({"off": "off", "on": "on", "clean": "clean"}), default="off"
    )
    in_single_buffer: bool = directive("client_body_in_single_buffer", HSL, "flag", slots.flag, default=False)

    def finish(self, scope: "Scope") -> None:
        if self.temp_path is None:
            self.temp_path = TempPath.default(scope.config, "client_body_temp")


class RequestBody:
    """One request's body. `size` is what has been read so far."""

    __slots__ = ("chunks", "fd", "file_name", "path", "read_started", "reading", "request", "size", "whole")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.chunks: list[bytes] = []
        self.fd = -1
        self.file_name: str | None = None
        self.size = 0
        self.read_started = False
        self.whole = False  # read to its end, in `chunks` or the file
        self.reading = False

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
        """Bytes of the body read so far, as they came (with the chunked coding's own)."""
        return self.request.conn.reader.taken if self.read_started else 0

    def _begin(self) -> None:
        self.read_started = True
        r = self.request
        if r.head.expect and r.version >= HTTP_11:
            r.conn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        r.head.expect = False

    def take(self) -> bytes:
        """What has come of the body since the last time, b"" when nothing has. Raises BadRequest (400, 413)."""
        if not self.read_started:
            self._begin()
        r = self.request
        data = r.conn.reader.read_body()
        self.size += len(data)
        limit = r.location.core.client_max_body_size
        if limit and self.size > limit:
            raise BadRequest(413, f"client intended to send too large body: {self.size} bytes")
        return data

    @property
    def done(self) -> bool:
        """Whether all of it has been taken."""
        return self.request.conn.reader.body_done

    def preread(self) -> bool:
        """Take in what has come already; True when that is all of it. Raises BadRequest."""
        if not self.read_started:
            data = self.take()
            if data:
                self.chunks.append(data)
            self.whole = self.done
        return self.whole

    async def more(self, other: int = 0) -> None:
        """Wait until more has come, or for `other` events. Raises Interrupted (400, 408, 499)."""
        r = self.request
        conn = r.conn
        if conn.eof:
            r.log(Level.INFO, "client prematurely closed connection")
            raise Interrupted(400)
        conn.resume_reading()
        conn.worker.timers.set(conn, r.location.core.client_body_timeout)
        action, r.action = r.action, "reading client request body"
        self.reading = True
        try:
            await r.wait(BODY | other)
        finally:
            self.reading = False
            conn.deadline = 0.0
        r.action = action

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises BadRequest (400, 413) and Interrupted (400, 408, 499)."""
        while True:
            data = self.take()
            if data:
                yield data
            elif self.done:
                return
            else:
                await self.more()

    async def read(self) -> None:
        """Read it whole: in memory up to client_body_buffer_size, beyond that in a temporary file."""
        if self.whole:
            return
        location = self.request.location
        limit = location.core.client_body_buffer_size
        conf = location.get(BodyConf)
        async for data in self.pieces():
            self.chunks.append(data)
            if self.size > limit or self.fd >= 0:
                self._spill(conf)
        self.whole = True
        if conf.in_file_only != "off" and self.fd < 0:
            self._spill(conf)

    def _spill(self, conf: BodyConf) -> None:
        r = self.request
        if self.fd < 0:
            try:
                self.fd, self.file_name = conf.temp_path.create()
            except OSError as error:
                r.log(
                    Level.CRIT,
                    f'open() "{conf.temp_path.path}" failed ({error.errno}: {os.strerror(error.errno or 0)})',
                )
                raise BadRequest(500, "no temporary file for a request body") from None
            r.log(Level.WARN, f"a client request body is buffered to a temporary file {self.file_name}")
            if conf.in_file_only != "on":
                r.on_finish(self._unlink)
        try:
            for data in self.chunks:
                view = memoryview(data)
                while view:
                    view = view[os.write(self.fd, view) :]
        except OSError as error:
            r.log(Level.CRIT, f'write() "{self.file_name}" failed ({error.errno}: {os.strerror(error.errno or 0)})')
            raise BadRequest(500, "a request body could not be written to its temporary file") from None
        self.chunks = []

    def _unlink(self) -> None:
        if self.file_name is not None:
            try:
                os.unlink(self.file_name)
            except OSError as error:
                self.request.log(Level.CRIT, f'unlink() "{self.file_name}" failed ({error.errno}: {error.strerror})')

    def stored(self) -> Iterator[bytes]:
        """The whole body again, from memory or the file (for a first try and every retry)."""
        for data in self.chunks:
            yield data
        at = 0
        while self.fd >= 0:
            data = os.pread(self.fd, FILE_PIECE, at)
            if not data:
                return
            at += len(data)
            yield data

    async def discard(self) -> None:
        """Read the rest and throw it away, so that a response can follow and the connection live on."""
        async for _ in self.pieces():
            pass
        self.whole = True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.chunks = []
