"""Sending files: large and small, sendfile on and off, pipelines, slow clients, clients that leave, cut files."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import TruncatedError, build, fetch
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
CONF = """http { %s server { listen 127.0.0.1:%%%%PORT_0%%%%;
    location /on/ { alias %%%%DIR%%%%/html/; sendfile on; %s }
    location /off/ { alias %%%%DIR%%%%/html/; sendfile off; %s } } }"""
BOTH_WAYS = pytest.mark.parametrize("way", ["on", "off"])
LARGE = random.Random(1).randbytes(3_000_000)
SIZES = (1, 16384, 16385, 65536, 65537, 1_000_001)


@pytest.fixture
def server(headgate: Factory) -> Server:
    files = {f"html/{size}": LARGE[:size] for size in SIZES} | {"html/large": LARGE}
    return headgate(CONF % ("", "", ""), files=files)


def opened(server: Server) -> int:
    return len(descriptors(server.workers()[0]))


def half_read(server: Server, target: str) -> object:
    """A client with a small window that has read only the beginning of a large response."""
    client = server.client(receive_buffer=4096)
    client.send(build("GET", target))
    client.read(20_000)
    return client


@BOTH_WAYS
def test_every_size_arrives_whole_on_one_connection(server: Server, way: str) -> None:
    with server.client() as client:
        for size in SIZES:
            assert client.get(f"/{way}/{size}").body == LARGE[:size], size
        reply = client.get(f"/{way}/large")
        assert hashlib.md5(reply.body).digest() == hashlib.md5(LARGE).digest()
        assert reply.header("Connection") == "keep-alive"


@BOTH_WAYS
def test_pipelined_files_come_in_order(server: Server, way: str) -> None:
    with server.client() as client:
        order = [65537, 1, 1_000_001, 65536, 1, 65537, 16385]
        client.send(b"".join(build("GET", f"/{way}/{size}") for size in order))
        for size in order:
            assert client.response().body == LARGE[:size]


def test_a_large_file_waits_for_small_ones_that_are_not_read_yet(server: Server) -> None:
    with server.client(receive_buffer=4096) as client:
        order = [65536] * 100 + [1_000_001, 1]
        client.send(b"".join(build("GET", f"/on/{size}") for size in order))
        for size in order:
            assert client.response().body == LARGE[:size]


@BOTH_WAYS
def test_http_10_ends_with_the_connection(server: Server, way: str) -> None:
    with server.client() as client:
        client.send(build("GET", f"/{way}/large", version="1.0"))
        assert client.response().body == LARGE
        assert client.closed()


@BOTH_WAYS
def test_ranges_of_a_large_file(server: Server, way: str) -> None:
    reply = server.get(f"/{way}/large", {"Range": "bytes=1000000-2999998"})
    assert (reply.status, reply.body == LARGE[1_000_000:2_999_999]) == (206, True)
    reply = server.get(f"/{way}/large", {"Range": "bytes=0-999999,1500000-1500009,-100000"})
    boundary = str(reply.header("Content-Type")).partition("boundary=")[2].encode()
    parts = reply.body.split(b"\r\n--" + boundary)
    assert [part.partition(b"\r\n\r\n")[2] == want for part, want in zip(
        parts[1:4], (LARGE[:1_000_000], LARGE[1_500_000:1_500_010], LARGE[-100_000:]), strict=True
    )] == [True] * 3  # fmt: skip
    assert (parts[0], parts[4]) == (b"", b"--\r\n")


@BOTH_WAYS
def test_others_are_served_while_a_slow_client_reads(server: Server, way: str) -> None:
    slow = half_read(server, f"/{way}/large")
    assert server.get("/on/1").body == LARGE[:1]
    assert server.get(f"/{way}/large").body == LARGE
    assert slow.read_until(LARGE[-20:]).endswith(LARGE[-20:])  # type: ignore[attr-defined]


@BOTH_WAYS
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_leaves_frees_everything(server: Server, way: str, how: str) -> None:
    server.get("/on/large")
    before = opened(server)
    for _ in range(10):
        getattr(half_read(server, f"/{way}/large"), how)()
    until(lambda: opened(server) <= before, lambda: f"{opened(server)} descriptors, {before} before")
    assert server.get(f"/{way}/large").body == LARGE


def test_whole_downloads_leave_no_descriptor(server: Server) -> None:
    server.get("/on/large")
    before = opened(server)
    for _ in range(10):
        for target in ("/on/large", "/off/large", "/on/1"):
            server.get(target)
            server.get(target, {"Range": "bytes=0-100000"})
            server.get(target, {"If-None-Match": "*"})
            server.get(target, {"If-Match": '"no"'})
            server.request("HEAD", target)
            server.request("POST", target)
    until(lambda: opened(server) <= before, lambda: f"{opened(server)} descriptors, {before} before")


@BOTH_WAYS
def test_send_timeout(headgate: Factory, way: str) -> None:
    server = headgate(CONF % ("send_timeout 300ms;", "", ""), files={"html/large": LARGE * 10})
    half_read(server, f"/{way}/large")
    server.expect_log(r"\[info\].*client timed out \(110: Connection timed out\) while sending response to client")
    client = server.clients[-1]
    assert len(client.read_all()) < len(LARGE) * 10


@BOTH_WAYS
def test_a_file_that_shrinks_cuts_the_connection(headgate: Factory, way: str) -> None:
    server = headgate(CONF % ("", "", ""), files={"html/large": LARGE * 10})
    line = {"on": r'sendfile\(\) reported that ".*/html/large" was truncated at \d+', "off": r"pread\(\) read only"}[
        way
    ]
    server.allow(line)
    client = server.client(receive_buffer=4096)
    client.send(build("GET", f"/{way}/large"))
    client.read(20_000)
    os.truncate(server.prefix / "html/large", 1000)
    assert len(client.read_all()) < len(LARGE) * 10
    server.expect_log(rf"\[alert\].*{line}.* while sending response to client")
    with pytest.raises(TruncatedError):
        server.write("html/large", LARGE * 10)
        with server.client(receive_buffer=4096) as client:
            client.send(build("GET", f"/{way}/large"))
            client.read_until(b"\r\n\r\n")
            os.truncate(server.prefix / "html/large", 1000)
            client.read(len(LARGE) * 10)


@BOTH_WAYS
@pytest.mark.parametrize("binary", ["headgate", "nginx"])
def test_bytes_are_counted(request: pytest.FixtureRequest, binary: str, way: str) -> None:
    log = "log_format f '$request_method $status $body_bytes_sent'; access_log logs/access.log f;"
    server = request.getfixturevalue(binary)(CONF % (log, "", ""), files={"html/large": LARGE, "html/small": "hello"})
    for target in (f"/{way}/large", f"/{way}/small"):
        with server.client() as client:
            client.get(target)
            client.get(target, {"Range": "bytes=1-3"})
            client.get(target, {"If-None-Match": "*"})
            client.request("HEAD", target)
    lines = server.access_log(8, "logs/access.log")
    assert lines == [
        *("GET 200 3000000", "GET 206 3", "GET 304 0", "HEAD 200 0"),
        *("GET 200 5", "GET 206 3", "GET 304 0", "HEAD 200 0"),
    ]


def test_bytes_of_a_download_that_broke_off_are_counted(server: Server) -> None:
    half_read(server, "/on/large").reset()  # type: ignore[attr-defined]
    (line,) = server.access_log(1)
    assert '"GET /on/large HTTP/1.1" 200 ' in line
    assert 20_000 <= int(line.split('" 200 ')[1].split()[0]) < len(LARGE)


def test_sendfile_max_chunk_and_output_buffers(headgate: Factory) -> None:
    conf = CONF % ("", "sendfile_max_chunk 10000;", "output_buffers 1 10000;")
    server = headgate(conf, files={"html/large": LARGE})
    assert server.get("/on/large").body == LARGE
    assert server.get("/off/large").body == LARGE
    unlimited = headgate(CONF % ("", "sendfile_max_chunk 0;", ""), files={"html/large": LARGE})
    assert unlimited.get("/on/large").body == LARGE


def test_over_a_unix_socket(headgate: Factory) -> None:
    conf = "http { sendfile on; server { listen unix:%%DIR%%/sock; } }"
    server = headgate(conf, files={"html/large": LARGE})
    from tests.client import Client

    with Client(path=str(server.prefix / "sock")) as client:
        assert client.get("/large").body == LARGE
        assert client.get("/large", {"Range": "bytes=5-9"}).body == LARGE[5:10]


def test_a_graceful_stop_lets_a_download_end(headgate: Factory) -> None:
    import signal

    server = headgate(CONF % ("", "", ""), files={"html/large": LARGE * 3})
    client = server.client(receive_buffer=4096)
    client.send(build("GET", "/on/large"))
    head = client.read_until(b"\r\n\r\n")
    assert b"Content-Length: 9000000" in head
    server.send_signal(signal.SIGQUIT)
    server.expect_log("gracefully shutting down")
    assert client.read(len(LARGE) * 3) == LARGE * 3
    assert client.closed()
    assert server.wait() == 0


def test_fetch_from_the_default_root(headgate: Factory, tmp_path: Path) -> None:
    server = headgate("http { server { listen 127.0.0.1:%%PORT_0%%; } }", files={"html/a": "x"})
    assert fetch(server.port(), target="/a").body == b"x"
