"""Questions to name servers: UDP sockets that live while answers are awaited, and TCP for what is too long for UDP.

A socket is connected, so the kernel lets nothing in but from the server asked; once nobody waits for an answer it is
closed, and the next question comes from another port.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

TCP_TIMEOUT = 5.0  # seconds, as nginx
MAX_MESSAGE = 65535

# what happened to the socket of a server: its number, the call that failed, the error
Failed = Callable[[int, str, OSError], None]


class Datagrams:
    """The UDP sockets to some servers. `received(server, data)` and `failed` are called from the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        servers: list[tuple[int, Any]],
        received: Callable[[int, bytes], None],
        failed: Failed,
    ) -> None:
        self._loop = loop
        self._servers = servers
        self._received = received
        self._failed = failed
        self._sockets: dict[int, socket.socket] = {}

    def send(self, server: int, data: bytes) -> bool:
        """Send a question; False, and `failed` was called, when it could not be."""
        call = "socket()"
        try:
            sock = self._sockets.get(server)
            if sock is None:
                family, address = self._servers[server]
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                self._sockets[server] = sock
                call = "connect()"
                sock.connect(address)
                self._loop.add_reader(sock, self._readable, server, sock)
            call = "send()"
            sock.send(data)
        except BlockingIOError:
            return True  # the buffer is full: as good as lost on the way, and sent again like that
        except OSError as error:
            self._drop(server)
            self._failed(server, call, error)
            return False
        return True

    def _readable(self, server: int, sock: socket.socket) -> None:
        while self._sockets.get(server) is sock:
            try:
                data = sock.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError as error:
                self._drop(server)
                self._failed(server, "recv()", error)
                return
            self._received(server, data)

    def _drop(self, server: int) -> None:
        sock = self._sockets.pop(server, None)
        if sock is not None:
            self._loop.remove_reader(sock)
            sock.close()

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        for server in list(self._sockets):
            self._drop(server)


async def ask_by_tcp(loop: asyncio.AbstractEventLoop, server: tuple[int, Any], data: bytes) -> bytes:
    """One question and its answer over a connection of its own (RFC 7766). Raises OSError, in time."""
    family, address = server
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        async with asyncio.timeout(TCP_TIMEOUT):
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, len(data).to_bytes(2, "big") + data)
            size = int.from_bytes(await _exactly(loop, sock, 2), "big")
            return await _exactly(loop, sock, size)


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await loop.sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionResetError(104, "the name server closed the connection")
        data += piece
    return data
