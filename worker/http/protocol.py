"""[1] One client connection: socket <-> reader, one request at a time, flow control, deadlines.

Between requests the connection is idle (keepalive_timeout). How it ends is `closing`'s.
"""

import contextlib
import os
import socket
import struct
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from headgate.masterd.logfile import Level
from headgate.worker.http import closing, fields, phases, uri
from headgate.worker.http.body import RequestBody
from headgate.worker.http.closing import DISCARDING, HEAD, IDLE, LINGERING, SENDING
from headgate.worker.http.head import HTTP_10, HTTP_11, BadRequest, RequestHead, broken_head
from headgate.worker.http.reader import RequestReader
from headgate.worker.http.regex import RegexError
from headgate.worker.http.request import BODY, DRAIN, Interrupted, Request
from headgate.worker.outbox import Writer

if TYPE_CHECKING:
    from headgate.worker.http.conf import Location, Server
    from headgate.worker.http.listen import Listen
    from headgate.worker.http.server import HttpWorker

READ_AHEAD: Final = 65536  # bytes held back while a request runs, before reading is paused

_RESET = struct.pack("ii", 1, 0)  # struct linger

_numbers: Final = count(1)


class Connection(Writer):  # an asyncio.Protocol, but a compiled class can only have compiled bases
    """A client's connection. `number` is the connection's serial number ($connection, `*N` in the log)."""

    __slots__ = (
        "_in_next", "_local", "_remote", "_remote_text", "began", "eof", "linger_until", "listen", "lost", "made",
        "number", "paused", "peer", "piped", "reader", "reading", "request", "requests", "served", "server", "state",
        "tls", "worker",
    )  # fmt: skip

    def __init__(self, worker: "HttpWorker", listen: "Listen") -> None:
        super().__init__(worker.outbox)
        self.worker = worker
        self.listen = listen
        self.server: Server = listen.hosts.default
        self.reader = RequestReader()
        self.tls: Any = None  # the TLS layer below, `headgate.worker.http.ssl.ServerLayer`
        self.request: Request | None = None
        self.requests = 0
        self.number = next(_numbers)
        self.served: Location | None = None  # the location of the request that has left it idle
        self.state = HEAD
        self.began = 0.0  # loop time of the first byte of the request being read
        self.made = 0.0
        self.linger_until = 0.0
        self.eof = False
        self.lost = False
        self.paused = False  # the client does not read: its write buffer is full
        self.piped = False  # the next request came before the answer to the last one
        self.reading = True
        self._in_next = False
        self.peer: tuple[bytes, int] | None = None  # the address and port it has while another stands in for it
        self._remote: Any = None
        self._remote_text: bytes | None = None
        self._local: Any = None

    # -- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        worker = self.worker
        self.made = worker.timers.refresh()
        if not worker.admit(self):
            self.lost = True
            transport.abort()
            return
        worker.timers.set(self, self.server.core.client_header_timeout)

    def data_received(self, data: bytes) -> None:
        self.worker.timers.refresh()
        reader = self.reader
        reader.feed(data)
        request = self.request
        if request is None:
            if self.state in (DISCARDING, LINGERING):
                closing.discard(self)
            else:
                self.next()
        elif request.waiting & BODY:
            request.wake(BODY)
        elif len(reader.data) > READ_AHEAD and self.reading:
            self.reading = False
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.eof = True
        request = self.request
        if request is None:
            return False  # close
        if request.waiting & BODY:
            self._cut_short(request)
        else:
            self._client_gone(request)
        return not self.lost

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.paused = False
        self.deadline = 0.0
        self.drop_held()
        self.worker.release(self)
        request = self.request
        if request is not None:
            if request.waiting & BODY:
                self._cut_short(request)
            elif request.waiting & DRAIN or not request.client_gone_ok:
                request.interrupt(Interrupted(499))
            else:
                request.drained()

    def pause_writing(self) -> None:
        self.paused = True
        self.state = SENDING
        self.worker.timers.set(self, self.core().send_timeout)

    def resume_writing(self) -> None:
        self.deadline = 0.0
        request = self.request
        if request is None or request.limiter is None or not request.limiter.holds:
            self.paused = False
            if request is not None:
                request.drained()

    def on_deadline(self) -> None:
        """A timeout: which one, `state` and the request tell."""
        request = self.request
        if request is not None:
            if self.paused:
                request.log(Level.INFO, "client timed out (110: Connection timed out)")
                request.interrupt(Interrupted(408))
                self.abort(late=True)
            elif request.waiting & BODY:
                request.log(Level.INFO, "client timed out (110: Connection timed out)")
                request.interrupt(Interrupted(408))
            return
        if self.state == SENDING and self.transport.get_write_buffer_size():
            self.abort(late=True)
        elif self.state == HEAD and self.reader.data:
            self._unread(BadRequest(408, "client timed out (110: Connection timed out)"))
        else:
            if self.transport.get_write_buffer_size():  # closing waits for it, but not for ever
                self.state = SENDING
                self.worker.timers.set(self, self.core().send_timeout)
            self.transport.close()

    # -- requests --------------------------------------------------------------------------------

    def next(self) -> None:
        """Start the request whose head has arrived; go on with pipelined ones as each is done."""
        if self._in_next:
            return
        self._in_next = True
        reader = self.reader
        worker = self.worker
        while self.request is None and reader.data and not self.lost:
            if self.state is not HEAD or not self.began:
                self.state = HEAD
                self.began = worker.timers.now
                self.deadline = 0.0
            try:
                head = reader.read_head(self.server.core)
            except BadRequest as error:
                self._unread(error)
                break
            if head is None:
                target = reader.read_simple()
                if target is None:
                    if not self.deadline:
                        worker.timers.set(self, self.server.core.client_header_timeout)
                    break
                head = RequestHead(b"GET " + target + b"\r\n", b"GET", target, 9, [])
            self._start(head)
        self._in_next = False

    def _start(self, head: RequestHead) -> None:
        if self._remote is None:  # a client that is lost later has no address any more, and the logs want it
            self._remote = self.transport.get_extra_info("peername") or ""
        self.requests += 1
        self.deadline = 0.0
        server = self.server
        self.request = r = Request(self, head, server, self.began)
        r.pipelined = self.piped
        self.began = 0.0
        try:
            matched = None
            named = head.host
            # the default server judges the request line, as on nginx; then the Host chooses the server
            if head.target[0] != 47:  # "/"
                if head.method == b"CONNECT":
                    raise fields.refuse(head)
                head.host, r.target = uri.split_absolute(head.target)
            r.uri, r.args = uri.split_target(r.target, server.core.merge_slashes)
            server, matched = self._host(r, head)
            if server is not r.server:
                r.server = server
                r.location = server.location
            if named is None:
                if head.version >= HTTP_11:
                    raise BadRequest(400, 'client sent HTTP/1.1 request without "Host" header')
            elif named is not head.host:  # an absolute target goes before it, but it must be one
                fields.host_name(named)
            if head.method in fields.REFUSED:
                raise fields.refuse(head)
            if head.odd:
                r.headers = fields.keep(r)
            if len(head.headers) > server.core.max_headers:
                raise BadRequest(400, "client sent too many header lines")
        except (BadRequest, RegexError) as error:
            r.action = "reading client request headers"
            if isinstance(error, BadRequest):
                r.log(Level.INFO, error.reason)
                status = error.status
            else:  # a server's name ran into the match limit
                r.log(Level.ALERT, str(error))
                status = 500
            r.start(phases.run(r, status))
            return
        if matched is not None:
            regex, match = matched
            regex.capture(r, match)
        if head.version >= HTTP_11:
            r.keepalive = not head.close
        else:
            r.keepalive = head.version == HTTP_10 and head.keep_alive and not head.close
        if head.content_length is not None or head.chunked:
            r.body = RequestBody(r)
        else:
            head.expect = False  # there is nothing to go on with
        if self.listen.ssl:
            from headgate.worker.http import ssl  # whoever serves no TLS does without

            status = ssl.refuse(r)
            if status:
                r.start(phases.run(r, status))
                return
        r.start(phases.run(r))

    def _host(self, r: Request, head: RequestHead) -> "tuple[Server, Any]":
        host = head.host
        if host is None:  # HTTP/1.0: a server may be named ""
            return self.listen.hosts.find(b"")
        r.host = name = fields.host_name(host)
        return self.listen.hosts.find(name)

    def _unread(self, error: BadRequest) -> None:
        """Answer a request whose head cannot be read, and close."""
        reader = self.reader
        head = broken_head(reader.data)
        reader.data = b""
        self.requests += 1
        self.request = r = Request(self, head, self.server, self.began or self.worker.loop.time())
        r.action = "reading client request headers" if head.method else "reading client request line"
        r.header_only = head.raw.startswith(b"HEAD ")
        r.pipelined = self.piped
        with contextlib.suppress(BadRequest):
            if head.target and head.target[0] != 47:  # "/"
                head.host, r.target = uri.split_absolute(head.target)
            r.uri, r.args = uri.split_target(r.target, self.server.core.merge_slashes)
            if head.host is not None or head.raw.endswith((b"\n\r\n", b"\n\n")):  # whole, or its Host came
                r.server = self._host(r, head)[0]
                r.location = r.server.location
        r.log(Level.INFO, error.reason)
        if error.status == 408:
            r.status = 408
            self.abort(late=True)
            r.finish()
        else:
            r.start(phases.run(r, error.status))

    def request_done(self, r: Request) -> None:
        """The request has ended: keep the connection for the next one, or close it."""
        self.request = None
        if self.peer is not None:
            self._address_is(*self.peer)
            self.peer = None
        if self.lost:
            return
        r.flush()
        reader = self.reader
        if r.body is not None and not reader.body_done:
            closing.leftover(self, r)
            return
        self.piped = bool(reader.data)
        if not r.keepalive or self.eof or (self.worker.grace_over and not reader.data):
            closing.close(self, r)
            return
        worker = self.worker
        if not self.reading:
            self.resume_reading()
        self.state = IDLE
        self.served = r.location
        worker.timers.set(self, r.location.keepalive_timeout)
        if reader.data and not self._in_next:
            worker.loop.call_soon(self.next)

    def _cut_short(self, r: Request) -> None:
        """The client has gone inside a request's body."""
        r.log(Level.INFO, "client prematurely closed connection")
        r.interrupt(Interrupted(400))

    def _client_gone(self, r: Request) -> None:
        if not r.client_gone_ok:
            r.interrupt(Interrupted(499))

    # -- used by requests ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; without effect once it has gone."""
        if not self.lost:
            self.queue(data)

    def abort(self, late: bool = False) -> None:
        """Cut the connection: what is not yet sent is lost, and the client sees it. `late`: it was not in time."""
        if not self.lost and self.transport is not None:
            r = self.request
            # where a body ends with the connection, only a reset tells that it is not whole
            cut = r is not None and r.header_sent and r.content_length is None and not r.chunked
            if cut or (late and self.core().reset_timedout_connection):
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if self._local is None:
                self._local = self._address("sockname")
            self.lost = True
            self.paused = False
            self.transport.abort()

    def pause_reading(self) -> None:
        if self.reading and not self.lost:
            self.reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading and not self.lost:
            self.reading = True
            self.transport.resume_reading()

    def may_keep(self, r: Request) -> bool:
        """Whether the connection may serve another request after this one."""
        location = r.location
        if r.head.expect or (location.keepalive_disable and fields.distrusted(r, location.keepalive_disable)):
            return False  # a body may follow that was never asked for
        if self.worker.leaving or not location.keepalive_timeout or self.requests >= location.keepalive_requests:
            return False
        return self.worker.timers.now - self.made < location.keepalive_time

    def close_idle(self) -> None:
        """Close the connection if no request is on it."""
        if self.request is not None or self.reader.data:
            return
        location = self.served
        if location is not None and self.state is IDLE and location.core.keepalive_min_timeout:
            timers = self.worker.timers
            idle = timers.refresh() - (self.deadline - location.keepalive_timeout)
            left = location.core.keepalive_min_timeout - idle
            if left > 0:
                timers.set(self, left)
                return
        self.transport.close()

    def spare(self) -> bool:
        """Whether nobody waits for anything on it, so that it may give way to another connection."""
        if self.request is not None or self.reader.data or self.state not in (IDLE, HEAD):
            return False
        return self.served is None or not self.served.core.keepalive_min_timeout

    def give_way(self) -> None:
        """Close a spare connection, whose place is free from now on."""
        self.transport.close()
        self.worker.release(self)

    def core(self) -> Any:
        return (self.request.location if self.request is not None else self.server.location).core

    def _address(self, name: str) -> Any:
        gone = self.listen.address.sockaddr if name == "sockname" else ""
        return gone if self.lost else self.transport.get_extra_info(name) or ""

    @property
    def remote_addr(self) -> bytes:
        """The client's address as text, `unix:` on a Unix socket."""
        text = self._remote_text
        if text is None:
            if self._remote is None:
                self._remote = self._address("peername")
            text = self._remote_text = self._remote[0].encode() if isinstance(self._remote, tuple) else b"unix:"
        return text

    @property
    def remote_port(self) -> int:
        return int(self._remote[1]) if self.remote_addr != b"unix:" else 0

    def stand_in(self, address: bytes, port: int) -> None:
        """Have another client's address until the request ends."""
        self.peer = self.remote_addr, self.remote_port
        self._address_is(address, port)

    def _address_is(self, address: bytes, port: int) -> None:
        self._remote = address.decode(), port
        self._remote_text = address

    @property
    def local_host(self) -> bytes:
        """$server_addr: the address that the client connected to."""
        if self._local is None:
            self._local = self._address("sockname")
        local = self._local
        return str(local[0]).encode() if isinstance(local, tuple) else b"unix:" + os.fsencode(local)

    @property
    def local_port(self) -> int:
        return int(self._local[1]) if not self.local_host.startswith(b"unix:") else 0

    @property
    def plain(self) -> bool:
        return self.tls is None  # the socket carries the bytes as they are

    @property
    def is_unix(self) -> bool:
        return self.remote_addr == b"unix:"
