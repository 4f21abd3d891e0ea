"""[10] The request to an upstream server: its head, and the body from memory, a file, or as it comes in.

A server may speak before it has read all. That is looked at (`process_header`); unless it was the answer, and not
only an interim response or the beginning of a head, the rest of the body follows.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headgate.worker.http.chunked import LAST_CHUNK, chunk
from headgate.worker.http.request import UPSTREAM
from headgate.worker.upstream.connect import broken

if TYPE_CHECKING:
    from headgate.worker.http.body import RequestBody
    from headgate.worker.upstream.upstream import Upstream


async def send_request(u: "Upstream") -> None:
    """Send head and body; returns early, with `u.rest` for `send_rest`, when the server speaks before that."""
    conn = u.conn
    assert conn is not None
    request = u.request
    request.action = "sending request to upstream"
    u.request_sent = True
    body = request.body
    if u.body is not None:
        conn.write(u.wire + u.body)
        u.body_sent = True
    elif body is None or not u.conf.pass_request_body:
        conn.write(u.wire)
        u.body_sent = True
    else:
        u.body_sent = False
        u.rest = _streamed(u, body) if u.streams_body else _stored(u, body)
        await send_rest(u)


async def send_rest(u: "Upstream") -> None:
    """Send more of the request: to its end, or until the server says more than it has up to now."""
    conn = u.conn
    body = u.request.body
    rest = u.rest
    assert conn is not None and body is not None and rest is not None
    heard = len(conn.data)
    for data in rest:
        if data:
            conn.write(data)
        elif len(conn.data) == heard and not conn.eof:
            await body.more(UPSTREAM)
        if conn.paused and len(conn.data) == heard and not conn.eof:
            u.worker.timers.set(conn, u.conf.send_timeout)
            while conn.paused and len(conn.data) == heard and not conn.eof:
                await u.request.wait(UPSTREAM)
            conn.deadline = 0.0
        if conn.error is not None and not conn.data:
            raise broken("writev()", conn.error)
        if len(conn.data) > heard or conn.eof:
            return
    u.rest = None
    u.body_sent = True


def _stored(u: "Upstream", body: "RequestBody") -> Iterator[bytes]:
    """Head and body, from memory or the file."""
    head = u.wire
    for data in body.stored():
        yield head + data if head else data
        head = b""
    if head:
        yield head


def _streamed(u: "Upstream", body: "RequestBody") -> Iterator[bytes]:
    """Head and body as the client sends it; b"" when more is to be waited for."""
    out = u.wire
    data = b"".join(body.chunks)  # what had come before
    body.chunks.clear()
    while not body.done:
        data += body.take()
        out += chunk(data) if u.chunked_body and data else data
        data = b""
        if body.done:
            break
        yield out
        out = b""
    if u.chunked_body:
        out += LAST_CHUNK
    if out:
        yield out
