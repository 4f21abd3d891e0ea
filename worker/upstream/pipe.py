"""[11c] The response body: from the upstream server to the client, with flow control both ways.

As long as the client keeps up, what comes from the server goes to it. When it does not, a buffered response goes on
into a `Spool` so that the server is free soon; an unbuffered one waits (nginx: ngx_event_pipe and
ngx_http_upstream_process_non_buffered_request). A large body that nobody has to look at is moved by the kernel
(`splice.py`). A response that is to be kept goes through its keeper's file.

A body that is cut short is made visible: the client gets what there is, and then its connection is cut, never ended
cleanly.
"""

from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level, failed
from headgate.worker.http import aio
from headgate.worker.http.request import DRAIN, UPSTREAM, Interrupted
from headgate.worker.upstream import splice
from headgate.worker.upstream.connect import LITTLE_ROOM, ROOM
from headgate.worker.upstream.errors import UpstreamError
from headgate.worker.upstream.response import cut, cut_short, ended
from headgate.worker.upstream.spool import Spool
from headgate.worker.upstream.throttle import throttle

if TYPE_CHECKING:
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.upstream import Upstream


def pass_whole(u: "Upstream") -> bool:
    """Pass on a body that has come with its head, whole. False when there is more to it than that."""
    conn = u.conn
    r = u.request
    assert conn is not None and u.attempt is not None
    data = conn.data
    if not u.plain or len(data) != u.length or u.keeper is not None or r.limiter is not None or r.blocked:
        return False
    if not data or u.conf.limit_rate is not None:
        return False
    conn.data = b""
    u.attempt.response_length += len(data)
    body = u.protocol.input_filter(u, data)
    u.close_attempt(None)
    r.send(body, last=True)
    return True


async def run(u: "Upstream") -> None:
    """Pass the body on to its end. Raises Interrupted when the client has gone or the body is cut short."""
    r = u.request
    if u.conf.limit_rate is not None:
        u.throttle = throttle(u)
    if r.limiter is not None and not u.buffering:
        r.limiter.rate = 0  # as nginx: what is not buffered is not held back
    try:
        if u.keeper is not None:
            await _backlog(u)
        else:
            await _pass_on(u)
    except UpstreamError as error:
        cut_short(u, error)
        await cut(r)
    finally:
        if u.bounded:
            unbound(u)
        if u.throttle is not None:
            u.throttle.close()
        if u.keeper is not None:
            u.keeper.done(complete=False)
            u.keeper = None


def _take(u: "Upstream", conn: "UpstreamConnection") -> bytes:
    """What has come of the body, as far as proxy_limit_rate lets it through."""
    if u.throttle is not None:
        return u.throttle.take(conn) if conn.data else b""
    data = conn.data
    conn.data = b""
    return data


def _more(u: "Upstream", conn: "UpstreamConnection") -> None:
    """Have the server send more, within read_timeout; not while there is more than the rate allows."""
    if conn.data:
        return
    conn.resume_reading()
    u.worker.timers.set(conn, u.conf.read_timeout)


def bound(u: "Upstream") -> None:
    """Let no more than busy_buffers_size wait in the client's transport (and what one write brings on top)."""
    u.bounded = True
    if not u.request.conn.lost:
        u.request.conn.transport.set_write_buffer_limits(u.conf.busy_size)


def unbound(u: "Upstream") -> None:
    """The transport is the next response's."""
    u.bounded = False
    if not u.request.conn.lost:
        u.request.conn.transport.set_write_buffer_limits()


async def _pass_on(u: "Upstream") -> None:
    conn = u.conn
    r = u.request
    attempt = u.attempt
    assert conn is not None and attempt is not None
    client = r.conn
    limited = u.throttle is not None
    body = b""
    while not u.body_done:
        if limited:
            data = _take(u, conn)
        else:
            data = conn.data
            conn.data = b""
        if data:
            attempt.response_length += len(data)
            body = u.protocol.input_filter(u, data)
            if u.body_done:
                break
            if body:
                r.send(body)
                body = b""
                if client.paused or r.held:
                    if not u.buffering or r.held:
                        conn.pause_reading()
                        await r.drain()
                    elif await _backlog(u):
                        return
            continue
        if conn.eof and not conn.data:
            ended(u)
            break
        if u.plain and (u.length or attempt.response_length) > splice.LEAST and splice.possible(u):
            if await splice.run(u) or await _backlog(u):
                return
            continue
        r.flush()
        if not u.bounded:
            bound(u)
        _more(u, conn)
        await r.wait(UPSTREAM)
        conn.deadline = 0.0
        if client.lost and not r.detached:
            raise Interrupted(499)
    # the peer is free before the client has taken everything
    u.close_attempt(None)
    r.send(body, last=True)
    if client.paused or r.held:
        await r.drain()


async def _backlog(u: "Upstream") -> bool:
    """Read on while the client is behind; whether the response is complete and with the client.

    With a keeper all of the body goes into its file, also when the client leaves before the end.
    """
    r = u.request
    client = r.conn
    keeps = u.keeper is not None
    short = False  # the server has failed: what there is goes to the client, and that is all
    spool = Spool(u, None if u.keeper is None else u.keeper.file)
    conn = u.conn
    assert conn is not None
    conn.room = LITTLE_ROOM
    try:
        while True:
            if u.keeper is not None and (u.body_done or spool.file.broken):
                u.keeper.done(complete=not spool.file.broken)
                u.keeper = None
            while spool and not r.blocked and not client.lost:
                r.send(await aio.reading(r, spool.take))
            if client.lost:
                if u.keeper is None and not u.body_done and not r.detached:
                    raise Interrupted(499)
                spool.skip()
            if not spool and not r.blocked:
                if u.body_done or short:
                    break
                if not keeps:
                    return False
            try:
                if u.conn is not None:
                    if not spool.full and _receive(u, spool):
                        if spool.over:
                            await aio.writing(r, spool.spill)
                        continue
                    if spool.full:
                        u.conn.pause_reading()
                        u.conn.deadline = 0.0  # it is not the server that is waited for
                await r.wait(DRAIN | UPSTREAM)
            except Interrupted:
                if u.keeper is None:
                    raise
            except UpstreamError as error:
                cut_short(u, error)
                short = True
                if u.keeper is not None:
                    u.keeper.done(complete=False)
                    u.keeper = None
    except OSError as error:  # of the file: what cannot be read cannot be sent
        r.log(Level.CRIT, failed(f'pread() "{spool.file.name}"', error))
        await cut(r)
    finally:
        spool.close()
        conn.room = ROOM
    if short:
        await cut(r)
    r.send(b"", last=True)
    await r.drain()
    return True


def _receive(u: "Upstream", spool: Spool) -> bool:
    """Put what has come into the spool; False when there is nothing, and a timeout for it is set."""
    conn = u.conn
    attempt = u.attempt
    assert conn is not None and attempt is not None
    data = _take(u, conn)
    if data:
        attempt.response_length += len(data)
        body = u.protocol.input_filter(u, data)
        spool.put(body)
    elif conn.eof and not conn.data:
        ended(u)
    else:
        _more(u, conn)
        return False
    if u.body_done:
        u.close_attempt(None)
    return True
