"""The request as a user's Python sees it: text instead of bytes, and no way to break the machine behind it.

What waits (`body`, `subrequest`, `respond`) may be awaited in the handler's own task and in tasks that it starts, as
long as the handler runs.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from headgate.masterd.logfile import LEVELS
from headgate.worker.http import aio, phases
from headgate.worker.script.fields import FRAMING, Fields, Headers, ResponseFields, decode, encode, field, pairs
from headgate.worker.subrequest import subrequest as engine

if TYPE_CHECKING:
    from headgate.worker.http import request as http
    from headgate.worker.http.body import RequestBody
    from headgate.worker.script.known import Known
    from headgate.worker.script.session import Session

T = TypeVar("T")


class Variables(MutableMapping[str, str | None]):
    """nginx's variables by name, without "$"; None: not found. Those that `set` may change can be set."""

    def __init__(self, r: "http.Request", known: "Known") -> None:
        self._r = r
        self._known = known

    def __getitem__(self, name: str) -> str | None:
        value = self._known.getter(name.lower())(self._r)
        return None if value is None else decode(value)

    def __setitem__(self, name: str, value: str | None) -> None:
        self._known.assign(self._r, name.lower(), None if value is None else encode(value))

    def __delitem__(self, name: str) -> None:
        raise TypeError("variables cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known.names())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Body:
    """The request's body: `await r.body.read()`, or `async for piece in r.body`.

    A body that has been read stays: it may be read again, and passed on to an upstream server. One that has not, comes
    to a loop as it arrives, and nobody can have it afterwards: RuntimeError.
    """

    def __init__(self, request: "Request") -> None:
        self._request = request

    async def read(self) -> bytes:
        """All of it."""
        return await self._request._do(self._read())

    async def _read(self) -> bytes:
        body = self._request._r.body
        if body is None:
            return b""
        _check_there(body)
        await body.read()
        return await body.joined()

    async def text(self) -> str:
        """All of it, as text."""
        return decode(await self.read())

    async def json(self) -> Any:
        """Raises ValueError when it is not JSON."""
        return json.loads(await self.read())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at = 0
        while piece := await self._request._do(self._piece(at)):
            at += len(piece)
            yield piece

    async def _piece(self, at: int) -> bytes:
        body = self._request._r.body
        if body is None:
            return b""
        if at == 0:
            _check_there(body)
        if body.whole and not body.streamed:
            return await _stored(body, at)
        body.streamed = True
        while True:
            data = body.take()
            if data or body.done:
                return data
            await body.more()


def _check_there(body: "RequestBody") -> None:
    if body.streamed:
        raise RuntimeError("the body has gone by: it was passed on as it came")


async def _stored(body: "RequestBody", at: int) -> bytes:
    """A piece of a body that has been read, b"" at its end."""
    file = body.file
    if file is None:
        return b"".join(body.chunks) if at == 0 else b""
    if at >= file.size:
        return b""
    return await aio.reading(body.request, lambda: file.read(at))


class Reply:
    """A subrequest's answer. `status` is 499 or an error's when it broke off."""

    def __init__(self, reply: engine.Reply) -> None:
        self.status = reply.status
        self.headers = Fields(reply.headers)
        self.body = reply.body

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return decode(self.body)

    def json(self) -> Any:
        """Raises ValueError when it is not JSON."""
        return json.loads(self.body)


class InternalRedirect(int):
    """What `internal_redirect` gives; a handler returns it."""


class Request:
    """One request. `ctx` is yours: it stays with the request from phase to phase."""

    def __init__(self, r: "http.Request", known: "Known") -> None:
        self._r = r
        self._known = known
        self._session: Session | None = None  # while a handler runs
        self._abandoned = False  # the client has left it
        self._filter_failed = False
        self.ctx: dict[str, Any] = {}

    async def _do(self, operation: Coroutine[Any, Any, T]) -> T:
        """Have the request's own coroutine run `operation`."""
        session = self._session
        if session is None:
            operation.close()
            self._check_wanted()
            raise RuntimeError("the request's handler has ended")
        return await session.do(operation)

    def _check_wanted(self) -> None:
        """A handler that the client has left is cancelled; so are its tasks, as soon as they ask for something."""
        if self._abandoned:
            raise asyncio.CancelledError

    # -- what was asked --------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return decode(self._r.method)

    @property
    def uri(self) -> str:
        """The path, decoded and normalized ($uri)."""
        return decode(self._r.uri)

    @property
    def args(self) -> str:
        """The query as it was written, without "?" ($args)."""
        return decode(self._r.args)

    @property
    def query(self) -> dict[str, str]:
        """The query's fields, decoded; of a repeated one the last."""
        return dict(parse_qsl(self.args, keep_blank_values=True, errors="surrogateescape"))

    @property
    def http_version(self) -> str:
        return {9: "0.9", 10: "1.0", 11: "1.1"}[self._r.version]

    @property
    def host(self) -> str:
        return decode(self._r.host)

    @property
    def remote_addr(self) -> str:
        return decode(self._r.conn.remote_addr)

    @property
    def headers(self) -> Fields:
        return Fields(self._r.headers)

    @property
    def variables(self) -> Variables:
        return Variables(self._r, self._known)

    @property
    def body(self) -> Body:
        return Body(self)

    @property
    def internal(self) -> bool:
        """Whether it comes from an internal redirect or is a subrequest."""
        return self._r.internal or self._r.parent is not None

    # -- the response, for filters and py_log ----------------------------------------------------

    @property
    def status(self) -> int:
        """The response's status, 0 while there is none."""
        return self._r.status

    @status.setter
    def status(self, value: int) -> None:
        if self._r.header_sent:
            raise RuntimeError("the response's head has been made already")
        _check_status(value)
        self._r.status = value
        self._r.status_line = None

    @property
    def response_headers(self) -> ResponseFields:
        return ResponseFields(self._r)

    # -- answering -------------------------------------------------------------------------------

    async def respond(
        self,
        status: int = 200,
        headers: Headers | None = None,
        body: "str | bytes | AsyncIterable[str | bytes]" = b"",
    ) -> None:
        """Answer. A body of text or bytes is sent at once, an async iterator's pieces as they come, as fast as the
        client takes them. Content-Type is the location's default_type unless given; fields about the connection are
        left out. Raises RuntimeError when there is an answer already, TypeError and ValueError for what cannot be sent.
        """
        if isinstance(body, str | bytes):
            await self._do(self._head(status, headers, encode(body)))
            return
        if not isinstance(body, AsyncIterable):
            raise TypeError(f"a body is text, bytes or an async iterator, not {type(body).__name__}")
        await self._do(self._head(status, headers, None))
        r = self._r
        if r.header_only:  # nobody would see it, and it may be endless
            await self._do(self._send(b"", True))
            return
        left = r.content_length
        async for piece in body:
            data = encode(piece)
            if left is not None:
                left -= len(data)
                if left < 0:
                    raise ValueError("the body is longer than its Content-Length")
            await self._do(self._send(data, False))
        if left:
            raise ValueError(f"the body is {left} bytes shorter than its Content-Length")
        await self._do(self._send(b"", True))

    async def _head(self, status: int, headers: Headers | None, whole: bytes | None) -> None:
        from headgate.worker.http.types import content_type

        r = self._r
        if r.header_sent:
            raise RuntimeError("the request has been answered already")
        _check_status(status)
        r.clear_response()
        r.status = status
        r.content_type = content_type(r)
        r.content_length = len(whole) if whole is not None else None
        fields = self.response_headers
        for name, value in pairs(headers or ()):
            low = name.lower()
            if low == "content-length":
                if whole is None:
                    r.content_length = _length(value)
            elif low not in FRAMING and low not in ("date", "server"):
                fields.add(name, value)
        r.send_head()
        if whole is not None:
            r.send(whole, last=True)
            await r.drain()

    async def _send(self, data: bytes, last: bool) -> None:
        r = self._r
        if data or last:
            r.send(data, last)
            r.flush()
            await r.drain()

    async def redirect(self, location: str, status: int = 302) -> None:
        """Answer with a redirect; a path is made absolute as absolute_redirect says."""
        from headgate.worker.http.special import absolute

        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status} is no redirect")
        await self.respond(status, {"Location": decode(absolute(self._r, encode(location)))})

    def internal_redirect(self, uri: str, args: str | None = None) -> InternalRedirect:
        """`return r.internal_redirect("/other?a=b")` or `("@name")`: another location answers. `uri` and `args` are as
        those of `subrequest`."""
        from headgate.worker.http.special import to_named

        if uri.startswith("@"):
            return InternalRedirect(to_named(self._r, encode(uri)))
        return InternalRedirect(phases.internal_redirect(self._r, *_target(uri, args)))

    async def subrequest(
        self,
        uri: str,
        *,
        args: str | None = None,
        method: str = "GET",
        headers: Headers | None = None,
        body: "str | bytes | None" = None,
        in_memory: bool = True,
        background: bool = False,
    ) -> Reply:
        """Ask another location. Several at once: `await asyncio.gather(r.subrequest("/a"), r.subrequest("/b"))`.

        uri: a path, decoded as `r.uri` is; what follows a "?" in it are the arguments, unless they are given by `args`.
        in_memory: the answer's body is in the Reply (up to subrequest_output_buffer_size); otherwise it goes to the
        client, in the place where it was asked for: among the pieces that `respond` sends from an iterator.
        background: nobody waits for its end; the Reply is empty. headers, body: instead of this request's own (the
        body goes along if it has been read).
        Raises SubrequestError when subrequests go round in circles, or one kept in memory asks for another.
        """
        self._check_wanted()
        target = _target(uri, args)
        sent = None if headers is None else [field(n, v) for n, v in pairs(headers)]
        options: engine.Options = {"method": encode(method), "headers": sent, "keep_errors": True}
        if body is not None:
            options["body"] = encode(body)
        if background:
            engine.subrequest(
                self._r, *target, background=True, method=encode(method), headers=sent, body=options.get("body")
            )
            return Reply(engine.Reply(0, [], b""))
        ask = engine.fetch if in_memory else engine.include
        return Reply(await ask(self._r, *target, **options))

    def log(self, level: str, message: str) -> None:
        """A line in the error log, with the request's context. Levels: debug, info, notice, warn, error, crit."""
        self._r.log(LEVELS[level], message)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


def _check_status(status: int) -> None:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"{status!r} is no status to answer with")


def _length(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is no Content-Length")
    return int(value)


def _target(uri: str, args: str | None) -> tuple[bytes, bytes]:
    path, _, query = (uri, "", args) if args is not None else uri.partition("?")
    return encode(path), encode(query)
