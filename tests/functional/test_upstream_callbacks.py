"""When an upstream protocol's callbacks are called: the order on each way through a request, and one end."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.backends import CLOSE, RESET, Backend, Request, refused_port
from tests.client import TruncatedError, build
from tests.harness import Server, until

Factory = Callable[..., Server]

# A protocol that notes what is called; its server answers with a line, and a body to the end of the connection.
RECORDING = """
import os
from headgate.conf.directive import Ctx
from headgate.worker.upstream.errors import Kind, UpstreamError
from headgate.worker.upstream.header import ResponseHead
from headgate.worker.upstream.passing import PassConf
from headgate.worker.upstream.protocol import Protocol

FILE = os.open(os.path.join(os.path.dirname(__file__), "calls"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(text):
    os.write(FILE, text.encode() + b"\\n")


class Recording(Protocol):
    def create_request(self, u):
        note("create")
        return b"GET / HTTP/1.0\\r\\n\\r\\n"

    def reinit_request(self, u):
        note("reinit")
        u.head = None

    def process_header(self, u, data):
        end = data.find(b"\\n")
        note("header" if end >= 0 else "part of a header")
        if end < 0:
            return None
        if data.startswith(b"bad"):
            raise UpstreamError(Kind.INVALID_HEADER, "upstream sent bad news")
        u.head = ResponseHead(int(data[:end]), data[:end] + b" Whatever", 11, [])
        return end + 1

    def input_filter_init(self, u):
        note("init")
        super().input_filter_init(u)

    def input_filter(self, u, data):
        note(f"filter {data.decode()}")
        return super().input_filter(u, data)

    def eof(self, u):
        note("eof")
        return super().eof(u)

    def abort_request(self, u):
        note("abort")

    def finalize_request(self, u, status):
        note(f"finalize {status}")
        u.finalize(status)  # the end is the end: a second one is nothing


class RecordingConf(PassConf, level=Ctx.LOCATION, prefix="recording"):
    PROTOCOL = Recording
    PORT = 1
    TEMP = "recording_temp"
"""
CONF = """
    py_module recording.py;
    http {
        upstream u { SERVERS }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { recording_pass u; recording_next_upstream error invalid_header http_503; }
        }
    }
"""


@pytest.fixture
def recorded(headgate: Factory) -> Callable[..., Server]:
    """`recorded(address, ...)` -> headgate with a location that passes to these servers."""

    def start(*addresses: str) -> Server:
        servers = "".join(f"server {address} max_fails=0;" for address in addresses)
        return headgate(CONF.replace("SERVERS", servers), files={"recording.py": RECORDING})

    return start


def calls(running: Server, last: str) -> list[str]:
    """What was called, once `last` was."""
    until(lambda: last in running.log_lines("calls"), lambda: f"{last} in {running.log_lines('calls')}")
    return running.log_lines("calls")


def answer(wire: bytes) -> Callable[[Request], Any]:
    return lambda request: wire


def test_a_plain_request(recorded: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    running = recorded(backend(answer(b"200\nbody" + CLOSE)).address)
    assert running.get("/").text == "body"
    assert calls(running, "finalize 0") == ["create", "header", "init", "filter body", "eof", "finalize 0"]


def test_a_head_in_pieces(recorded: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def pieces(request: Request) -> Any:
        yield b"2"
        assert gate.wait(10)
        yield b"00\n" + CLOSE

    running = recorded(backend(pieces).address)
    client = running.client()
    client.send(build("GET", "/"))
    calls(running, "part of a header")
    gate.set()
    assert client.response().status == 200
    assert calls(running, "finalize 0") == ["create", "part of a header", "header", "init", "eof", "finalize 0"]


def test_the_next_server(recorded: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    bad, busy = backend(answer(b"bad\n")), backend(answer(b"503\nno" + CLOSE))
    good = backend(answer(b"200\n" + CLOSE))
    with refused_port() as port:
        running = recorded(f"127.0.0.1:{port}", bad.address, busy.address, good.address)
        assert running.get("/").status == 200
    expected = ["create", "reinit", "header", "reinit", "header", "reinit", "header", "init", "eof", "finalize 0"]
    assert calls(running, "finalize 0") == expected
    running.allow("refused", "bad news")


def test_no_server_left(recorded: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    peers = [backend(answer(b"bad\n")) for _ in range(2)]
    running = recorded(*(peer.address for peer in peers))
    assert running.get("/").status == 502
    assert calls(running, "finalize 502") == ["create", "header", "reinit", "header", "finalize 502"]
    running.allow("bad news")


def test_a_body_cut_short(recorded: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    running = recorded(backend(answer(b"200\nhalf" + RESET)).address)
    with pytest.raises(TruncatedError):
        running.get("/")
    seen = calls(running, "finalize 200")
    assert seen[:3] == ["create", "header", "init"] and seen[-2:] == ["abort", "finalize 200"]
    assert len(running.log_lines("calls")) == len(seen)
    running.allow("recv")


@pytest.mark.parametrize("sent", [b"", b"2", b"200\nhalf"], ids=["before the head", "in the head", "in the body"])
def test_a_client_that_leaves(recorded: Callable[..., Server], backend: Callable[..., Backend], sent: bytes) -> None:
    hold = threading.Event()

    def handler(request: Request) -> Any:
        yield sent
        hold.wait(10)

    peer = backend(handler)
    running = recorded(peer.address)
    client = running.client()
    client.send(build("GET", "/"))
    peer.wait_requests(1)
    if sent == b"2":
        calls(running, "part of a header")
    elif sent:
        calls(running, "filter half")
    client.reset()
    seen = calls(running, "finalize 499")
    hold.set()
    assert seen[-2:] == ["abort", "finalize 499"]
    assert running.stop() == 0
    assert [line for line in running.log_lines("calls") if line.startswith("finalize")] == ["finalize 499"]
