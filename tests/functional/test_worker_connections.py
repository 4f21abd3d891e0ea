"""`worker_connections`: idle connections give way to new ones; when none is idle there is no room."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server, until

Factory = Callable[..., Server]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def site(connections: int, address: str = "127.0.0.1:1") -> str:
    return f"""
        events {{ worker_connections {connections}; }}
        http {{
            upstream u {{ server {address}; keepalive 8; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ return 200 ok; }}
                location /proxied {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; }}
            }}
        }}"""


def test_idle_clients_give_way(either: Factory) -> None:
    server = either(site(16))
    clients = []
    for _ in range(40):
        clients.append(server.client())
        assert clients[-1].request("GET", "/", {"Host": "a"}).body == b"ok"
    assert clients[0].closed(), "the longest idle goes first"
    assert clients[-1].request("GET", "/", {"Host": "a"}).body == b"ok"
    server.expect_log(r"\[warn\] .* 16 worker_connections are not enough, reusing connections")


def test_clients_that_have_sent_nothing_give_way(either: Factory) -> None:
    server = either(site(16))
    silent = [server.client() for _ in range(40)]
    assert server.get("/").body == b"ok"
    assert silent[0].closed()


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def test_a_busy_worker_has_no_room(headgate: Factory, backend: Callable[..., Backend], hold: threading.Event) -> None:
    def answer(request: Request) -> Reply:
        hold.wait()
        return Reply(body=b"late")

    server = headgate(site(5, backend(answer).address))
    busy = [server.client() for _ in range(2)]
    for client in busy:
        client.send(GET.replace(b"/ ", b"/proxied ", 1))
    server.allow("5 worker_connections are not enough")
    # each of the two has a connection to the server, too: a third client has room, and none for another
    until(lambda: server.get("/proxied").status == 500, "no room to connect")
    server.expect_log(r"\[alert\] .* 5 worker_connections are not enough while connecting to upstream, client:")
    third = server.client()
    third.send(GET[:10])
    refused = server.client()
    with contextlib.suppress(ConnectionError):
        refused.send(GET)
        assert refused.closed()
    server.expect_log(r"\[alert\] \d+#\d+: 5 worker_connections are not enough$")
    hold.set()
    for client in busy:
        assert client.response().body == b"late"
    third.send(GET[10:])
    assert third.response().body == b"ok"


def test_idle_connections_to_servers_give_way(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend()
    server = headgate(site(3, peer.address))
    with server.client() as one:
        assert one.request("GET", "/proxied", {"Host": "a"}).status == 200
        one.send(GET[:10])
        with server.client() as two, server.client() as three:
            two.send(GET[:10])
            three.send(GET)
            assert three.response().body == b"ok"
