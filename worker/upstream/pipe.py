"""[11c] The response body: from the upstream server to the client, with flow control both ways.

A body that is cut short is made visible: the client's connection is aborted, never ended cleanly.
"""

from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http.request import UPSTREAM, Interrupted
from headgate.worker.upstream.connect import broken
from headgate.worker.upstream.errors import Kind, UpstreamError
from headgate.worker.upstream.throttle import throttle

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


async def run(u: "Upstream") -> None:
    """Pass the body on to its end. Raises Interrupted when the client has gone."""
    conn = u.conn
    r = u.request
    attempt = u.attempt
    assert conn is not None and attempt is not None
    timers = u.worker.timers
    limit = throttle(u)
    try:
        while not u.body_done:
            data = conn.data
            if data:
                if limit is None:
                    conn.data = b""
                else:
                    data = await limit.take(conn)
                body = u.protocol.input_filter(u, data)
                attempt.response_length += len(body)
                if u.body_done:
                    break
                if body:
                    r.send(body)
                    if r.conn.paused:
                        await r.drain()
                continue
            if conn.eof:
                if conn.error is None and u.protocol.eof(u):
                    body = b""
                    break
                raise UpstreamError(Kind.ERROR, _cut(conn.error))
            r.flush()
            conn.resume_reading()
            timers.set(conn, u.conf.read_timeout)
            await r.wait(UPSTREAM)
            conn.deadline = 0.0
        else:
            body = b""
    except UpstreamError as error:
        r.log(Level.ERROR, error.cause)
        r.flush()
        u.keepalive = False
        u.close_attempt(None)  # as nginx: once the head was good, the peer is not blamed
        raise Interrupted(r.status) from None
    # the peer is free before the client has taken everything
    attempt.response_time = u.worker.loop.time() - attempt.start
    u.close_attempt(None)
    r.send(body, last=True)
    if r.conn.paused:
        await r.drain()


def _cut(error: OSError | None) -> str:
    if error is not None:
        return broken("recv()", error).cause
    return "upstream prematurely closed connection"
