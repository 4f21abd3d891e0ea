"""Sending file regions to the client: `sendfile`, or reading and writing where the bytes must pass through us.

A small body is read at once and leaves with its head in one write. A large one goes by sendfile(2) on a
duplicate of the client's socket, once the transport has nothing left to write; the duplicate is what we may
watch, and stays ours when the transport closes. Where the bytes are not sent as they are (filters, chunks,
TLS, subrequests) they are read in pieces and sent through the request. With `aio threads` a thread waits for the
disk. A file that has become shorter cuts the connection: the client must see that something is missing.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.masterd.logfile import Level, failed
from headgate.worker.http import aio
from headgate.worker.http.request import Interrupted

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

SMALL = 65536  # bytes: up to here a body is read at once
Piece = bytes | tuple[int, int]  # literal bytes, or (offset, length) of the file

_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class SendfileConf(Conf, level=Ctx.LOCATION):
    """How files are sent. Sizes in bytes; a chunk of 0 is without limit."""

    enabled: bool = directive("sendfile", HSL | Ctx.LOCATION_IF, "flag", slots.flag, default=False)
    max_chunk: int = directive("sendfile_max_chunk", HSL, "1", slots.size, default=2 << 20)
    output_buffers: tuple[int, int] = directive("output_buffers", HSL, "2", slots.buffers, default=(2, 32768))


class _Broken(Exception):
    """The response cannot be completed: what the log is to say of it."""

    def __init__(self, level: Level, text: str) -> None:
        super().__init__(text)
        self.level = level


def send_file(r: "Request", fd: int, path: bytes, size: int) -> Awaitable[int] | None:
    """Send the body of a response whose head is made: the file, or the ranges of it that `r.ranges` wants.

    None: it is sent (or on its way), and the caller closes `fd`. Else a coroutine to go on with, which closes it.
    """
    if r.header_only or not size:
        r.send(b"", last=True)
        return None
    pieces: list[Piece] = [(0, size)] if r.ranges is None else r.ranges.pieces()
    if _total(pieces) > SMALL or r.location.get(aio.AioConf).aio is not None:
        return _answer(r, fd, path, pieces)
    try:
        if r.ranges is None:
            body = _read(fd, path, 0, size)
        else:
            body = b"".join(p if isinstance(p, bytes) else _read(fd, path, *p) for p in pieces)
    except _Broken as error:
        _end(r, error)
    else:
        r.send(body, last=True)
    return None


def _total(pieces: Iterable[Piece]) -> int:
    return sum(len(p) if isinstance(p, bytes) else p[1] for p in pieces)


async def _answer(r: "Request", fd: int, path: bytes, pieces: list[Piece]) -> int:
    conf = r.location.get(SendfileConf)
    try:
        as_it_is = r.part is None and r.limiter is None and not r.chunked and not r.body_filters
        if conf.enabled and as_it_is and _plain_socket(r):
            await _by_kernel(r, fd, path, pieces, conf.max_chunk)
        else:
            await _by_hand(r, fd, path, pieces, conf.output_buffers[0] * conf.output_buffers[1])
    except _Broken as error:
        _end(r, error)
    finally:
        os.close(fd)
    return 0


def _end(r: "Request", error: _Broken) -> None:
    r.log(error.level, str(error))
    r.keepalive = False
    r.out = None
    r.conn.abort()


def _read(fd: int, path: bytes, offset: int, length: int) -> bytes:
    try:
        data = os.pread(fd, length, offset)
    except OSError as error:
        raise _Broken(Level.CRIT, failed(f'pread() "{os.fsdecode(path)}"', error)) from None
    if len(data) != length:
        raise _Broken(Level.ALERT, f'pread() read only {len(data)} of {length} from "{os.fsdecode(path)}"')
    return data


def _refused(call: str, error: OSError) -> _Broken:
    return _Broken(Level.INFO if error.errno in _GONE else Level.ALERT, failed(call, error))


async def _by_hand(r: "Request", fd: int, path: bytes, pieces: list[Piece], step: int) -> None:
    for piece in pieces:
        last = piece is pieces[-1]
        if isinstance(piece, bytes):
            r.send(piece, last)
            continue
        offset, length = piece
        while length:
            data = await aio.reading(r, partial(_read, fd, path, offset, min(length, step)))
            offset += len(data)
            length -= len(data)
            r.send(data, last and not length)
            await r.drain()


def _plain_socket(r: "Request") -> bool:
    return r.conn.transport.get_extra_info("sslcontext") is None


async def _by_kernel(r: "Request", fd: int, path: bytes, pieces: list[Piece], max_chunk: int) -> None:
    if r.conn.lost:
        raise Interrupted(499)
    transport = r.conn.transport
    if transport.get_write_buffer_size():  # of the responses before this one
        transport.set_write_buffer_limits(0)
        await r.drain()
        transport.set_write_buffer_limits()
    try:
        out = _Out(r, os.dup(transport.get_extra_info("socket").fileno()), max_chunk)
    except OSError as error:
        raise _refused("dup()", error) from None
    head, r.out = r.out, None
    try:
        if head:
            await out.literal(head, more=True)
        for piece in pieces:
            if isinstance(piece, bytes):
                await out.literal(piece, more=piece is not pieces[-1])
            else:
                await out.region(fd, path, *piece)
    finally:
        out.close()


class _Out:
    """The client's socket, written to past its transport."""

    __slots__ = ("chunk", "conn", "left", "request", "sock", "watched")

    def __init__(self, r: "Request", fd: int, max_chunk: int) -> None:
        self.request = r
        self.conn = r.conn
        self.sock = socket.socket(r.conn.listen.address.family, socket.SOCK_STREAM, 0, fileno=fd)
        self.chunk = self.left = max_chunk or 1 << 62  # bytes before others get their turn
        self.watched = False

    async def literal(self, data: bytes, more: bool) -> None:
        """Send; `more` keeps the last packet back for what follows."""
        flags = socket.MSG_MORE if more else 0
        while data:
            try:
                sent = self.sock.send(data, flags)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                raise _refused("send()", error) from None
            self.conn.sent += sent
            data = data[sent:]

    async def region(self, fd: int, path: bytes, offset: int, length: int) -> None:
        """Send a region of a file."""
        out = self.sock.fileno()
        while length:
            if not self.left:
                await self._writable()
            try:
                sent = await aio.reading(self.request, partial(os.sendfile, out, fd, offset, min(length, self.left)))
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                raise _refused("sendfile()", error) from None
            if not sent:
                name = os.fsdecode(path)
                raise _Broken(Level.ALERT, f'sendfile() reported that "{name}" was truncated at {offset}')
            self.conn.sent += sent
            self.left -= sent
            offset += sent
            length -= sent

    async def _writable(self) -> None:
        """Wait, as for the transport's own buffer: send_timeout and the client's leaving count."""
        conn = self.conn
        conn.pause_writing()
        if not self.watched:
            self.watched = True
            conn.worker.loop.add_writer(self.sock, conn.resume_writing)
        await self.request.drain()
        if conn.lost:
            raise Interrupted(499)
        self.left = self.chunk

    def close(self) -> None:
        if self.watched:
            self.conn.worker.loop.remove_writer(self.sock)
        self.sock.close()
