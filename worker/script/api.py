"""The request as a user's Python sees it: text instead of bytes, and no way to break the machine behind it.

Text is UTF-8 with surrogate escapes, so that any byte comes back as it was. What waits (`body`, `subrequest`,
`respond`) may be awaited in the handler's own task and in tasks that it starts.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from headgate.masterd.logfile import LEVELS
from headgate.worker.http import fields, phases
from headgate.worker.subrequest import subrequest as engine

if TYPE_CHECKING:
    from headgate.worker.http import request as http
    from headgate.worker.http.head import Header
    from headgate.worker.script.known import Known
    from headgate.worker.script.session import Session

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def encode(value: "str | bytes") -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


class Fields(Mapping[str, str]):
    """Fields of a message: names in any case; a repeated one is joined by ", " (RFC 9110 section 5.3)."""

    def __init__(self, fields: "list[Header]") -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def all(self, name: str) -> list[str]:
        """The values of each line with this name, in order."""
        low = encode(name.lower())
        return [decode(value) for key, value in self._fields if key.lower() == low]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(decode(name) for name, _ in self._fields))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self._fields})


class ResponseFields(Fields, MutableMapping[str, str]):
    """The response's fields, for py_header_filter: setting one replaces all of its name."""

    def __init__(self, r: "http.Request") -> None:
        super().__init__(r.fields)
        self._r = r

    def __getitem__(self, name: str) -> str:
        if name.lower() == "content-type" and self._r.content_type is not None:
            return decode(self._r.content_type)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: str) -> None:
        if name.lower() == "content-type":
            self._r.content_type = encode(value)
            return
        self._remove(name)
        self._r.fields.append(_field(name, value))

    def __delitem__(self, name: str) -> None:
        if not self._remove(name) and name.lower() != "content-type":
            raise KeyError(name)
        if name.lower() == "content-type":
            self._r.content_type = None

    def _remove(self, name: str) -> bool:
        low = encode(name.lower())
        kept = [field for field in self._r.fields if field[0].lower() != low]
        found = len(kept) < len(self._r.fields)
        self._r.fields = self._fields = kept
        return found


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
    """The request's body: `await r.body.read()`, or `async for piece in r.body` as it arrives."""

    def __init__(self, request: "Request") -> None:
        self._request = request

    async def read(self) -> bytes:
        """All of it. It may be read again, and passed on to an upstream server afterwards."""
        return await self._request._session.do(self._read())

    async def _read(self) -> bytes:
        body = self._request._r.body
        if body is None:
            return b""
        await body.read()
        return await body.joined()

    async def text(self) -> str:
        return decode(await self.read())

    async def json(self) -> Any:
        """Raises ValueError when it is not JSON."""
        return json.loads(await self.read())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        session = self._request._session
        while piece := await session.do(self._piece()):
            yield piece

    async def _piece(self) -> bytes:
        body = self._request._r.body
        if body is None or body.whole:
            return b""
        body.streamed = True  # it has gone by: nobody else can read it
        while True:
            data = body.take()
            if data or body.done:
                return data
            await body.more()


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
        self._session: Session = None  # type: ignore[assignment]  # while a handler runs
        self.ctx: dict[str, Any] = {}

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
        client takes them. Content-Type is the location's default_type unless given. Raises RuntimeError when there is
        an answer already."""
        session = self._session
        whole = encode(body) if isinstance(body, str | bytes) else None
        await session.do(self._head(status, headers, whole))
        if whole is not None:
            return
        assert not isinstance(body, str | bytes)
        async for piece in body:
            await session.do(self._send(encode(piece), False))
        await session.do(self._send(b"", True))

    async def _head(self, status: int, headers: Headers | None, whole: bytes | None) -> None:
        from headgate.worker.http.types import content_type

        r = self._r
        if r.header_sent:
            raise RuntimeError("the request has been answered already")
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is no status to answer with")
        r.clear_response()
        r.status = status
        r.content_type = content_type(r)
        r.content_length = len(whole) if whole is not None else None
        for name, value in headers.items() if isinstance(headers, Mapping) else headers or ():
            low = name.lower()
            if low == "content-type":
                r.content_type = encode(value)
            elif low == "content-length":
                if whole is None:
                    r.content_length = int(value)
            elif low not in ("connection", "transfer-encoding", "date", "server"):  # ours to say
                r.fields.append(_field(name, value))
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

    def internal_redirect(self, uri: str, args: str = "") -> InternalRedirect:
        """`return r.internal_redirect("/other")` or `("@name")`: another location answers."""
        from headgate.worker.http.special import to_named

        if uri.startswith("@"):
            return InternalRedirect(to_named(self._r, encode(uri)))
        return InternalRedirect(phases.internal_redirect(self._r, encode(uri), encode(args)))

    async def subrequest(
        self,
        uri: str,
        *,
        args: str = "",
        method: str = "GET",
        headers: Headers | None = None,
        body: "str | bytes | None" = None,
        in_memory: bool = True,
        background: bool = False,
    ) -> Reply:
        """Ask another location. Several at once: `await asyncio.gather(r.subrequest("/a"), r.subrequest("/b"))`.

        in_memory: the answer's body is in the Reply (up to subrequest_output_buffer_size); otherwise it goes to the
        client, in the place where it was asked for: among the pieces that `respond` sends from an iterator.
        background: nobody waits for its end; the Reply is empty. headers, body: instead of this request's own.
        Raises SubrequestError when subrequests go round in circles.
        """
        sent = None if headers is None else [_field(n, v) for n, v in _pairs(headers)]
        options: engine.Options = {"method": encode(method), "headers": sent, "keep_errors": True}
        if body is not None:
            options["body"] = encode(body)
        if background:
            engine.subrequest(self._r, encode(uri), encode(args), background=True, method=encode(method), headers=sent,
                              body=options.get("body"))  # fmt: skip
            return Reply(engine.Reply(0, [], b""))
        if in_memory:
            return Reply(await engine.fetch(self._r, encode(uri), encode(args), **options))
        return Reply(await engine.include(self._r, encode(uri), encode(args), **options))

    def log(self, level: str, message: str) -> None:
        """A line in the error log, with the request's context. Levels: debug, info, notice, warn, error, crit."""
        self._r.log(LEVELS[level], message)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.uri}>"


def _pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers


def _field(name: str, value: str) -> "Header":
    """A field that may be sent: a line break in it would be another field. Raises ValueError."""
    field = encode(name), encode(value)
    if not fields.sendable(field):
        raise ValueError(f"{name!r}: {value!r} cannot be sent as a field")
    return field
