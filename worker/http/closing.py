"""[1] The end of a client connection, or of a request on it whose body nobody has read.

The rest of such a body is thrown away; when the connection is to close, it lingers until the client has seen the
answer (nginx's lingering_close).
"""

from typing import TYPE_CHECKING, Final

from headgate.worker.http.head import BadRequest

if TYPE_CHECKING:
    from headgate.worker.http.protocol import Connection
    from headgate.worker.http.request import Request

# a connection's states: what it does, and what its deadline means
IDLE: Final = "idle"
HEAD: Final = "head"
SENDING: Final = "sending"
DISCARDING: Final = "discarding"
LINGERING: Final = "lingering"


def leftover(conn: "Connection", r: "Request") -> None:
    """A body nobody read: throw it away while the client still sends it."""
    core = r.location.core
    conn.linger_until = conn.worker.loop.time() + core.lingering_time
    conn.state = DISCARDING if r.keepalive else LINGERING
    conn.served = r.location
    if conn.state is LINGERING and core.lingering_close == "off":
        close(conn, r)
        return
    if conn.state is LINGERING:
        _half_close(conn)
    conn.resume_reading()
    conn.worker.timers.set(conn, core.lingering_timeout)
    discard(conn)


def discard(conn: "Connection") -> None:
    """Throw away what has arrived; go on with the next request, or close, when that was all."""
    reader = conn.reader
    worker = conn.worker
    assert conn.served is not None
    core = conn.served.core
    if conn.state is LINGERING:
        reader.data = b""
    else:
        try:
            while reader.data and not reader.body_done and reader.read_body():
                pass
        except BadRequest:
            conn.transport.close()
            return
        if reader.body_done:
            conn.piped = bool(reader.data)
            conn.state = IDLE
            worker.timers.set(conn, core.keepalive_timeout[0])
            conn.next()
            return
    if worker.loop.time() >= conn.linger_until:
        conn.transport.close()
    else:
        worker.timers.set(conn, core.lingering_timeout)


def close(conn: "Connection", r: "Request") -> None:
    """Close once all is written; linger when the client may still be sending."""
    core = r.location.core
    if core.lingering_close == "always" or (core.lingering_close == "on" and conn.reader.data and not conn.eof):
        conn.state = LINGERING
        conn.served = r.location
        conn.linger_until = conn.worker.loop.time() + core.lingering_time
        conn.reader.data = b""
        _half_close(conn)
        conn.worker.timers.set(conn, core.lingering_timeout)
        return
    conn.state = SENDING
    conn.worker.timers.set(conn, core.send_timeout)
    conn.transport.close()


def _half_close(conn: "Connection") -> None:
    if conn.transport.can_write_eof():
        conn.transport.write_eof()
