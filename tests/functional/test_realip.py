"""set_real_ip_from, real_ip_header, real_ip_recursive, on nginx too: the address that a trusted proxy tells."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.client import build
from tests.harness import Server, until

Factory = Callable[..., Server]

CONF = """
    http {
        log_format from "$remote_addr $realip_remote_addr $uri";
        access_log logs/from.log from;
        add_header X-Addr $remote_addr:$remote_port always;
        add_header X-Own $realip_remote_addr always;
        set_real_ip_from 127.0.0.0/8;
        set_real_ip_from 10.0.0.0/8;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { return 200 $remote_addr; }
            location /ranges/ { real_ip_header X-Forwarded-For; }
            location /all/ { real_ip_header X-Forwarded-For; real_ip_recursive on; }
            location /other/ { real_ip_header X-Client; }
            location /trusted/ { set_real_ip_from 192.0.2.0/24; }
            location /barred/ { deny 192.0.2.7; real_ip_header X-Client; }
            location /binary/ { return 200 $binary_remote_addr; }
        }
        server {
            listen 127.0.0.1:%%PORT_1%%;
            real_ip_header X-Forwarded-For;
            location / { return 200 $remote_addr; }
            location /inner/ { error_page 404 = /other; }
            location /other { return 200 "$remote_addr $realip_remote_addr"; }
        }
        server {
            listen unix:%%DIR%%/socket;
            listen 127.0.0.1:%%PORT_2%%;
            set_real_ip_from unix:;
            location / { return 200 "$remote_addr $realip_remote_addr"; }
        }
    }"""
FILES = {f"html/{name}/x": name for name in ("ranges", "all", "other", "trusted", "barred")}


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF, files=FILES)


@pytest.mark.parametrize(
    ("value", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", ""),
        ("192.0.2.1:8080", "192.0.2.1", "8080"),
        ("2001:DB8::0:1", "2001:db8::1", ""),
        ("[2001:db8::1]:443", "2001:db8::1", "443"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", ""),
        ("192.0.2.9, 192.0.2.1 ,", "192.0.2.1", ""),
        ("[2001:db8::1]", None, None),
        ("192.0.2.1:0", None, None),
        ("192.0.2.1:x", None, None),
        pytest.param("192.0.2.1:" + "9" * 5000, None, None, id="endless port"),
        ("unix:", None, None),
        ("nonsense", None, None),
        ("", None, None),
    ],
)
def test_what_is_an_address(server: Server, value: str, address: str | None, port: str | None) -> None:
    reply = server.get("/", [("X-Real-IP", value)])
    if address is None:
        assert reply.text == "127.0.0.1"
    else:
        assert (reply.header("x-addr"), reply.text) == (f"{address}:{port}", address)
    assert reply.header("x-own") == "127.0.0.1"


def asked(server: Server, uri: str, *fields: tuple[str, str]) -> str:
    """The client's address in the response to that."""
    return (server.get(uri, list(fields)).header("x-addr") or "").rpartition(":")[0]


def test_which_of_a_list(server: Server) -> None:
    chain = ("X-Forwarded-For", "203.0.113.1, 192.0.2.5, 10.1.1.1"), ("X-Forwarded-For", "10.2.2.2, 10.3.3.3")
    assert asked(server, "/ranges/x", *chain) == "10.3.3.3"
    assert asked(server, "/all/x", *chain) == "192.0.2.5"
    assert asked(server, "/all/x", ("X-Forwarded-For", "10.1.1.1, 10.2.2.2")) == "10.1.1.1", "all are trusted"
    assert asked(server, "/all/x", ("X-Forwarded-For", "bad, 10.2.2.2")) == "10.2.2.2"
    assert asked(server, "/other/x", ("X-Client", "192.0.2.3"), ("x-client", "192.0.2.4")) == "192.0.2.3"
    assert asked(server, "/other/x", ("X-Real-IP", "192.0.2.3"), ("X-Client", "192.0.2.4")) == "192.0.2.3", "once"


def test_only_the_trusted_are_believed(server: Server) -> None:
    assert asked(server, "/ranges/x", ("X-Forwarded-For", "192.0.2.1")) == "192.0.2.1"
    # the server's own list comes first, and once an address is found no location looks again
    assert asked(server, "/trusted/x", ("X-Real-IP", "192.0.2.1")) == "192.0.2.1"


def test_rules_and_logs_take_it_for_the_client_s(server: Server) -> None:
    server.allow("access forbidden by rule")
    assert server.get("/barred/x", [("X-Client", "192.0.2.7")]).status == 403
    assert server.get("/barred/x", [("X-Client", "192.0.2.8")]).status == 200
    assert server.matching(r"access forbidden by rule, client: 192\.0\.2\.7, server: ")
    log = server.prefix / "logs" / "from.log"
    lines = ["192.0.2.7 127.0.0.1 /barred/x", "192.0.2.8 127.0.0.1 /barred/x"]
    until(lambda: log.read_text().splitlines() == lines, log.read_text)
    assert server.get("/binary/", [("X-Real-IP", "1.2.3.4")]).body == b"\1\2\3\4"


def test_it_ends_with_the_request(server: Server) -> None:
    with server.client() as client:
        port = str(client.local_port)
        client.send(build("GET", "/", [("X-Real-IP", "192.0.2.1")]) + build("GET", "/"))
        got = [client.response().header("x-addr") for _ in range(2)]
        assert got == ["192.0.2.1:", f"127.0.0.1:{port}"]
        client.send(build("GET", "/", [("X-Real-IP", "192.0.2.2")]))
        assert client.response().header("x-addr") == "192.0.2.2:"


def test_it_outlives_internal_redirects(server: Server) -> None:
    server.allow("No such file")
    with server.client(1) as client:
        client.send(build("GET", "/inner/none", [("X-Forwarded-For", "192.0.2.1")]))
        assert client.response().text == "192.0.2.1 127.0.0.1"


def test_a_unix_domain_socket_is_trusted_by_name(server: Server) -> None:
    with server.client(path=str(server.prefix / "socket")) as client:
        assert client.get("/").text == "unix: unix:"
        assert client.get("/", [("X-Real-IP", "192.0.2.1")]).text == "192.0.2.1 unix:"
        assert client.get("/").text == "unix: unix:"
    reply = server.get("/", [("X-Real-IP", "192.0.2.1")], index=2)
    assert reply.text == "127.0.0.1 127.0.0.1", "a list of its own replaces the one around it"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("set_real_ip_from no-such-host.invalid;", 'host not found in set_real_ip_from "no-such-host.invalid"'),
        ("set_real_ip_from 10.0.0.1/8;", "low address bits of 10.0.0.1/8 are meaningless"),
        ("real_ip_header A; real_ip_header B;", '"real_ip_header" directive is duplicate'),
    ],
)
def test_what_is_refused(either: Factory, line: str, told: str) -> None:
    result: Any = either(f"http {{ {line} }}", start=False).check()
    assert told in re.sub(r"\d+#\d+: ", "", result.stderr)


def test_the_proxy_protocol_is_not_here(headgate: Factory) -> None:
    assert "PROXY protocol" in headgate("http { real_ip_header proxy_protocol; }", start=False).check().stderr
