"""[3] A request: what the client asked, how far it has come, what will be answered.

A request runs as one coroutine (`phases.run`) that no asyncio Task drives: it awaits a bare suspension
point, and the connection's or upstream's callback steps it on with `wake`. An asyncio Future may be
awaited as well (connect, resolve, user code); then the future's callback steps it. Every path ends in `finish`, once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from headgate.masterd.logfile import Level
from headgate.worker.http import error_line, filters, output
from headgate.worker.http.head import RequestHead
from headgate.worker.http.llhttp import Header
from headgate.worker.suspension import ENDED, Suspension, step

if TYPE_CHECKING:
    from headgate.worker.http.body import RequestBody
    from headgate.worker.http.conf import Location, Server
    from headgate.worker.http.filters import BodyFilter
    from headgate.worker.http.limit_rate import Limiter
    from headgate.worker.http.protocol import Connection
    from headgate.worker.http.ranges import Ranges
    from headgate.worker.http.regex import Regex
    from headgate.worker.subrequest.postpone import Part
    from headgate.worker.upstream.upstream import Upstream

# what a request may wait for; `wait` takes any union of them
BODY: Final = 1
DRAIN: Final = 2
UPSTREAM: Final = 4
CHILD: Final = 8

# Request.allow_ranges: none; one, cut out of the body as it passes; any number, which the body's sender
# takes from Request.ranges; one, likewise
NO_RANGES: Final = 0
ONE_RANGE: Final = 1
ANY_RANGES: Final = 2
OWN_RANGE: Final = 3

MAX_URI_CHANGES: Final = 10  # internal redirects and rewrites of one request (NGX_HTTP_MAX_URI_CHANGES)


T = TypeVar("T")


class Interrupted(Exception):
    """The request must end now; `status` is for the log (499: the client has gone, 408: it was too slow)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Replaced(Exception):
    """Another answer takes the place of the one whose head was being made (412, 416): raised by header filters."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Request:
    """One request. Bytes stay bytes; `fields` are the response's fields that have no attribute of their own."""

    __slots__ = (
        "action", "add_uri_to_alias", "allow_ranges", "args", "body", "body_filters", "bytes_sent_before",
        "captures", "charset", "chunked", "cleanups", "client_gone_ok", "conn", "content_length",
        "content_type", "coro", "ctx", "disable_not_modified", "done", "err_status", "error_page", "etag", "fields",
        "future", "head", "head_size", "header_only", "header_sent", "headers", "held", "host", "internal",
        "keepalive", "last_modified", "limiter", "location", "location_field", "method", "named", "out",
        "parent", "part", "pipelined", "post_action", "postpone", "ranges", "server", "started", "status",
        "status_line", "target", "trailers", "upstream", "upstream_states", "uri", "uri_changed", "uri_changes",
        "valid_location", "valid_uri", "vars", "version", "waiting",
    )  # fmt: skip

    def __init__(self, conn: "Connection", head: RequestHead, server: "Server", started: float) -> None:
        self.conn = conn
        self.head = head
        self.parent: Request | None = None
        self.part: Part | None = None  # its place among subrequests, once there are any
        self.server = server
        self.location: Location = server.location
        self.started = started  # loop time when its first byte came
        self.method = head.method
        self.target = head.target
        self.version = head.version
        self.headers: list[Header] = head.headers
        self.host = b""
        self.uri = b""
        self.args = b""
        self.valid_uri = True  # the URI is still what the client sent: `target` may be passed on as it is
        self.valid_location = True  # the URI still starts with the location's name: it may be replaced
        self.add_uri_to_alias = False  # try_files made the URI what follows a regex location's alias
        self.uri_changed = False
        self.uri_changes = MAX_URI_CHANGES + 1
        self.internal = False
        self.named = False
        self.pipelined = False
        self.body: RequestBody | None = None
        self.keepalive = False
        self.vars: dict[str, bytes | None] = {}
        self.captures: Any = None
        self.ctx: dict[type, Any] | None = None  # what modules keep with the request
        self.action = ""

        # the response
        self.status = 0
        self.status_line: bytes | None = None  # an upstream server's own reason phrase, "200 Fine"
        self.fields: list[Header] = []
        self.content_type: bytes | None = None
        self.charset: bytes | None = None  # takes the place of the one in content_type
        self.content_length: int | None = None
        self.last_modified: int | None = None  # whole seconds
        self.etag: bytes | None = None
        self.location_field: bytes | None = None
        self.trailers: list[Header] | None = None
        self.err_status = 0  # what error_page makes of the status
        self.error_page = False  # an error page is being served: no second one
        self.allow_ranges = NO_RANGES
        self.ranges: Ranges | None = None
        self.disable_not_modified = False  # conditions were for an upstream server to test
        self.header_sent = False
        self.header_only = False
        self.chunked = False
        self.head_size = 0
        self.out: bytes | None = None  # a head not yet written: it leaves together with the first body bytes
        self.postpone = 0  # bytes: up to here the first of the body wait with the head (parts of it may yet fail)
        self.body_filters: list[BodyFilter] | None = None
        self.held = 0  # why its output has to wait, whatever the client does (filters.HELD_*)
        self.limiter: Limiter | None = None  # between this response and the client's connection
        self.bytes_sent_before = conn.sent

        self.upstream: Upstream | None = None
        self.upstream_states: list[Any] | None = None
        self.cleanups: list[Callable[[], None]] | None = None
        self.post_action = False  # the response is complete; what is made now, nobody sees
        self.client_gone_ok = False  # go on though the client has left (cache, store, ignore_client_abort)
        self.coro: Coroutine[Any, None, None] | None = None
        self.waiting = 0
        self.future: asyncio.Future[Any] | None = None
        self.done = False

    # -- the coroutine ---------------------------------------------------------------------------

    def start(self, coro: Coroutine[Any, None, None]) -> None:
        """Run the coroutine up to its first wait."""
        self.coro = coro
        self._step(None)

    def wait(self, events: int) -> Suspension:
        """`await r.wait(EVENTS)` suspends until one of them happens; raises Interrupted."""
        self.waiting = events
        return Suspension()

    def wake(self, event: int) -> None:
        """Step the coroutine on if it waits for `event`; otherwise nothing is lost, for whoever waits looks first."""
        if self.waiting & event:
            self.waiting = 0
            self._step(None)

    def post(self, event: int) -> None:
        """As `wake`, but from the event loop's queue."""
        self.conn.worker.loop.call_soon(self.wake, event)

    def drained(self) -> None:
        """The client takes bytes again: step on whoever waits for that."""
        part = self.part
        self.wake(DRAIN)
        if part is not None:
            part.tree.drained()

    def interrupt(self, error: Exception) -> None:
        """Raise `error` where the coroutine waits."""
        if self.done or self.coro is None or (not self.waiting and self.future is None):
            return
        self.waiting = 0
        self.future = None
        self._step(error)

    def _step(self, error: Exception | None) -> None:
        coro = self.coro
        assert coro is not None
        try:
            awaited = step(coro) if error is None else coro.throw(error)
        except StopIteration:
            awaited = ENDED
        except Exception as failure:
            self._broken(failure)
            return
        if awaited is ENDED:
            self.finish()
        elif awaited is not None:
            self.future = awaited
            awaited._asyncio_future_blocking = False  # the handshake of Future.__await__
            awaited.add_done_callback(self._future_done)

    def _future_done(self, future: "asyncio.Future[Any]") -> None:
        if self.future is future:
            self.future = None
            self._step(None)
        elif not future.cancelled():
            future.exception()  # nobody waits any more: it counts as retrieved

    def _broken(self, failure: Exception) -> None:
        """A programming error ends this request alone: the connection is cut and the traceback logged."""
        self.log(Level.CRIT, f"request failed: {error_line.described(failure)}")
        self.status = self.status or 500
        self.keepalive = False
        self.conn.abort()
        self.finish()

    def finish(self) -> None:
        """The one end of a request: clean up, write the access log, give the connection back. Idempotent.

        What fails on the way is logged and holds up nothing else.
        """
        if self.done:
            return
        self.done = True
        self.coro = None
        if self.cleanups is not None:
            for cleanup in self.cleanups:
                try:
                    cleanup()
                except Exception as failure:
                    self.log(Level.CRIT, f"clean-up of a request failed: {error_line.described(failure)}")
        self.action = "logging request"
        try:
            for log in self.location.access_logs:
                log.write(self)
        except Exception as failure:
            self.log(Level.CRIT, f"access log failed: {error_line.described(failure)}")
        part = self.part
        if self.parent is None:
            if part is not None:
                part.tree.cancel()
            self.conn.request_done(self)
            if self.body is not None:
                self.body.close()
        elif part is not None:
            part.end()
        # without these no cycle is left, and a request is freed at once rather than by the collector
        self.body = None
        self.upstream = None
        self.part = None
        self.body_filters = None
        self.ctx = None

    def on_finish(self, cleanup: Callable[[], None]) -> None:
        """Have `cleanup` called at the end, whatever happens."""
        if self.cleanups is None:
            self.cleanups = [cleanup]
        else:
            self.cleanups.append(cleanup)

    # -- reading ---------------------------------------------------------------------------------

    def header(self, name: bytes) -> bytes | None:
        """The value of a request field by its lower-case name; the first one when it is repeated."""
        size = len(name)
        for key, value in self.headers:
            if len(key) == size and key.lower() == name:
                return value
        return None

    def header_all(self, name: bytes, separator: bytes = b", ") -> bytes | None:
        """The values of a repeated request field, joined."""
        size = len(name)
        values = [value for key, value in self.headers if len(key) == size and key.lower() == name]
        return separator.join(values) if values else None

    def capture(self, index: int) -> bytes | None:
        """$1, $2 ... of the last regular expression that matched."""
        match = self.captures
        if match is None or index > match.re.groups:
            return None
        group: bytes | None = match.group(index)
        return group

    def matched(self, regex: "Regex", match: Any) -> None:
        """A location's regular expression matched: its captures are the request's now."""
        regex.capture(self, match)

    def keep(self, thing: T) -> T:
        """Keep a module's object with the request, by its class, in place of an earlier one."""
        if self.ctx is None:
            self.ctx = {}
        self.ctx[thing.__class__] = thing
        return thing

    def kept(self, kind: type[T]) -> T | None:
        """What `keep` was given of this class."""
        return self.ctx.get(kind) if self.ctx is not None else None

    def drop(self, kind: type) -> None:
        """Forget what `keep` was given of this class."""
        if self.ctx is not None:
            self.ctx.pop(kind, None)

    @property
    def line(self) -> bytes:
        return self.head.line

    # -- answering -------------------------------------------------------------------------------

    def clear_response(self) -> None:
        """Forget the response head made so far (an internal redirect, an error page)."""
        self.fields = []
        self.content_type = None
        self.content_length = None
        self.last_modified = None
        self.etag = None
        self.location_field = None
        self.trailers = None
        self.status_line = None
        self.allow_ranges = NO_RANGES

    def send_head(self) -> None:
        """Run the location's header filters and make the head; it leaves with the first body bytes.

        Raises Replaced when a filter wants another answer.
        """
        if self.header_sent:
            return
        if self.err_status:
            self.status = self.err_status
            self.status_line = None
        for header_filter in self.location.filters:
            header_filter(self)
        self.header_sent = True
        if self.parent is None:
            output.make_head(self)
        if self.part is not None:
            self.part.head_made()
        if self.body_filters is not None:
            if self.header_only:
                self.body_filters = None
            else:
                filters.link(self.body_filters, self.put)

    def add_body_filter(self, body_filter: "BodyFilter", first: bool = False) -> None:
        """Have the response's body pass through a filter; for header filters."""
        if self.body_filters is None:
            self.body_filters = [body_filter]
        else:
            self.body_filters.insert(0 if first else len(self.body_filters), body_filter)

    def send(self, data: bytes, last: bool = False) -> None:
        """Send body bytes through the body filters to the client; `last` ends the response."""
        if self.body_filters is not None:
            self.body_filters[0](data, last)
        elif self.part is None:
            output.write(self, data, last)
        else:
            self.part.write(data, last)

    def put(self, data: bytes, last: bool) -> None:
        """Send body bytes that have passed the body filters."""
        if self.part is None:
            output.write(self, data, last)
        else:
            self.part.write(data, last)

    def flush(self) -> None:
        """Send now what waits to be sent together with more."""
        if self.parent is None:
            output.flush(self)

    @property
    def blocked(self) -> bool:
        """Whether output has to wait: the client does not read, or what comes before it is not there yet."""
        if self.part is None or self.part.in_order:
            return self.conn.paused or self.held != 0
        return False

    @property
    def detached(self) -> bool:
        """Whether this goes on when the client has left: it is not for the client."""
        return self.post_action or (self.part is not None and self.part.in_background)

    async def drain(self) -> None:
        """Wait while output has to (back-pressure)."""
        while self.blocked:
            await self.wait(DRAIN)

    async def written(self) -> None:
        """Wait until nothing is left to be written to the client's socket."""
        transport = self.conn.transport
        if not self.conn.lost and transport.get_write_buffer_size():
            transport.set_write_buffer_limits(0)
            await self.drain()
            transport.set_write_buffer_limits()

    def redirect(self, uri: bytes, args: bytes) -> None:
        """Make this an internal request for another URI; the caller returns phases.REDIRECT."""
        self.uri = uri
        self.args = args
        self.valid_uri = False
        self.valid_location = True
        self.internal = True
        self.named = False
        self.add_uri_to_alias = False
        self.ctx = None
        self.action = ""

    # -- logging ---------------------------------------------------------------------------------

    def log(self, level: Level, message: str) -> None:
        """An error log line with nginx's context: `message while ACTION, client: ..., request: "..."`."""
        log = self.location.error_log
        if level <= log.level:
            log.emit(level, message + error_line.context(self), self.conn.number)

    @property
    def body_begun(self) -> bool:
        """Whether somebody has started to read the body."""
        return self.body is not None and self.body.read_started

    @property
    def main(self) -> "Request":
        """The client's request that this one, if it is a subrequest, belongs to."""
        r = self
        while r.parent is not None:
            r = r.parent
        return r

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to the client for this request, head included."""
        return self.conn.sent - self.bytes_sent_before
