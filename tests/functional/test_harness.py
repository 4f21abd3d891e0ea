"""The test tools themselves, tried on nginx: what they report must be true before headgate is judged by it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import CLOSE, RESET, Backend, Reply, Request, named, refused_port
from tests.client import Client, MalformedError, TruncatedError, chunked, get
from tests.harness import Server, until

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 "hello\\n"; }
        location /files/ { }
        location /down { proxy_pass http://127.0.0.1:%%PORT_1%%; }
    }
}
"""
Nginx = Callable[..., Server]
Backends = Callable[..., Backend]


def proxy(backend: Backend) -> str:
    return f"""
    http {{
        server {{
            listen 127.0.0.1:%%PORT_0%%;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            location / {{ proxy_pass http://{backend.address}; }}
        }}
        upstream unused {{ server {backend.address}; }}
    }}"""


def test_server_serves_files_and_logs(nginx: Nginx) -> None:
    server = nginx(CONF, files={"html/files/a.txt": "port %%PORT_0%%"})
    assert server.get("/").body == b"hello\n"
    assert server.get("/files/a.txt").text == f"port {server.port()}"
    assert '"GET /files/a.txt HTTP/1.1" 200' in server.access_log(2)[1]
    assert len(server.workers()) == 1


def test_configuration_check_names_file_and_line(nginx: Nginx) -> None:
    server = nginx("\nhttp {\n  nonsense;\n}", start=False)
    done = server.check()
    assert done.returncode == 1
    assert f'unknown directive "nonsense" in {server.prefix}/nginx.conf:3' in done.stderr


def test_a_server_that_does_not_start_says_why(nginx: Nginx) -> None:
    server = nginx("http { nonsense; }", start=False)
    server.allow("nonsense")
    with pytest.raises(AssertionError, match="unknown directive"):
        server.start()


def test_unexpected_error_lines_are_found_and_allowed(nginx: Nginx) -> None:
    server = nginx(CONF)
    with refused_port() as port:
        server.reload(CONF.replace("%%PORT_1%%", str(port)))
        assert server.get("/down").status == 502
    server.expect_log(r"connect\(\) failed \(111: Connection refused\)")
    assert len(server.unexpected()) == 1
    server.allow(r"connect\(\) failed")
    assert server.unexpected() == []


def test_reload_changes_what_is_served(nginx: Nginx) -> None:
    server = nginx(CONF)
    pid = server.pid
    server.reload(CONF.replace("hello", "changed"))
    assert server.get("/").body == b"changed\n"
    assert server.pid == pid


def test_kill_leaves_no_process(nginx: Nginx) -> None:
    server = nginx(CONF)
    assert len(server.survivors()) == 2
    server.kill()
    assert server.survivors() == []


def test_stop_returns_the_exit_code(nginx: Nginx) -> None:
    server = nginx(CONF)
    assert server.stop(signal.SIGTERM) == 0
    assert not (server.prefix / "logs/nginx.pid").exists()


def test_client_frames_pipelined_responses(nginx: Nginx) -> None:
    with nginx(CONF).client() as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = client.response("HEAD")
        assert (head.status, head.header("content-length"), head.body) == (200, "6", b"")
        assert client.response().body == b"hello\n"
        assert client.closed()


def test_backend_sees_the_request_as_it_was_sent(nginx: Nginx, backend: Backends) -> None:
    one = backend()
    server = nginx(proxy(one))
    reply = server.request("POST", "/a?b", {"X-One": "1"}, b"body")
    assert reply.text.startswith("POST /a?b HTTP/1.1\n")
    request = one.wait_requests(1)[0]
    assert request.raw.endswith(b"X-One: 1\r\n\r\nbody")
    assert request.header("host") == one.address


def test_backend_on_ipv6_and_unix(nginx: Nginx, backend: Backends, tmp_path: Path) -> None:
    for one in (backend(named("six"), host="::1"), backend(named("unix"), unix=str(tmp_path / "b.sock"))):
        text = proxy(one).replace(f"proxy_pass http://{one.address}", "proxy_pass http://unused")
        assert nginx(text).get("/").body == one.handler(one.requests[0]).body  # type: ignore[union-attr]


def test_backend_delays_by_event(nginx: Nginx, backend: Backends) -> None:
    gate = threading.Event()

    def handler(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n\r\n3\r\none\r\n"
        assert gate.wait(10)
        yield b"3\r\ntwo\r\n0\r\n\r\n"

    client = nginx(proxy(backend(handler))).client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"3\r\none\r\n" in client.read_until(b"one\r\n")
    gate.set()
    assert client.read_until(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


def test_backend_that_stops_and_comes_back(nginx: Nginx, backend: Backends) -> None:
    one = backend(named("one"))
    server = nginx(proxy(one))
    server.allow("Connection refused")
    one.stop()
    assert server.get("/").status == 502
    one.start()
    until(lambda: server.get("/").body == b"one", "the backend being back")


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_truncated_body_is_seen_by_the_client(nginx: Nginx, backend: Backends, end: bytes) -> None:
    server = nginx(proxy(backend(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort" + end)))
    server.allow("upstream prematurely closed", "Connection reset by peer")
    with pytest.raises(TruncatedError):
        server.get("/")


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_client_refuses_bad_framing(backend: Backends, wire: bytes) -> None:
    one = backend(lambda request: wire + CLOSE)
    with pytest.raises(MalformedError):
        get(one.port)


def test_client_reads_interim_chunked_and_trailers(backend: Backends) -> None:
    body = chunked(b"ab", b"c", trailers={"X-End": "1"})
    one = backend(
        lambda request: b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    )
    with Client(one.port) as client:
        reply = client.request("POST", "/", {"Transfer-Encoding": "chunked"}, body)
        assert [each.status for each in reply.interim] == [100]
        assert (reply.body, reply.trailers) == (b"abc", [("X-End", "1")])
        assert reply.raw.endswith(body)
    assert (one.requests[0].body, one.requests[0].trailers) == (b"abc", [("X-End", "1")])


def test_backend_counts_connections(backend: Backends) -> None:
    one = backend(lambda request: Reply(204))
    with Client(one.port) as client:
        assert [client.get("/").status for _ in range(3)] == [204, 204, 204]
    get(one.port)
    one.wait_closed(2)
    assert [(request.connection, request.nth, request.number) for request in one.requests] == [
        (1, 1, 1),
        (1, 2, 2),
        (1, 3, 3),
        (2, 1, 4),
    ]
