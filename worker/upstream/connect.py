"""[9] Connections to upstream servers: TCP or Unix-domain, non-blocking, with nginx's error texts."""

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from headgate.masterd.logfile import Level
from headgate.worker.http.request import UPSTREAM
from headgate.worker.outbox import Writer
from headgate.worker.timers import Timed
from headgate.worker.tls.layer import TlsError
from headgate.worker.upstream.errors import GiveUp, Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.tls.layer import TlsLayer
    from headgate.worker.upstream.group import PeerAddress
    from headgate.worker.upstream.keepalive import Keepalive
    from headgate.worker.upstream.upstream import Upstream

READ_AHEAD: Final = 65536  # bytes received and not yet passed on, before reading is paused
# What one read may bring, for all connections of the worker in turn: so much a request may hold beyond its buffers.
ROOM: Final = memoryview(bytearray(32768))
LITTLE_ROOM: Final = ROOM[:8192]  # while the client is behind


class UpstreamConnection(Writer):  # an asyncio.BufferedProtocol, but a compiled class can only have compiled bases
    """One connection to a peer. `data` is what was received and not yet taken; `owner` uses it now."""

    __slots__ = (
        "all", "cache", "data", "eof", "error", "made", "owner", "paused", "reading", "received", "requests", "room",
        "tls",
    )  # fmt: skip

    def __init__(self, owner: "Upstream", made: float) -> None:
        super().__init__(owner.worker.outbox)
        self.owner: Upstream | None = owner
        self.all = owner.worker.backends
        self.all.add(self)
        self.cache: Keepalive | None = None
        self.tls: TlsLayer | None = None  # what is between the transport and us
        self.data = b""
        self.eof = False
        self.error: OSError | None = None
        self.paused = False  # the server does not read: its write buffer is full
        self.reading = True
        self.room = ROOM
        self.requests = 0
        self.received = 0
        self.made = made

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, hint: int) -> memoryview:
        return self.room

    def buffer_updated(self, size: int) -> None:
        self.data_received(bytes(self.room[:size]))

    def data_received(self, data: bytes) -> None:
        owner = self.owner
        if owner is None:
            self.close()  # nobody asked for this
            return
        owner.worker.timers.refresh()
        self.data = self.data + data if self.data else data
        self.received += len(data)
        owner.request.wake(UPSTREAM)
        if len(self.data) > READ_AHEAD and self.reading and self.owner is not None:
            self.reading = False
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.eof = True
        if self.owner is None:
            self.close()
        else:
            self.owner.request.wake(UPSTREAM)
        return True  # what was received before is still wanted

    def connection_lost(self, exc: Exception | None) -> None:
        self.all.discard(self)
        self.eof = True
        self.deadline = 0.0
        self.paused = False
        self.drop_held()
        if isinstance(exc, OSError):
            self.error = exc
        if self.owner is None:
            self.close()
        else:
            self.owner.request.wake(UPSTREAM)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.owner is not None:
            self.owner.request.wake(UPSTREAM)

    def on_deadline(self) -> None:
        if self.owner is None:
            self.close()
        else:
            self.owner.timed_out()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self.queue(data)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            if not self.transport.is_closing():
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def close(self) -> None:
        """Close now; what was queued is dropped, what comes is ignored. Idempotent."""
        self.owner = None
        self.deadline = 0.0
        if self.cache is not None:
            self.cache.forget(self)
            self.cache = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.abort() if self.paused else self.transport.close()

    def give_way(self) -> None:
        """Close an idle connection, whose place is free from now on."""
        self.close()
        self.all.discard(self)


# what networks do now and then is an [error]; anything else tells of a wrong configuration, or a bug
_USUAL = frozenset((
    errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENETDOWN,
    errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
))  # fmt: skip


def broken(what: str, error: OSError) -> UpstreamError:
    """A connection has ended with `error` in the call `what`."""
    if isinstance(error, TlsError):
        return UpstreamError(Kind.ERROR, error.strerror or "")
    return failed(what, error.errno or 0)


def failed(what: str, number: int, unusual: Level = Level.ALERT) -> UpstreamError:
    """`connect() failed (111: Connection refused)`; `unusual` is the level of errors that networks do not make."""
    level = Level.ERROR if number in _USUAL else unusual
    return UpstreamError(Kind.ERROR, f"{what} failed ({number}: {os.strerror(number)})", level)


async def open_connection(u: "Upstream", address: "PeerAddress", timeout: float) -> UpstreamConnection:
    """Connect to a peer within `timeout` seconds. Raises UpstreamError, or GiveUp when there is no socket to be had."""
    worker = u.worker
    loop = worker.loop
    if not worker.room():
        u.request.log(Level.ALERT, f"{worker.limit} worker_connections are not enough")
        raise GiveUp(500)
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        u.request.log(Level.ALERT, f"socket() failed ({error.errno}: {error.strerror})")
        raise GiveUp(500) from None
    taken = False  # the socket is a transport's
    started = loop.time()
    try:
        if u.conf.socket_options is not None:
            u.conf.socket_options.apply(u, sock, address)
        number = sock.connect_ex(address.sockaddr)
        if number in (errno.EINPROGRESS, errno.EINTR):
            await _writable(u, sock, timeout)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise failed("connect()", number)
        elif number:
            raise failed(f"connect() to {address.text}", number, Level.CRIT)
        conn = UpstreamConnection(u, loop.time())
        tls = u.tls
        layer = None if tls is None else tls.layer(u, conn, address.name)
        conn.tls = layer
        taken = True
        try:
            await _transport(loop, conn if layer is None else layer, sock)
        except BaseException:
            worker.backends.discard(conn)
            raise
    finally:
        if not taken:
            sock.close()
    if tls is None or layer is None:
        return conn
    try:
        await tls.handshake(u, conn, layer, timeout - (loop.time() - started))
    except BaseException:
        conn.close()
        raise
    return conn


async def _transport(loop: asyncio.AbstractEventLoop, protocol: Any, sock: socket.socket) -> None:
    """Make a transport; in a task, for uvloop does not survive one that is closed while it is being made."""
    task = loop.create_task(loop.create_connection(lambda: protocol, sock=sock))
    try:
        await task
    except BaseException:
        task.add_done_callback(_abandon)
        raise


def _abandon(task: "asyncio.Task[Any]") -> None:
    """Nobody wants the transport any more."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()


class _Waiter(Timed):
    """A deadline for the time between connect() and its result."""

    __slots__ = ("u",)

    def __init__(self, u: "Upstream") -> None:
        super().__init__()
        self.u: Upstream | None = u  # None once there is a result: the timers keep the waiter until its time comes

    def on_deadline(self) -> None:
        if self.u is not None:
            self.u.timed_out()


async def _writable(u: "Upstream", sock: socket.socket, timeout: float) -> None:
    worker = u.worker
    waiter = _Waiter(u)
    loop = worker.loop
    loop.add_writer(sock, u.request.wake, UPSTREAM)
    worker.timers.set(waiter, timeout)
    try:
        await u.request.wait(UPSTREAM)
    finally:
        waiter.deadline = 0.0
        waiter.u = None
        loop.remove_writer(sock)
