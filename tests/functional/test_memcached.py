"""memcached_pass, on nginx too, before servers that say exactly what the test wants."""

import gzip
import socket
import threading
from collections.abc import Callable

import pytest

from tests.backends import Backend
from tests.client import TruncatedError, build
from tests.harness import Server

Factory = Callable[..., Server]
Backends = Callable[..., Backend]

ZIPPED = gzip.compress(b"zipped", mtime=0)
BIG = b"0123456789abcdef" * 20_000
VALUES: dict[bytes, tuple[int, bytes]] = {
    b"/v/plain.html": (0, b"hello"),
    b"/v/empty": (0, b""),
    b"/v/end": (0, b"\r\nEND\r\n"),
    b"/v/big": (0, BIG),
    b"/v/a%20b%25%0A": (0, b"escaped"),
    b"/v/zipped": (2, ZIPPED),
    b"/v/other": (4, b"plain"),
}
WRONG = {  # what is said of a key, and the line that it is worth
    b"/v/key": (b"VALUE other 0 1\r\nx\r\nEND\r\n", r"memcached sent invalid key in response .* for key \"/v/key\""),
    b"/v/length": (b"VALUE /v/length 0 x\r\nx\r\nEND\r\n", "memcached sent invalid length in response"),
    b"/v/large": (b"VALUE /v/large 0 " + b"9" * 30 + b"\r\nx\r\nEND\r\n", "memcached sent invalid length in response"),
    b"/v/flags": (b"VALUE /v/flags a 1\r\nx\r\nEND\r\n", "memcached sent invalid flags in response"),
    b"/v/error": (b"ERROR\r\n", 'memcached sent invalid response: "ERROR"'),
    b"/v/newline": (b"END\n", "memcached sent invalid response"),
    b"/v/short": (b"VALUE /v/short 0\r\n", "memcached sent invalid"),
    b"/v/endless": (b"x" * 9000, "upstream sent too big header"),
}


def memcached(sock: socket.socket) -> None:
    """A server; the value of /v/slow comes byte by byte."""
    with sock.makefile("rwb", buffering=0) as stream:
        while line := stream.readline():
            assert line.startswith(b"get ") and line.endswith(b"\r\n")
            key = line[4:-2]
            if key in WRONG:
                stream.write(WRONG[key][0])
                return
            if key == b"/v/slow":
                for byte in b"VALUE /v/slow 0 4\r\nslow\r\nEND\r\n":
                    stream.write(bytes((byte,)))
            elif key == b"/v/trailer":
                stream.write(b"VALUE /v/trailer 0 4\r\ngood\r\nMORE\r\n")
            elif key == b"/v/cut":
                stream.write(b"VALUE /v/cut 0 100\r\nhalf")
                return
            elif key in VALUES:
                flags, value = VALUES[key]
                stream.write(b"VALUE %b %d %d\r\n%b\r\nEND\r\n" % (key, flags, len(value), value))
            else:
                stream.write(b"END\r\n")


def config(*peers: Backend, location: str = "") -> str:
    servers = "".join(f"server {peer.address} max_fails=0;" for peer in peers)
    return f"""
        http {{
            upstream u {{ {servers} keepalive 2; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                error_page 404 /none;
                set $memcached_key $uri;
                add_header X-Status $upstream_status always;
                types {{ text/html html; }}
                default_type text/x-key;
                location = /none {{ return 404 none; }}
                location /v/ {{ memcached_pass u; memcached_gzip_flag 2; {location} }}
                location /unset/ {{ set $memcached_key ""; memcached_pass u; }}
            }}
        }}"""


def test_values(either: Factory, backend: Backends) -> None:
    server = either(config(backend(connection=memcached)))
    for uri, text, kind in (
        ("/v/plain.html", "hello", "text/html"),
        ("/v/empty", "", "text/x-key"),
        ("/v/end", "\r\nEND\r\n", "text/x-key"),
        ("/v/a%20b%25%0a", "escaped", "text/x-key"),
        ("/v/slow", "slow", "text/x-key"),
        ("/v/big", BIG.decode(), "text/x-key"),
    ):
        reply = server.get(uri)
        assert (reply.status, reply.text, reply.header("content-type")) == (200, text, kind), uri
        assert reply.header("content-length") == str(len(text))
    reply = server.get("/v/big", [("Range", "bytes=16-18")])
    assert (reply.status, reply.text) == (206, "012")
    reply = server.request("HEAD", "/v/plain.html")
    assert (reply.status, reply.header("content-length"), reply.body) == (200, "5", b"")


def test_a_flag_says_that_a_value_is_compressed(either: Factory, backend: Backends) -> None:
    server = either(config(backend(connection=memcached)))
    reply = server.get("/v/zipped")
    assert (reply.header("content-encoding"), reply.body) == ("gzip", ZIPPED)
    assert server.get("/v/other").header("content-encoding") is None


def test_a_missing_key_is_the_location_s_own(either: Factory, backend: Backends) -> None:
    server = either(config(backend(connection=memcached)))
    reply = server.get("/v/nothing")
    assert (reply.status, reply.text, reply.header("x-status")) == (404, "none", "404")
    assert server.matching(r'\[info\].*key: "/v/nothing" was not found by memcached')


def test_connections_are_kept(either: Factory, backend: Backends) -> None:
    peer = backend(connection=memcached)
    server = either(config(peer))
    for uri in ("/v/plain.html", "/v/nothing", "/v/big", "/v/empty"):
        server.get(uri)
    assert peer.connections == 1
    server.request("HEAD", "/v/plain.html")
    server.get("/v/plain.html")
    assert peer.connections == 2, "a value that nobody wanted is still under way on the first"


@pytest.mark.parametrize("key", WRONG)
def test_an_answer_that_is_none(either: Factory, backend: Backends, key: bytes) -> None:
    server = either(config(backend(connection=memcached)))
    server.allow(WRONG[key][1])
    assert server.get(key.decode()).status == 502
    assert server.matching(WRONG[key][1])


def test_a_value_that_ends_wrongly(either: Factory, backend: Backends) -> None:
    peer = backend(connection=memcached)
    server = either(config(peer))
    server.allow("invalid trailer", "prematurely closed")
    assert server.get("/v/trailer").text == "good"
    assert server.matching("memcached sent invalid trailer")
    server.get("/v/plain.html")
    assert peer.connections == 2
    with pytest.raises(TruncatedError):
        server.get("/v/cut")
    assert server.matching("upstream prematurely closed connection")


def test_the_next_server_may_know_better(either: Factory, backend: Backends) -> None:
    one, two = backend(connection=memcached), backend(connection=lambda sock: sock.close())
    text = config(two, one, location="memcached_next_upstream error not_found invalid_response;")
    server = either(text)
    server.allow("prematurely closed", r"recv\(\) failed", "invalid response")
    assert server.get("/v/plain.html").text == "hello"
    assert server.get("/v/error").status == 502
    lost = config(one, one, location="memcached_next_upstream not_found;")
    server.reload(lost)
    reply = server.get("/v/nothing")
    assert (reply.status, reply.header("x-status")) == (404, "404, 404")


def test_what_is_refused(either: Factory, backend: Backends) -> None:
    server = either(config(backend(connection=memcached)))
    server.allow(r'the "\$memcached_key" variable is not set')
    assert server.request("POST", "/v/plain.html", body=b"x").status == 405
    assert server.get("/unset/").status == 500
    assert server.matching(r'the "\$memcached_key" variable is not set')


def test_what_is_not_for_the_client_goes_on_without_it(either: Factory, backend: Backends) -> None:
    left = threading.Event()

    def fails(sock: socket.socket) -> None:
        sock.recv(1000)
        left.wait(10)

    one, two = backend(connection=fails), backend(connection=memcached)
    conf = config(one, two).replace(
        "location = /none", 'location /after { post_action /v/x; return 200 "done"; } location = /none'
    )
    server = either(conf)
    server.allow("prematurely closed")
    with server.client() as client:
        client.send(build("GET", "/after"))
        assert client.response().text == "done"
        one.wait_connections(1)
    left.set()
    two.wait_connections(1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("memcached_next_upstream http_404;", 'invalid value "http_404"'),
        ("memcached_buffering on;", 'unknown directive "memcached_buffering"'),
        ("memcached_gzip_flag x;", "invalid number"),
    ],
)
def test_what_the_configuration_may_not_say(either: Factory, line: str, told: str) -> None:
    assert told in either(f"http {{ {line} }}", start=False).check().stderr
