"""[11b] The response's head to the client, once the upstream server's has been understood."""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http.request import Interrupted
from headgate.worker.upstream.connect import broken
from headgate.worker.upstream.errors import Kind, UpstreamError

_RESET = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")
_LOOK = 0.01  # seconds between looks

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.upstream import Upstream


def send_head(u: "Upstream") -> None:
    """Make the head; it leaves together with the first body bytes."""
    r = u.request
    if u.body_done and r.content_length is None:
        r.content_length = 0 if r.method != b"HEAD" and r.status not in (204, 304) else None
    r.disable_not_modified = True  # the upstream server has seen the conditions
    r.send_head()


def ended(u: "Upstream") -> None:
    """The server has closed its connection. Raises UpstreamError unless that was the body's end."""
    assert u.conn is not None
    if u.conn.error is not None:
        raise broken("recv()", u.conn.error)
    if not u.protocol.eof(u):
        raise UpstreamError(Kind.ERROR, "upstream prematurely closed connection")
    u.body_done = True


def cut_short(u: "Upstream", error: UpstreamError) -> None:
    """No more of the body will come: say so and let go of the server, while the client gets what there is.

    As on nginx the peer is not blamed: its head was good.
    """
    u.request.log(Level.ERROR, error.cause)
    u.keepalive = False
    u.close_attempt(None)


async def cut(r: "Request") -> None:
    """End a response that cannot be completed: what there is of it is delivered first. Raises Interrupted."""
    main = r.main
    if r is not main and r.part is not None and not r.part.in_order:
        raise Interrupted(r.status)
    main.flush()
    await r.written()
    if not main.chunked and main.content_length is None and not r.conn.lost:
        # nothing but the connection's end tells the client where the body ends: it must not look like one
        sock = r.conn.transport.get_extra_info("socket")
        await _delivered(r, sock.fileno())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    raise Interrupted(r.status)


async def _delivered(r: "Request", fd: int) -> None:
    """Wait until the client's kernel has everything (a reset takes what has not left), while it takes some."""
    loop = r.conn.worker.loop
    last, until = -1, 0.0
    while not r.conn.lost:
        (left,) = _INT.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INT.size)))
        if left != last:
            last, until = left, loop.time() + r.location.core.send_timeout
        if not left or loop.time() > until:
            return
        await asyncio.sleep(_LOOK)
