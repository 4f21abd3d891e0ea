"""[7] The spine: one request's way to an upstream server and back.

`Upstream.run()` is the whole of it: get_peer, connect, send_request, process_header, send_response,
finalize. What an attempt raises as UpstreamError is judged in `next.py`; the loop over peers is here.

Where a cache belongs: before get_peer (what it has needs no peer), in `failed` (what is stale is better than an error),
and in send_response, as a `Keeper` of the body like proxy_store's.
"""

import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from headgate.worker.http.phases import DONE
from headgate.worker.http.request import UPSTREAM, Interrupted, Request
from headgate.worker.upstream import header, pipe, response, store, upgrade
from headgate.worker.upstream.connect import UpstreamConnection, broken, open_connection
from headgate.worker.upstream.errors import STATUS, GiveUp, Kind, UpstreamError
from headgate.worker.upstream.next import CLIENT_GONE, next_upstream, status_error
from headgate.worker.upstream.peer import Attempt, free_peer, get_peer
from headgate.worker.upstream.send import Sender, send_request

if TYPE_CHECKING:
    from headgate.worker.upstream.conf import UpstreamConf
    from headgate.worker.upstream.contract import UpstreamProtocol
    from headgate.worker.upstream.group import Group, PeerAddress
    from headgate.worker.upstream.header import ResponseHead
    from headgate.worker.upstream.spool import Keeper
    from headgate.worker.upstream.throttle import Throttle
    from headgate.worker.upstream.tls import Use


class Upstream:
    """One request's use of an upstream group. `url` is what error lines show as the upstream."""

    __slots__ = (
        "_finalized", "address", "attempt", "balancer", "body", "body_done", "body_sent", "bounded", "buffering",
        "cached", "chunked_body", "conf", "conn", "group", "head", "index", "keepalive", "keeper", "key", "length",
        "plain", "protocol", "request", "request_sent", "retrying", "scheme", "sender", "started", "streams_body",
        "throttle", "tls", "tried", "tries", "upgrade", "uri", "wire", "worker",
    )  # fmt: skip

    def __init__(self, request: Request, conf: "UpstreamConf", group: "Group", protocol: "UpstreamProtocol") -> None:
        if group.live is not None:
            group = group.live.current()
        self.request = request
        self.conf = conf
        self.group = group
        self.protocol = protocol
        self.worker = request.conn.worker
        self.balancer = group.balancer
        self.started = 0.0
        self.index = -1
        self.address: PeerAddress | None = None
        self.attempt: Attempt | None = None
        self.tried: bytearray | None = None
        self.tries = 0  # attempts left; counted when the first one has failed
        self.conn: UpstreamConnection | None = None
        self.cached = False
        self.key: object = None  # what the connection is kept under
        self.wire = b""  # the request's head as sent
        self.uri = b""
        self.scheme = "http"
        self.tls: Use | None = None
        self.buffering = conf.buffering  # X-Accel-Buffering may change it
        self.body: bytes | None = None  # a body of ours instead of the client's (proxy_set_body)
        self.body_sent = False
        self.sender: Sender | None = None  # of a body that is still being sent
        self.streams_body = False
        self.chunked_body = False
        self.request_sent = False
        self.retrying = False  # counted in the group's retry budget
        self.head: ResponseHead | None = None
        self.length: int | None = None  # body bytes still to come, None when only the framing tells
        self.body_done = False
        self.bounded = False  # the client's transport holds busy_buffers_size at most
        self.plain = False  # body bytes are passed on as they come, `length` of them
        self.throttle: Throttle | None = None
        self.keeper: Keeper | None = None  # who wants the whole response
        self.keepalive = False
        self.upgrade = False  # the server has switched protocols (101)
        self._finalized = False
        request.upstream = self
        if request.upstream_states:  # of a group before an internal redirect: they are listed apart
            request.upstream_states.append(None)
        if group.init is not None:
            self.balancer = group.init(request)

    async def run(self) -> int:
        """Serve the request from the group. Returns DONE, or the status or redirect that ends it."""
        status = 500
        self.started = self.worker.timers.now
        try:
            self.wire = self.protocol.create_request(self)
            while True:
                try:
                    if self.group.queue is not None:
                        await self.group.queue.turn(self)
                    self.get_peer()
                    if not self.cached:
                        await self.connect()
                    sending = self.send_request()
                    if sending is not None:
                        await sending
                    await self.process_header()
                    break
                except UpstreamError as error:
                    status = self.failed(error)
                    if status:
                        return status
                    self.protocol.reinit_request(self)
            status = await self.send_response()
            return status
        except GiveUp as end:
            status = end.status
            return status
        except Interrupted as stop:
            status = stop.status
            self.protocol.abort_request(self)
            raise
        finally:
            self.finalize(status)

    # the steps

    def get_peer(self) -> None:
        self.request.action = "connecting to upstream"
        self.request_sent = False
        get_peer(self)

    async def connect(self) -> None:
        assert self.address is not None and self.attempt is not None
        self.conn = await open_connection(self, self.address, self.conf.connect_timeout)
        self.attempt.connect_time = self.worker.timers.now - self.attempt.start

    def send_request(self) -> "Coroutine[Any, Any, object] | None":
        return send_request(self)

    async def process_header(self) -> None:
        """Wait for the response's head; a status that another peer may better is raised as an error."""
        conn = self.conn
        attempt = self.attempt
        assert conn is not None and attempt is not None
        self.request.action = "reading response header from upstream"
        conn.requests += 1
        if self.sender is None:
            self.worker.timers.set(conn, self.conf.read_timeout)
        while True:
            data = conn.data
            if data:
                taken = self.protocol.process_header(self, data)
                if taken is not None:
                    break
            if conn.eof:
                if conn.error is not None:
                    raise broken("recv()", conn.error)
                raise UpstreamError(Kind.ERROR, "upstream prematurely closed connection")
            conn.resume_reading()
            if self.sender is not None:
                self.request.action = "sending request to upstream"
                await self.sender.run()
                self.request.action = "reading response header from upstream"
                if self.body_sent:
                    self.worker.timers.set(conn, self.conf.read_timeout)
                continue
            await self.request.wait(UPSTREAM)  # as nginx: the whole head has one read_timeout
        if self.sender is not None:
            self.sender.close()  # as nginx: the rest of the body is not wanted any more
            self.sender = None
        conn.data = data[taken:] if taken < len(data) else b""
        conn.deadline = 0.0
        attempt.header_time = self.worker.timers.now - attempt.start
        head = self.head
        assert head is not None
        attempt.status = status = head.status
        if status >= 300:
            error = status_error(self, status)
            if error is not None:
                raise error
        if self.group.notifies:
            self.balancer.notify(self.index, "header")

    async def send_response(self) -> int:
        """Pass the response on to the client."""
        self.protocol.input_filter_init(self)
        rc = header.process(self)
        if rc is not None:
            return rc
        self.request.action = "reading upstream"
        if self.upgrade:
            await upgrade.tunnel(self)
            return DONE
        response.send_head(self)
        if self.request.header_only and not self.body_done:  # a HEAD that the server was asked with another method
            self.request.send(b"", last=True)
            return DONE
        if self.conf.store:
            self.keeper = store.keeper(self)
        if not pipe.pass_whole(self):
            await pipe.run(self)
        elif self.request.blocked:
            await self.request.drain()
        return DONE

    # what can happen on the way

    def failed(self, error: UpstreamError) -> int:
        """An attempt has failed: log it, give the peer back, decide. 0 to go on with the next peer."""
        self.keepalive = False
        timeout = error.kind is Kind.TIMEOUT
        if error.cause and not timeout:
            self.request.log(error.level, error.cause)
        self.close_attempt(error)
        if timeout:
            self.request.log(error.level, error.cause)
        states = self.request.upstream_states
        assert states is not None
        status = next_upstream(self, error)
        if status != CLIENT_GONE:
            states[-1].status = STATUS[error.kind]
        return status

    def timed_out(self) -> None:
        """A deadline of this attempt has passed."""
        self.request.interrupt(UpstreamError(Kind.TIMEOUT, "upstream timed out (110: Connection timed out)"))

    def close_attempt(self, error: UpstreamError | None) -> None:
        """The attempt is over: note its figures, give the peer back, keep or close the connection."""
        conn = self.conn
        attempt = self.attempt
        if self.sender is not None:
            self.sender.close()
            self.sender = None
        if attempt is not None:
            if attempt.response_time is None:
                attempt.response_time = self.worker.timers.now - attempt.start
            if conn is not None:
                attempt.bytes_sent, attempt.bytes_received = conn.sent, conn.received
        free_peer(self, error)
        if conn is None:
            return
        self.conn = None
        cache = self.group.keepalive
        if self._reusable(conn, error) and cache is not None:
            conn.sent = conn.received = 0
            conn.resume_reading()
            cache.put(self.key, conn)
        else:
            conn.close()

    def _reusable(self, conn: UpstreamConnection, error: UpstreamError | None) -> bool:
        """Whether another request may follow: both sides are done with this one, and nothing is left over."""
        done = error is None and self.keepalive and self.body_sent and self.body_done
        return done and not (conn.eof or conn.data)

    def finalize(self, status: int) -> None:
        """The end, once: every path comes here, the client's abort too."""
        if self._finalized:
            return
        self._finalized = True
        if self.retrying:
            assert self.group.retries is not None
            self.group.retries.end()
        if self.index >= 0:
            self.close_attempt(None)
        elif self.conn is not None:
            self.conn.close()
            self.conn = None
        self.protocol.finalize_request(self, status)

    # helpers of the steps

    def use(self, group: "Group") -> None:
        """Ask the servers of `group` instead: a protocol's `create_request` may have found out where to go."""
        self.group = group
        self.balancer = group.balancer

    def note_attempt(self, attempt: Attempt) -> None:
        """Add to what the $upstream_* variables list."""
        states: list[Any] | None = self.request.upstream_states
        if states is None:
            self.request.upstream_states = [attempt]
        else:
            states.append(attempt)

    def tries_left(self) -> int:
        """Attempts left, the present one included: as many as there are peers, at most next_upstream_tries."""
        if self.tried is not None:
            return self.tries
        tries = self.group.peers.tries()
        limit = self.conf.next_upstream_tries
        return min(tries, limit) if limit else tries

    def conn_received(self) -> bool:
        return self.conn is not None and self.conn.received > 0

    def cache_key(self) -> object:
        """Cached connections serve the same address and, when `local`, only the same location's configuration."""
        cache = self.group.keepalive_conf
        name: object = self.address.name  # type: ignore[union-attr]  # there is a peer
        if self.tls is not None:
            name = (name, self.tls)
        return (name, id(self.conf)) if cache is not None and cache.local else name

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8080/path`; the group's name when no peer could be had, "" before one was asked for."""
        address = self.address
        if address is None:
            return ""
        separator = ":" if address.family == socket.AF_UNIX else ""
        return f"{self.scheme}://{address.text}{separator}{self.uri.decode('utf-8', 'surrogateescape')}"
