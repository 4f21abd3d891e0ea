"""[10] The request to an upstream server: its head, and the body from memory, a file, or as it comes in."""

from typing import TYPE_CHECKING

from headgate.worker.http.chunked import LAST_CHUNK, chunk
from headgate.worker.http.request import UPSTREAM
from headgate.worker.upstream.connect import broken

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


async def send_request(u: "Upstream") -> None:
    """Send head and body; returns early when the server answers before it has read all."""
    conn = u.conn
    assert conn is not None
    request = u.request
    request.action = "sending request to upstream"
    u.request_sent = True
    body = request.body
    if u.body is not None:
        conn.write(u.wire + u.body)
        u.body_sent = True
        return
    if body is None or not u.conf.pass_request_body:
        conn.write(u.wire)
        u.body_sent = True
        return
    u.body_sent = False
    if u.streams_body:
        conn.write(u.wire)
        async for data in body.pieces():
            conn.write(chunk(data) if u.chunked_body else data)
            if await _blocked(u):
                return
        if u.chunked_body:
            conn.write(LAST_CHUNK)
    else:
        first = True
        async for data in body.stored():
            conn.write(u.wire + data if first else data)
            first = False
            if await _blocked(u):
                return
        if first:
            conn.write(u.wire)
    u.body_sent = True


async def _blocked(u: "Upstream") -> bool:
    """Wait while the server does not read; True when it has answered (or closed) meanwhile."""
    conn = u.conn
    assert conn is not None
    if conn.paused and not conn.data and not conn.eof:
        u.worker.timers.set(conn, u.conf.send_timeout)
        while conn.paused and not conn.data and not conn.eof:
            await u.request.wait(UPSTREAM)
        conn.deadline = 0.0
    if conn.error is not None and not conn.data:
        raise broken("writev()", conn.error)
    return bool(conn.data) or conn.eof
