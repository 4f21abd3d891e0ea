r"""A raw-socket HTTP/1.x client for tests: what is sent is exactly the bytes given, what comes back is framed strictly.

    reply = get(port, "/a?b=c", {"Host": "example.com"})          # one request on its own connection
    assert (reply.status, reply.body) == (200, b"hello") and reply.header("etag") is None

    with Client(port) as client:                                   # keepalive, pipelining, odd bytes
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = client.response()                                  # exactly one response; the rest stays buffered
        reply = client.request("POST", "/", {"Content-Length": "2"}, b"hi")
        client.request("HEAD", "/")                                # response() must be told of a HEAD: response("HEAD")
        assert client.closed()                                     # waits for the server's close (bounded)

Rules: every wait is bounded by `timeout` (seconds) and raises TimeoutError. A response that breaks the framing
rules of RFC 9112 raises MalformedError, one cut short raises TruncatedError (its `.partial` holds the response so
far); so a test that got a Response knows that it was whole. 1xx responses are collected in `Response.interim`
(101 is final). Chunked bodies are decoded; `Response.raw` keeps the bytes as they were on the wire.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
TIMEOUT = 10.0
HEAD_LIMIT = 1 << 20
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass
class Response:
    """One response: header names keep their case and order, values are latin-1 text."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Response] = field(default_factory=list)
    raw: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every value of the header `name` (any case), in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of the header `name`, None without one; more than one is an AssertionError."""
        values = self.all(name)
        assert len(values) <= 1, f"header {name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()


class MalformedError(Exception):
    """The server sent something that is not a well-framed response."""


class TruncatedError(Exception):
    """The connection ended inside a response; `partial` is None when not even its head was whole."""

    def __init__(self, message: str, partial: Response | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class Client:
    """One connection to 127.0.0.1:`port` (or `host`, or the unix socket `path`), optionally bound to `source`."""

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        path: str | None = None,
        timeout: float = TIMEOUT,
        source: tuple[str, int] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if source is not None:
                self.socket.bind(source)
            self.socket.settimeout(timeout)
            self.socket.connect(path or (host, port))
            if not path:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.socket.close()
            raise
        self.buffer = b""
        self._raw = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        """The client's own port ($remote_port at the server)."""
        return int(self.socket.getsockname()[1])

    def send(self, data: bytes | str) -> None:
        """Sends `data` as it is; text goes as latin-1."""
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def request(
        self, method: str = "GET", target: str = "/", headers: Headers | None = None, body: bytes = b""
    ) -> Response:
        """Sends one HTTP/1.1 request and returns its response; see `build` for what is added."""
        self.send(build(method, target, headers, body))
        return self.response(method)

    def get(self, target: str = "/", headers: Headers | None = None) -> Response:
        """`request` with GET."""
        return self.request("GET", target, headers)

    def response(self, method: str = "GET") -> Response:
        """Reads exactly one final response to a request that had `method`."""
        interim: list[Response] = []
        while True:
            self._raw = b""
            reply = self._head()
            reply.interim = interim
            if not 100 <= reply.status < 200 or reply.status == 101:
                break
            reply.raw = self._raw
            interim.append(reply)
        try:
            self._body(reply, method)
        finally:
            reply.raw = self._raw
        return reply

    def interim(self) -> Response:
        """Reads one response head alone: for a 100 (Continue) that must come before the body is sent."""
        self._raw = b""
        reply = self._head()
        assert 100 <= reply.status < 200, f"a final response where an interim one was due: {reply}"
        return reply

    def read(self, count: int) -> bytes:
        """Reads exactly `count` raw bytes (for tunnels, and to stop in the middle of a body)."""
        while len(self.buffer) < count:
            if not self._fill():
                raise TruncatedError(f"{len(self.buffer)} bytes where {count} were due: {self.buffer[:200]!r}")
        return self._take(count)

    def read_until(self, mark: bytes) -> bytes:
        """Reads raw bytes up to and including `mark`."""
        while (found := self.buffer.find(mark)) < 0:
            if not self._fill():
                raise TruncatedError(f"no {mark!r} in {self.buffer[:200]!r}")
        return self._take(found + len(mark))

    def read_all(self) -> bytes:
        """Reads raw bytes until the server closes; a reset ends them too."""
        with contextlib.suppress(ConnectionResetError):
            while self._fill():
                pass
        return self._take(len(self.buffer))

    def closed(self) -> bool:
        """Waits for the server's close: True once it came (FIN or reset), False when data came instead."""
        if self.buffer:
            return False
        try:
            return not self._fill()
        except ConnectionResetError:
            return True

    def silent(self, seconds: float) -> bool:
        """True when nothing at all came for `seconds`: neither data nor a close."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._fill()
            return False
        except TimeoutError:
            return not self.buffer
        finally:
            self.socket.settimeout(before)

    def half_close(self) -> None:
        """Ends our side only (FIN)."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with a reset (RST) instead of a clean end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Closes the connection; closing twice is fine."""
        self.socket.close()

    def _fill(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        self._raw += data
        return data

    def _line(self) -> bytes:
        line = self.read_until(b"\r\n")[:-2]
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise MalformedError(f"a bare CR, LF or NUL in {line!r}")
        return line

    def _head(self) -> Response:
        try:
            start = self._line()
            version, _, rest = start.partition(b" ")
            code, _, reason = rest.partition(b" ")
            if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit():
                raise MalformedError(f"bad status line {start!r}")
            headers = self._fields()
        except TruncatedError as error:
            raise TruncatedError(f"the head is cut short: {self._raw + self.buffer!r}") from error
        return Response(version.decode(), int(code), reason.decode("latin-1"), headers)

    def _fields(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        while line := self._line():
            name, colon, value = line.partition(b":")
            if not colon or not name or not TOKEN.issuperset(name):
                raise MalformedError(f"bad header line {line!r}")
            fields.append((name.decode(), value.strip(b" \t").decode("latin-1")))
            if len(self._raw) > HEAD_LIMIT:
                raise MalformedError("an endless head")
        return fields

    def _body(self, reply: Response, method: str) -> None:
        lengths, codings = reply.all("content-length"), reply.all("transfer-encoding")
        if len(lengths) > 1 or (lengths and codings) or (lengths and not lengths[0].isdigit()):
            raise MalformedError(f"ambiguous framing: {reply.headers}")
        if codings and (codings != ["chunked"] or reply.version == "HTTP/1.0"):
            raise MalformedError(f"unexpected transfer coding: {reply.headers}")
        if method == "HEAD" or reply.status in (101, 204, 304) or (method == "CONNECT" and reply.status < 300):
            return
        try:
            if codings:
                self._chunks(reply)
            elif lengths:
                reply.body = self.read(int(lengths[0]))
            else:
                reply.body = self._to_the_end()
        except (TruncatedError, ConnectionResetError) as error:
            if not codings:
                reply.body = self._take(len(self.buffer))
            raise TruncatedError(f"the body is cut short ({type(error).__name__}): {error}", reply) from error

    def _to_the_end(self) -> bytes:
        while self._fill():
            pass
        return self._take(len(self.buffer))

    def _chunks(self, reply: Response) -> None:
        while True:
            line = self._line()
            size = line.partition(b";")[0]
            if not size or not frozenset(b"0123456789abcdefABCDEF").issuperset(size):
                raise MalformedError(f"bad chunk size line {line!r}")
            if (length := int(size, 16)) == 0:
                break
            reply.body += self.read(length)
            if self.read(2) != b"\r\n":
                raise MalformedError("a chunk longer than its size")
        reply.trailers = self._fields()


def build(method: str, target: str, headers: Headers | None = None, body: bytes = b"", version: str = "1.1") -> bytes:
    """A request as bytes; adds `Host: localhost` and, for a body without framing, `Content-Length`, if absent."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or [])
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.insert(0, ("Host", "localhost"))
    if body and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in pairs), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def fetch(
    port: int,
    method: str = "GET",
    target: str = "/",
    headers: Headers | None = None,
    body: bytes = b"",
    *,
    host: str = "127.0.0.1",
    timeout: float = TIMEOUT,
) -> Response:
    """One request on a connection of its own (`Connection: close` is added unless `headers` has a Connection)."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or [])
    if not any(name.lower() == "connection" for name, _ in pairs):
        pairs.append(("Connection", "close"))
    with Client(port, host, timeout=timeout) as client:
        return client.request(method, target, pairs, body)


def get(port: int, target: str = "/", headers: Headers | None = None, *, host: str = "127.0.0.1") -> Response:
    """`fetch` with GET."""
    return fetch(port, "GET", target, headers, host=host)


def chunked(*chunks: bytes, trailers: Headers | None = None) -> bytes:
    """The chunked coding of `chunks`, with the last chunk and `trailers`."""
    pairs = list(trailers.items() if isinstance(trailers, Mapping) else trailers or [])
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    end = "".join(f"{name}: {value}\r\n" for name, value in pairs).encode("latin-1")
    return b"".join([*parts, b"0\r\n", end, b"\r\n"])
