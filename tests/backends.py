r"""Fake HTTP/1.1 backends for tests: real sockets, one thread a connection, in the test process.

    def test_x(headgate, backend):
        one = backend()                                    # echo: 200, a text body that shows the request
        two = backend(lambda request: Reply(503, body=b"busy", headers=[("X-Peer", "two")]))
        raw = backend(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort" + CLOSE)
        conf = f"upstream u {{ server {one.address}; server {two.address}; }}"
        ...
        assert one.wait_requests(1)[0].header("x-real-ip") == "127.0.0.1"
        assert one.connections == 1 and one.requests[0].raw.startswith(b"GET / HTTP/1.1\r\n")

A handler gets a Request and returns what goes on the wire:
    Reply(...)           framed with Content-Length (or chunked when `chunks` is given)
    bytes                raw, exactly as they are; CLOSE or RESET added at their end closes or resets the connection
    None                 nothing, and the connection is closed
    an iterator of bytes (usually a generator function): each is sent as it comes, so between two `yield`s a handler can
                         wait for an event (`gate.wait(10)`), which is how "slow" is tested without sleeping
With `connection=`, a callable gets each accepted socket instead and speaks any protocol that it likes.

Other tools: Backend(host="::1"), Backend(unix=path); `Backend.stop()` and `.start()` on the same address (a backend
that goes and comes back); `refused_port()` is a port that refuses every connection while it is open.

Rules: every request is kept in `requests`, in order of arrival and as it was on the wire; a broken request raises in
the connection's thread, lands in `errors`, and the fixture fails the test. A proxy that goes away early is no error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.client import TIMEOUT, chunked

CLOSE = b"\0<close>\0"
RESET = b"\0<reset>\0"
REASONS = {200: "OK", 201: "Created", 204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found"}
REASONS |= {304: "Not Modified", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}
REASONS |= {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Time-out"}


@dataclass
class Request:
    """One request as received; `number` counts the backend's requests, `nth` the connection's (from 1)."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes
    connection: int
    number: int
    nth: int
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of the header `name` (any case), in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of the header `name`, None without one; more than one is an AssertionError."""
        values = self.all(name)
        assert len(values) <= 1, f"header {name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def keepalive(self) -> bool:
        """Whether the connection may carry another request."""
        tokens = ",".join(self.all("connection")).lower()
        return "close" not in tokens and (self.version != "HTTP/1.0" or "keep-alive" in tokens)


@dataclass
class Reply:
    """A well-framed response: Content-Length from `body`, or the chunked coding of `chunks` (and `trailers`)."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: list[bytes] | None = None
    trailers: list[tuple[str, str]] = field(default_factory=list)
    reason: str | None = None
    close: bool = False

    def encode(self, request: Request) -> bytes:
        """The bytes on the wire; no body after HEAD, 204 and 304."""
        pairs = list(self.headers)
        bodiless = request.method == "HEAD" or self.status in (204, 304)
        if self.chunks is not None:
            pairs.append(("Transfer-Encoding", "chunked"))
        elif self.status not in (204, 304) and not any(name.lower() == "content-length" for name, _ in pairs):
            pairs.append(("Content-Length", str(len(self.body))))
        if self.close:
            pairs.append(("Connection", "close"))
        reason = REASONS.get(self.status, "Status") if self.reason is None else self.reason
        head = "\r\n".join([f"HTTP/1.1 {self.status} {reason}", *(f"{n}: {v}" for n, v in pairs), "", ""])
        body = self.body if self.chunks is None else chunked(*self.chunks, trailers=self.trailers)
        return head.encode("latin-1") + (b"" if bodiless else body) + (CLOSE if self.close else b"")


Answer = Reply | bytes | None | Iterator[bytes]
Handler = Callable[[Request], Answer]


def echo(request: Request) -> Reply:
    """Shows the request in the body: its line, header lines in order, an empty line, the body."""
    lines = [f"{request.method} {request.target} {request.version}", *(f"{n}: {v}" for n, v in request.headers), "", ""]
    return Reply(headers=[("Content-Type", "text/plain")], body="\n".join(lines).encode("latin-1") + request.body)


def named(name: str) -> Handler:
    """A handler whose body is `name`, to see who answered."""
    return lambda request: Reply(headers=[("X-Peer", name)], body=name.encode())


def read_head(sock: socket.socket) -> bytes:
    """Reads one head and returns what has come of the body behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("closed inside a head")
        data += piece
    return data.partition(b"\r\n\r\n")[2]


class Backend:
    """A listening backend; starts at once, `address` is what `server` and `proxy_pass http://` take."""

    def __init__(
        self,
        handler: Handler = echo,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: str | None = None,
        connection: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.handler = handler
        self.host, self.port, self.unix = host, port, unix
        self.connection = connection
        self.requests: list[Request] = []
        self.connections = 0
        self.closed = 0
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.start()

    @property
    def address(self) -> str:
        """127.0.0.1:PORT, [::1]:PORT or unix:PATH."""
        if self.unix:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._sockets)

    def start(self) -> None:
        """Listens (again, on the same address, after a stop)."""
        if self.unix:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.unix)
            listener.listen(1024)
        else:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
            self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Closes the listener and every connection, and waits for the threads."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            # A close alone does not wake a thread in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._acceptor.join(TIMEOUT)
            if self.unix:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.unix)
        self.drop()
        current = threading.current_thread()
        for thread in self._threads:
            if thread is not current:
                thread.join(TIMEOUT)
                assert not thread.is_alive(), "a handler still runs"
        self._threads.clear()

    def drop(self) -> None:
        """Closes every connection that is open now, and goes on listening."""
        with self._changed:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def wait_requests(self, count: int, timeout: float = TIMEOUT) -> list[Request]:
        """Waits until `count` requests were received, and returns all."""
        self.wait(lambda: len(self.requests) >= count, f"{count} requests", timeout)
        return self.requests

    def wait_connections(self, count: int, timeout: float = TIMEOUT) -> None:
        """Waits until `count` connections were accepted."""
        self.wait(lambda: self.connections >= count, f"{count} connections", timeout)

    def wait_closed(self, count: int, timeout: float = TIMEOUT) -> None:
        """Waits until `count` connections ended, from either side."""
        self.wait(lambda: self.closed >= count, f"{count} connections closed", timeout)

    def wait(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
        """Waits until `condition()`, looked at after each change, is true."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                counts = f"{len(self.requests)} requests, {self.connections} connections, {self.closed} closed"
                raise AssertionError(f"{self.address}: not within {timeout} s: {what} ({counts})")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            if not self.unix:
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._sockets.add(accepted)
                self.connections += 1
                self._changed.notify_all()
            thread = threading.Thread(target=self._serve, args=(accepted, self.connections), daemon=True)
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.connection is not None:
                self.connection(sock)
            else:
                self._requests(sock, number)
        except (ConnectionError, TimeoutError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            with self._changed:
                self._sockets.discard(sock)
                sock.close()
                self.closed += 1
                self._changed.notify_all()

    def _requests(self, sock: socket.socket, connection: int) -> None:
        reader = _Reader(sock)
        nth = 0
        while (request := reader.request()) is not None:
            nth += 1
            request.connection, request.nth = connection, nth
            with self._changed:
                self.requests.append(request)
                request.number = len(self.requests)
                self._changed.notify_all()
            if not self._answer(sock, request, self.handler(request)) or not request.keepalive:
                return

    def _answer(self, sock: socket.socket, request: Request, answer: Answer) -> bool:
        """Sends an answer; False when the connection is to be closed."""
        if answer is None:
            return False
        if isinstance(answer, Reply):
            answer = answer.encode(request)
        for data in [answer] if isinstance(answer, bytes) else answer:
            wire = data.removesuffix(CLOSE).removesuffix(RESET)
            sock.sendall(wire)
            if data.endswith(RESET):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if len(wire) < len(data):
                return False
        return True


class _Reader:
    """Reads requests from a socket, strictly: what a correct proxy never sends raises ValueError."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.buffer = bytearray()
        self.raw = bytearray()

    def request(self) -> Request | None:
        """The next request; None at a clean end between requests."""
        self.raw = bytearray()
        if not self.buffer and not self._fill():
            return None
        line = self._line().decode("latin-1")
        parts = line.split(" ")
        if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(f"bad request line {line!r}")
        request = Request(parts[0], parts[1], parts[2], self._fields(), b"", b"", 0, 0, 0)
        lengths, codings = request.all("content-length"), request.all("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise ValueError(f"ambiguous framing: {request.headers}")
        if codings:
            if codings != ["chunked"] or request.version != "HTTP/1.1":
                raise ValueError(f"unexpected transfer coding: {request.headers}")
            while size := int(self._line().partition(b";")[0], 16):
                request.body += self._take(size)
                if self._take(2) != b"\r\n":
                    raise ValueError("a chunk longer than its size")
            request.trailers = self._fields()
        elif lengths:
            request.body = self._take(int(lengths[0]))
        request.raw = bytes(self.raw)
        return request

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while line := self._line().decode("latin-1"):
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError(f"bad header line {line!r}")
            fields.append((name, value.strip(" \t")))
        return fields

    def _line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n")) < 0:
            if not self._fill():
                raise ConnectionAbortedError("the proxy closed inside a head")
        return self._take(end + 2)[:-2]

    def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._fill():
                raise ConnectionAbortedError("the proxy closed inside a body")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        self.raw += data
        return data

    def _fill(self) -> bool:
        data = self.socket.recv(262144)
        self.buffer += data
        return bool(data)


@contextlib.contextmanager
def refused_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that refuses connections: bound, never listening, so that nobody else can take it meanwhile."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        held.bind((host, 0))
        yield held.getsockname()[1]
