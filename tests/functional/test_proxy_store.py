"""proxy_store and proxy_store_access: complete 200 responses become files, and nothing else does; as nginx."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import CLOSE, Backend, Reply, Request
from tests.client import TruncatedError
from tests.harness import Server, until

Factory = Callable[..., Server]
BIG = os.urandom(1 << 20) * 3


def site(address: str, *lines: str) -> str:
    directives = "\n".join(lines)
    return f"""
        http {{
            proxy_http_version 1.1;
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://{address}; {directives} }}
            }}
        }}"""


def left(server: Server) -> list[Path]:
    """Temporary files that still have a name."""
    return [path for path in (server.prefix / "temp_proxy").rglob("*") if path.is_file()]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that handlers may wait for; it happens at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("body", [b"", b"hello", BIG], ids=["empty", "small", "big"])
@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
def test_on_stores_where_root_says(either: Factory, backend: Callable[..., Backend], body: bytes, chunks: bool) -> None:
    parts = [body[i : i + 50000] for i in range(0, len(body), 50000)] if chunks else None
    peer = backend(lambda request: Reply(body=body, chunks=parts))
    server = either(site(peer.address, "proxy_store on;"))
    assert server.get("/a/b/file.txt").body == body
    path = server.prefix / "html/a/b/file.txt"
    until(path.exists, "the file")
    assert path.read_bytes() == body
    assert path.stat().st_mode & 0o777 == 0o600
    until(lambda: not left(server), "no temporary file")


def test_a_path_with_variables_rights_and_time(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(headers=[("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")], body=b"text"))
    rights = "proxy_store_access user:rw group:rw all:r;"
    server = either(site(peer.address, "proxy_store %%DIR%%/kept$uri-$arg_a;", rights))
    server.get("/x/y?a=1")
    path = server.prefix / "kept/x/y-1"
    until(path.exists, "the file")
    info = path.stat()
    assert (path.read_bytes(), info.st_mode & 0o777, int(info.st_mtime)) == (b"text", 0o664, 1700000000)


@pytest.mark.parametrize("status", [201, 206, 301, 404, 500])
def test_only_a_200_is_stored(either: Factory, backend: Callable[..., Backend], status: int) -> None:
    peer = backend(lambda request: Reply(status, body=b"text"))
    server = either(site(peer.address, "proxy_store on;"))
    assert server.get("/file").status == status
    until(lambda: not left(server), "no temporary file")
    assert not (server.prefix / "html/file").exists()


def test_a_head_is_not_stored(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=b"text"))
    server = either(site(peer.address, "proxy_store on;"))
    assert server.request("HEAD", "/file").status == 200
    assert not (server.prefix / "html/file").exists()
    assert not left(server)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort" + CLOSE,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n" + CLOSE,
    ],
    ids=["length", "chunked"],
)
def test_a_body_cut_short_leaves_nothing(either: Factory, backend: Callable[..., Backend], wire: bytes) -> None:
    peer = backend(lambda request: wire)
    server = either(site(peer.address, "proxy_store on;"))
    with pytest.raises(TruncatedError):
        server.get("/file")
    server.allow("prematurely closed connection")
    server.expect_log("prematurely closed connection")
    until(lambda: not left(server), "no temporary file")
    assert not (server.prefix / "html/file").exists()


def test_a_client_that_leaves_does_not_stop_it(
    either: Factory, backend: Callable[..., Backend], gate: threading.Event
) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG)
        yield BIG[:20000]
        gate.wait(10)
        yield BIG[20000:]

    peer = backend(handler)
    server = either(site(peer.address, "proxy_store on;"))
    client = server.client()
    client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
    client.read(1000)
    client.close()
    gate.set()
    path = server.prefix / "html/file"
    until(path.exists, "the file")
    assert path.read_bytes() == BIG
    assert not left(server)


def test_a_client_that_leaves_before_the_head_does_not_stop_it(
    either: Factory, backend: Callable[..., Backend], gate: threading.Event
) -> None:
    def handler(request: Request) -> Reply:
        gate.wait(10)
        return Reply(body=b"text")

    peer = backend(handler)
    server = either(site(peer.address, "proxy_store on;"))
    client = server.client()
    client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.wait_requests(1)
    client.close()
    gate.set()
    until((server.prefix / "html/file").exists, "the file")


def test_it_is_whole_before_a_slow_client_has_it(either: Factory, backend: Callable[..., Backend]) -> None:
    """The client is served from the stored file, and the backend is free at once."""
    peer = backend(lambda request: Reply(body=BIG * 3))
    server = either(site(peer.address, "proxy_store on;"))
    client = server.client(receive_buffer=32768)
    client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
    path = server.prefix / "html/file"
    until(path.exists, "the file")
    assert path.read_bytes() == BIG * 3
    assert client.response().body == BIG * 3


def test_without_buffering_nothing_is_stored(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=b"text"))
    server = either(site(peer.address, "proxy_store on;", "proxy_buffering off;"))
    assert server.get("/file").body == b"text"
    assert not (server.prefix / "html/file").exists()


def test_a_place_that_cannot_be_written(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=b"text"))
    server = either(site(peer.address, "proxy_store %%DIR%%/nginx.conf$uri;"))
    server.allow(r"\[crit\]")
    assert server.get("/file").body == b"text"
    server.expect_log(r"\[crit\].*(Not a directory|File exists)")
    until(lambda: not left(server), "no temporary file")
