"""[11d] After a 101: a tunnel between client and server, until both sides have ended or one has gone.

Both transports get a `_Side` as their protocol for that time: what one receives is written to the other, and a side
is not read while the other one does not take. A side's end (FIN) is passed on, and the other direction goes on; nginx
ends the tunnel there. Silence both ways for read_timeout ends it, and so does a server that takes nothing for
send_timeout; the client's own connection sees to send_timeout there, and to worker_shutdown_timeout.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from headgate.masterd.logfile import Level
from headgate.worker.http.request import UPSTREAM
from headgate.worker.upstream.connect import broken
from headgate.worker.upstream.errors import GiveUp, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.http.protocol import Connection
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.upstream import Upstream


async def tunnel(u: "Upstream") -> None:
    """Pass the head on, then bytes both ways. Raises GiveUp in a subrequest, Interrupted when the client has gone."""
    r = u.request
    if r.parent is not None:
        r.log(Level.ERROR, "connection upgrade in subrequest")
        raise GiveUp(500)
    conn = u.conn
    assert conn is not None
    r.action = "proxying upgraded connection"
    r.keepalive = False
    r.client_gone_ok = False
    r.send_head()
    r.flush()
    both = _Tunnel(u, r.conn, conn)
    try:
        while not both.done:
            await r.wait(UPSTREAM)
    except UpstreamError as timeout:
        r.log(Level.INFO, timeout.cause)
    finally:
        both.close()


class _Side(asyncio.Protocol):
    """One end of a tunnel, in the place of its connection `conn`."""

    __slots__ = ("conn", "ended", "level", "other", "tunnel")

    def __init__(self, tunnel: "_Tunnel", conn: "Connection | UpstreamConnection", level: Level) -> None:
        self.tunnel = tunnel
        self.conn = conn
        self.level = level  # of a line about its failure
        self.other: _Side = self
        self.ended = False  # it sends no more

    @property
    def transport(self) -> Any:
        return self.conn.transport

    def begin(self, data: bytes) -> None:
        """Take over; `data` has come before."""
        conn = self.conn
        conn.pause_reading()  # a transport that is reading goes on reading for the old protocol
        self.transport.set_protocol(self)
        conn.resume_reading()
        if data:
            self.data_received(data)
        if conn.eof:
            self.eof_received()
        if conn.paused:
            self.pause_writing()

    def data_received(self, data: bytes) -> None:
        self.tunnel.received(self, len(data))
        self.other.conn.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self.tunnel.ended(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self.tunnel.u.request.log(self.level, broken("recv()", exc).cause)
        self.tunnel.done = True
        self.conn.connection_lost(exc)

    def pause_writing(self) -> None:
        self.conn.pause_writing()
        self.other.transport.pause_reading()
        self.tunnel.wait()

    def resume_writing(self) -> None:
        self.conn.resume_writing()
        if not self.other.ended:
            self.other.transport.resume_reading()
        self.tunnel.wait()


class _Tunnel:
    """Both sides, and the time that they may be silent."""

    __slots__ = ("client", "done", "server", "u")

    def __init__(self, u: "Upstream", client: "Connection", server: "UpstreamConnection") -> None:
        self.u = u
        self.done = False
        self.client = _Side(self, client, Level.INFO)
        self.server = _Side(self, server, Level.ERROR)
        self.client.other, self.server.other = self.server, self.client
        early, client.reader.data = client.reader.data, b""
        behind, server.data = server.data, b""
        if server.transport.is_closing():
            client.write(behind)
            self.done = True
            return
        self.wait()
        self.client.begin(early)
        self.server.begin(behind)
        server.received -= len(behind)  # they were counted as they came

    def received(self, side: _Side, size: int) -> None:
        """Bytes have come from a side."""
        if side is self.server:
            self.u.conn.received += size  # type: ignore[union-attr]  # it is there as long as the tunnel
        self.wait()

    def wait(self) -> None:
        """Something has moved: the time of silence begins anew."""
        conn = self.u.conn
        assert conn is not None
        conf = self.u.conf
        timeout = min(conf.send_timeout, conf.read_timeout) if conn.paused else conf.read_timeout
        self.u.worker.timers.set(conn, timeout)

    def ended(self, side: _Side) -> None:
        """A side sends no more: tell the other one, unless that has ended too."""
        other = side.other
        if other.ended or not other.transport.can_write_eof():
            self.done = True
            self.u.request.wake(UPSTREAM)
        elif not other.transport.is_closing():
            other.transport.write_eof()

    def close(self) -> None:
        """Give both transports back to their connections, which close them."""
        for side in (self.client, self.server):
            side.conn.eof = side.conn.eof or side.ended
            if not side.transport.is_closing():
                side.transport.set_protocol(side.conn)
