"""`listen`: ranges of ports, and addresses that stand beside `*:port`."""

import socket
from collections.abc import Callable

import pytest

from tests.client import Client, Response
from tests.harness import Server

Factory = Callable[..., Server]

BESIDE = """
http {
    server {
        listen %%PORT_0%%;
        listen [::]:%%PORT_0%%;
        location / { return 200 "any $server_addr $server_port"; }
    }
    server {
        listen 127.0.0.2:%%PORT_0%%;
        server_name a;
        location / { return 200 "two $server_name $server_addr"; }
    }
    server {
        listen 127.0.0.2:%%PORT_0%%;
        server_name b;
        location / { return 200 "two $server_name $server_addr"; }
    }
    server {
        listen [::1]:%%PORT_0%%;
        location / { return 200 "six $server_addr"; }
    }
}
"""


def ask(server: Server, address: str, host: str = "a", port: int | None = None) -> Response:
    with Client(server.port() if port is None else port, host=address) as client:
        return client.request("GET", "/", {"Host": host})


def test_addresses_beside_a_wildcard(either: Factory) -> None:
    server = either(BESIDE)
    assert ask(server, "127.0.0.1").body == b"any 127.0.0.1 %d" % server.port()
    assert ask(server, "127.0.0.3", "b").body == b"any 127.0.0.3 %d" % server.port()
    assert ask(server, "127.0.0.2").body == b"two a 127.0.0.2"
    assert ask(server, "127.0.0.2", "b").body == b"two b 127.0.0.2"
    assert ask(server, "::1").body == b"six ::1"


def test_a_reload_beside_a_wildcard(headgate: Factory) -> None:
    server = headgate(BESIDE)
    with Client(server.port(), host="127.0.0.2") as client:
        assert client.request("GET", "/", {"Host": "b"}).body == b"two b 127.0.0.2"
        server.reload(BESIDE.replace("127.0.0.2", "127.0.0.3"))
        assert client.request("GET", "/", {"Host": "b"}).body == b"two b 127.0.0.2", (
            "a kept connection keeps its server"
        )
    assert ask(server, "127.0.0.2").body == b"any 127.0.0.2 %d" % server.port()
    assert ask(server, "127.0.0.3").body == b"two a 127.0.0.3"


def _free_range() -> int:
    """The first of three ports in a row that were free a moment ago."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port


def test_a_range_of_ports(either: Factory) -> None:
    first = _free_range()
    server = either(
        f"http {{ server {{ listen 127.0.0.1:{first}-{first + 2}; location / {{ return 200 $server_port; }} }} }}"
    )
    for port in range(first, first + 3):
        assert ask(server, "127.0.0.1", port=port).body == b"%d" % port


@pytest.mark.parametrize("option", ["deferred", "bind", "backlog=5 bind", "so_keepalive=on", "fastopen=3"])
def test_options_of_the_socket(either: Factory, option: str) -> None:
    server = either(f"http {{ server {{ listen 127.0.0.1:%%PORT_0%% {option}; location / {{ return 200 ok; }} }} }}")
    assert server.get("/").body == b"ok"
