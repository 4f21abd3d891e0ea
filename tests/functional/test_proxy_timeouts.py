"""proxy_connect_timeout, proxy_send_timeout, proxy_read_timeout; the figures of each attempt; max_fails' threshold."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.backends import Backend, Reply, Request, named, refused_port
from tests.client import TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]
SHORT = 0.3  # seconds: the timeouts here
CONF = """
    http {
        log_format times "$status $upstream_status "
                         "$upstream_connect_time $upstream_header_time $upstream_response_time";
        access_log logs/times.log times;
        client_max_body_size 100m;
        proxy_http_version 1.1;
        proxy_connect_timeout 300ms;
        proxy_send_timeout 300ms;
        proxy_read_timeout 300ms;
        upstream u { server ADDRESS; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://u; }
            location /unbuffered/ { proxy_pass http://u; proxy_buffering off; }
            location /second/ { proxy_pass http://u; proxy_read_timeout 800ms; }
            location /longer/ { proxy_pass http://u; proxy_read_timeout 20s; proxy_send_timeout 20s; }
        }
    }
"""


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """An event that handlers may wait for; it happens at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start


def test_connecting(either: Factory) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        full = False
        while not full:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                full = True
        running = either(CONF.replace("ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}"))
        reply, seconds = timed(lambda: running.get("/longer/"))
    assert reply.status == 504 and SHORT <= seconds < SHORT + 3
    running.expect_log(r"upstream timed out \(110: Connection timed out\) while connecting to upstream, client: ")
    (line,) = running.access_log(1, "logs/times.log")
    assert line.startswith("504 504 - - 0.")
    running.allow("timed out")


def test_sending(either: Factory, backend: Callable[..., Backend], hold: threading.Event) -> None:
    peer = backend(connection=lambda sock: hold.wait(15))
    running = either(CONF.replace("ADDRESS", peer.address))
    reply, seconds = timed(lambda: running.request("PUT", "/", body=b"x" * (24 << 20)))
    assert reply.status == 504 and seconds >= SHORT
    running.expect_log(r"upstream timed out \(110: Connection timed out\) while sending request to upstream, client: ")
    running.allow("timed out")


def test_waiting_for_the_head(either: Factory, backend: Callable[..., Backend], hold: threading.Event) -> None:
    peer = backend(lambda request: hold.wait(15) and None)
    running = either(CONF.replace("ADDRESS", peer.address))
    reply, seconds = timed(lambda: running.get("/"))
    assert reply.status == 504 and SHORT <= seconds < SHORT + 3
    (line,) = running.access_log(1, "logs/times.log")
    fields = line.split()
    assert fields[:2] == ["504", "504"] and fields[2] != "-" and fields[3] == "-"
    running.allow("timed out")


@pytest.mark.parametrize("target", ["/", "/unbuffered/"])
def test_inside_the_body(either: Factory, backend: Callable[..., Backend], hold: threading.Event, target: str) -> None:
    def half(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"
        hold.wait(15)

    running = either(CONF.replace("ADDRESS", backend(half).address))
    with pytest.raises(TruncatedError) as cut:
        running.get(target)
    assert cut.value.partial is not None
    if target == "/unbuffered/":
        assert cut.value.partial.body == b"half"
    running.expect_log(r"upstream timed out \(110: Connection timed out\) while reading upstream, client: ")
    running.allow("timed out")


def test_pauses_shorter_than_read_timeout(either: Factory, backend: Callable[..., Backend]) -> None:
    """The time is that between two reads, not that of the whole."""
    pause = threading.Event()

    def slowly(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
        for n in range(4):
            pause.wait(0.4)
            yield b"%d" % n

    running = either(CONF.replace("ADDRESS", backend(slowly).address))
    assert running.get("/second/").text == "0123"


def test_the_head_has_one_read_timeout(either: Factory, backend: Callable[..., Backend]) -> None:
    pause = threading.Event()

    def slowly(request: Request) -> Iterator[bytes]:
        for byte in b"HTTP/1.1 200 OK\r\n\r\n":
            pause.wait(0.1)
            yield bytes([byte])

    running = either(CONF.replace("ADDRESS", backend(slowly).address))
    assert running.get("/").status == 504
    running.allow("timed out")


def test_each_attempt_has_its_own_figures(either: Factory, backend: Callable[..., Backend]) -> None:
    good = backend(named("good"))
    bad = backend(lambda request: Reply(503, body=b"no"))
    with refused_port() as port:
        conf = CONF.replace("ADDRESS", f"127.0.0.1:{port}; server {bad.address}; server {good.address}")
        running = either(
            conf.replace("proxy_pass http://u;", "proxy_pass http://u; proxy_next_upstream error http_503;")
        )
        assert running.get("/").text == "good"
    (line,) = running.access_log(1, "logs/times.log")
    status, *rest = line.replace(", ", ",").split()
    statuses, connect, header, response = (each.split(",") for each in rest)
    assert status == "200" and statuses == ["502", "503", "200"]
    assert connect[0] == header[0] == "-" and "-" not in connect[1:] + header[1:]
    assert len(response) == 3 and "-" not in response
    running.allow("refused")


def test_the_threshold_is_told_once(either: Factory) -> None:
    with refused_port() as one, refused_port() as two:
        conf = CONF.replace("ADDRESS;", f"127.0.0.1:{one} max_fails=3; server 127.0.0.1:{two} max_fails=0;")
        running = either(conf)
        warned = []
        for _ in range(5):
            running.get("/")
            warned.append(len(running.matching(r"\[warn\].*upstream server temporarily disabled")))
    assert warned == [0, 0, 1, 1, 1]
    running.allow("refused", "no live upstreams")
