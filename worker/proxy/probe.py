"""One health check of one server: connecting, the request, the response.

A response's body is read as far as a check looks at it; longer ones are cut off by closing the connection. Whatever
goes wrong is a CheckFailed that says so.
"""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.worker.http.chunked import ChunkedError, ChunkedReader
from headgate.worker.http.head import HTTP_11
from headgate.worker.proxy.health_match import MOST_BODY
from headgate.worker.proxy.reader import read_head
from headgate.worker.tls.names import matches
from headgate.worker.upstream.header import HeadError, ResponseHead
from headgate.worker.upstream.prober import CheckFailed

if TYPE_CHECKING:
    from headgate.worker.upstream.group import PeerAddress
    from headgate.worker.upstream.tls import Use

MOST_HEAD = 65536  # bytes


@dataclass(slots=True)
class Link:
    """A connection for checks. `until`: when it is too old to be used again, by the loop's clock."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    until: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it is closed on our side."""
        return self.writer.is_closing()

    def close(self) -> None:
        """Close it now."""
        self.writer.transport.abort()


async def connect(address: "PeerAddress", port: int, tls: "Use | None", timeout: float) -> Link:
    """A new connection, with `port` instead of the server's unless 0, within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    sockaddr = address.sockaddr
    if port and address.family != socket.AF_UNIX:
        sockaddr = (sockaddr[0], port, *sockaddr[2:])
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, sockaddr)
        except BaseException:
            sock.close()
            raise
        link = await _wrapped(sock, tls, timeout)
    except TimeoutError:
        raise CheckFailed("connecting to upstream (timed out)") from None
    except ssl.SSLError as error:
        raise CheckFailed(f"SSL handshaking to upstream ({error.reason or error})") from None
    except OSError as error:
        reason = f"{error.errno}: {os.strerror(error.errno)}" if error.errno else str(error)
        raise CheckFailed(f"connecting to upstream ({reason})") from None
    if tls is not None and tls.client.verify:
        layer = link.writer.get_extra_info("ssl_object")
        if not matches(layer.getpeercert() or {}, tls.name):
            link.close()
            raise CheckFailed(f'SSL handshaking to upstream (certificate does not match "{tls.name}")')
    return link


async def _wrapped(sock: socket.socket, tls: "Use | None", timeout: float) -> Link:
    """The connection over a connected socket. Never cut short: uvloop does not survive that at any moment."""
    if tls is None:
        opening = asyncio.ensure_future(asyncio.open_connection(sock=sock))
    else:
        opening = asyncio.ensure_future(
            asyncio.open_connection(
                sock=sock, ssl=tls.client.context, server_hostname=tls.sni or "", ssl_handshake_timeout=timeout
            )
        )
    try:
        return Link(*await asyncio.shield(opening))
    except asyncio.CancelledError:
        opening.add_done_callback(_drop)
        raise


def _drop(opening: "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]") -> None:
    """Close a connection that nobody waits for any more."""
    if not opening.cancelled() and opening.exception() is None:
        Link(*opening.result()).close()


async def exchange(link: Link, request: bytes, timeout: float, whole: bool) -> tuple[ResponseHead, bytes, bool]:
    """Send the request and read the response within `timeout` seconds; its body only if `whole`.

    Returns head, body, and whether the connection may be used again.
    """
    try:
        async with asyncio.timeout(timeout):
            link.writer.write(request)
            head, rest = await _head(link.reader)
            if not whole:
                return head, b"", False
            body, complete = await _body(link.reader, head, rest)
            return head, body, complete and head.version >= HTTP_11 and not head.close
    except TimeoutError:
        raise CheckFailed("reading response from upstream (timed out)") from None
    except (HeadError, ChunkedError) as error:
        raise CheckFailed(f"reading response from upstream ({error})") from None
    except OSError as error:
        raise CheckFailed(f"reading response from upstream ({error})") from None


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(65536)
    if not data:
        raise CheckFailed("reading response from upstream (prematurely closed connection)")
    return data


async def _head(reader: asyncio.StreamReader) -> tuple[ResponseHead, bytes]:
    """The response's head and what came behind it."""
    data = b""
    while len(data) < MOST_HEAD:
        found = read_head(data) if data else None
        if found is None:
            data += await _read(reader)
            continue
        head, taken = found
        data = data[taken:]
        if head.status >= 200:
            return head, data
    raise CheckFailed("reading response from upstream (too big header)")


async def _body(reader: asyncio.StreamReader, head: ResponseHead, data: bytes) -> tuple[bytes, bool]:
    """The body as far as it is looked at, and whether the connection stands at its end."""
    if head.status in (204, 304):
        return b"", not data
    if head.chunked:
        return await _chunked(reader, data)
    if head.length is not None:
        while len(data) < min(head.length, MOST_BODY):
            data += await _read(reader)
        return data[: min(head.length, MOST_BODY)], len(data) == head.length
    while len(data) < MOST_BODY:
        more = await reader.read(65536)
        if not more:
            break
        data += more
    return data[:MOST_BODY], False


async def _chunked(reader: asyncio.StreamReader, data: bytes) -> tuple[bytes, bool]:
    chunked = ChunkedReader()
    body = b""
    while True:
        out, used = chunked.feed(data)
        body += out
        data = data[used:]
        if chunked.done or len(body) >= MOST_BODY:
            return body[:MOST_BODY], chunked.done and not data
        data += await _read(reader)
