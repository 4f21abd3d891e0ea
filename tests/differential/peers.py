"""The backends of site/conf.d/50-upstream.conf: TLS of several sorts, other families, silence, a name server."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.backends import Backend, Handler, Reply, Request
from tests.dns_server import Cname, Code, NameServer
from tests.tls import Authority, Leaf, TlsBackend

SECRET = b"not to be told"
NAMES = {"app.test": ["127.0.0.1"], "alias.test": Cname("app.test"), "broken.test": Code("SERVFAIL"), "empty.test": []}


@contextlib.contextmanager
def peers(directory: Path, handler: Handler) -> Iterator[dict[str, str]]:
    """{placeholder: what stands for it} while they run; `handler` is what a usual one does."""
    directory.mkdir(parents=True)
    ipv6 = Backend(handler, host="::1")
    backends = {
        "IPV6": ipv6,
        "UNIX": Backend(handler, unix=str(directory / "socket")),
        "COUNTING": Backend(lambda request: Reply(body=b"request %d of its connection\n" % request.nth)),
        "BLUNT": Backend(connection=_blunt),
        "SEEING": Backend(connection=_seeing),
        "SILENT": Backend(connection=_silent),
        "SWITCHING": Backend(connection=_switching),
        **_secure(directory),
    }
    names = NameServer(dict(NAMES))
    names.answer = lambda name, kind: None if name == "silent.test" else names.records.get(name, Code("NXDOMAIN"))
    try:
        with _full() as full:
            places = {name: each.address for name, each in backends.items()}
            yield {**places, "IPV6_PORT": str(ipv6.port), "FULL": full, "DNS": names.address, "PKI": str(directory)}
    finally:
        names.stop()
        for each in backends.values():
            each.stop()
    assert not [*names.errors, *(error for each in backends.values() for error in each.errors)]


# TLS


def _secure(directory: Path) -> dict[str, Backend]:
    """Backends that tell of their handshakes, and the files of the configuration."""
    root, other = Authority("root"), Authority("other")
    middle = Authority("middle", Authority("upper", root))
    leaf, deep = root.issue("localhost", directory, names=["localhost"]), middle.issue("deep", directory)
    root.issue("client", directory, password=SECRET)
    root.issue("open", directory)
    (directory / "passwords").write_bytes(b"wrong\n" + SECRET + b"\n")
    root.write(directory / "root.crt")
    other.write(directory / "other.crt")
    root.write_crl(directory / "empty.crl")
    root.write_crl(directory / "revoked.crl", [leaf])
    return {
        "TLS": _telling(leaf, directory),
        "TLS_RESUMED": _telling(leaf, directory),
        "TLS_DEEP": _telling(deep, directory),
        "TLS_OLD": _telling(leaf, directory, maximum_version=ssl.TLSVersion.TLSv1_2),
    }


def _telling(leaf: Leaf, directory: Path, **options: object) -> TlsBackend:
    context = leaf.server(verify_mode=ssl.CERT_OPTIONAL, **options)
    context.load_verify_locations(directory / "root.crt")

    def tell(request: Request) -> Reply:
        made = backend.handshakes[-1]
        told = f"{made.version} {made.cipher} for {made.sni}, from {made.client}, {'resumed' * made.reused}\n"
        return Reply(body=told.encode(), headers=[("X-Host", request.header("host") or "")], close=True)

    backend = TlsBackend(tell, context, notify=True)
    return backend


# One connection each


def _head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(1)
        if not data:
            raise ConnectionAbortedError
        head += data
    return head


def _blunt(sock: socket.socket) -> None:
    """Has heard enough at once."""
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _seeing(sock: socket.socket) -> None:
    """Tells the address that it is asked from, and the port, if that is not any."""
    _head(sock)
    host, port = sock.getpeername()[:2]
    told = host if port > 32767 else f"{host}:{port}"
    sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(told)}\r\nConnection: close\r\n\r\n{told}".encode())


def _silent(sock: socket.socket) -> None:
    """Stops: before the head, inside the head or the body, as the target says. Waits for the other side's end."""
    target = _head(sock).split()[1]
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"
    sock.sendall({b"head": answer[:20], b"body": answer}.get(target.rpartition(b"/")[2], b""))
    while sock.recv(65536):
        pass


def _switching(sock: socket.socket) -> None:
    """Switches protocols, sends back what comes as far as a dot, and ends."""
    _head(sock)
    sock.sendall(b"HTTP/1.1 101 Go On\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nwelcome ")
    data = b""
    while not data.endswith(b"."):
        piece = sock.recv(65536)
        data += piece
        sock.sendall(piece)
        if not piece:
            return


@contextlib.contextmanager
def _full() -> Iterator[str]:
    """An address where connecting does not come to an end."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
            if not select.select([], [filler], [], 0.2)[1]:
                break
        yield f"127.0.0.1:{listener.getsockname()[1]}"
