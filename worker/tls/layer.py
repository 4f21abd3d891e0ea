"""The layer between a socket's transport and a protocol: TLS in, plain bytes out, and the other way round.

To the transport it is the protocol, to the protocol above it is the transport, with the part of asyncio's interface
that connections use. It holds no plain bytes back: what has come is handed up at once, so pausing is the transport's.

A close without close_notify is an error to the protocol above (`SSL_read() failed`), for it may be an attacker's:
a body that only the close ends is cut short then. A complete message is not affected.
"""

import asyncio
import contextlib
import errno
import ssl
from collections.abc import Callable
from typing import Any

from headgate.worker.tls.errors import text

READ = 262144  # plain bytes asked for at once; OpenSSL gives one record


class TlsError(OSError):
    """A connection's TLS has failed; `strerror` is the log's text, such as `SSL_read() failed (SSL: ...)`."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EPROTO, message)


class TlsLayer(asyncio.Protocol):
    """One connection. `done` once the handshake is complete; `error` says why there is none, or no more."""

    __slots__ = (
        "_backlog", "_changed", "_closing", "_ended", "_incoming", "_lost", "_outgoing", "_raw", "_upper", "done",
        "error", "first", "tls",
    )  # fmt: skip

    RUDE_END = False  # whether a close without close_notify is as good as one with it

    def __init__(
        self,
        upper: Any,
        context: ssl.SSLContext,
        changed: Callable[[], None],
        *,
        server_side: bool = False,
        server_hostname: bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """`upper` is the protocol above; `changed` is called when the handshake has ended, well or not.

        Raises ValueError, UnicodeError or SSLError when `server_hostname` cannot be sent.
        """
        self._upper = upper
        self._changed: Callable[[], None] | None = changed
        self._raw: Any = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls: Any = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname, session)
        self._backlog: list[bytes] = []  # written while OpenSSL wants to read first
        self._closing = False
        self._ended = False  # the protocol above knows of the end of what it reads
        self._lost = False  # ... and of the connection
        self.done = False
        self.error: Exception | None = None
        self.first: Callable[[TlsLayer], None] | None = None  # called when the first plain bytes have come

    # to the transport below

    def connection_made(self, transport: Any) -> None:
        self._raw = transport
        self._upper.connection_made(self)
        self._handshake()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self.done:
            self._handshake()
        if self.done:
            if self._backlog:
                self._retry()
            self._read()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        if not self.done:
            self._handshake()
        elif not self._closing:
            self._read()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done and self.error is None:
            self._failed(exc or ConnectionResetError(0, ""))
        self._closing = True
        self._tell_lost(exc)

    def pause_writing(self) -> None:
        self._upper.pause_writing()

    def resume_writing(self) -> None:
        self._upper.resume_writing()

    def _handshake(self) -> None:
        if self.error is not None:
            return
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, OSError) as error:
            self._flush()  # the alert
            self._failed(error)
            return
        self._flush()
        self.done = True
        self._tell()

    def _failed(self, error: Exception) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, None  # a connection that is kept keeps no request alive
        if changed is not None:
            changed()

    def _read(self) -> None:
        """Hand up all that has come."""
        pieces: list[bytes] = []
        ended = False
        failure: TlsError | None = None
        read = self.tls.read
        try:
            while True:
                data = read(READ)
                if not data:
                    ended = True
                    break
                pieces.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            if self.RUDE_END and isinstance(error, ssl.SSLEOFError):
                ended = True
            else:
                failure = TlsError(f"SSL_read() failed ({text(error)})")
        if self._outgoing.pending:
            self._flush()
        if pieces:
            if self.first is not None:
                first, self.first = self.first, None
                first(self)
            self._upper.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._closing:
            return
        if failure is not None:
            self._closing = True
            self.error = failure
            self._raw.abort()
            self._tell_lost(failure)
        elif ended and not self._ended:
            self._ended = True
            if not self._upper.eof_received():
                self.close()

    def _tell_lost(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._upper.connection_lost(error if error is not None or not self.done else self.error)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._raw.is_closing():
            self._raw.write(data)

    # to the protocol above

    def set_protocol(self, protocol: Any) -> None:
        self._upper = protocol

    def write(self, data: bytes) -> None:
        if self._backlog or not self._encrypt(data):
            self._backlog.append(data)
        self._flush()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def _encrypt(self, data: bytes) -> bool:
        try:
            self.tls.write(data)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.error = TlsError(f"SSL_write() failed ({text(error)})")
            self._raw.abort()
        return True

    def _retry(self) -> None:
        while self._backlog and self._encrypt(self._backlog[0]):
            self._backlog.pop(0)
        self._flush()

    def close(self) -> None:
        """Say close_notify, send what is queued, and close; the peer's answer is not waited for."""
        if not self._closing:
            self._closing = True
            if self.done:
                with contextlib.suppress(ssl.SSLError, OSError):  # it would wait for the peer's, or TLS is broken
                    self.tls.unwrap()
                self._flush()
        self._raw.close()

    def abort(self) -> None:
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._closing or bool(self._raw.is_closing())

    def can_write_eof(self) -> bool:
        """TLS has no half of a close that both sides agree on (RFC 5246 section 7.2.1)."""
        return False

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return int(self._raw.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self.tls.context
        return self._raw.get_extra_info(name, default)
