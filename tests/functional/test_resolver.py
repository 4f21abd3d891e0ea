"""`resolver` and `resolver_timeout`: names in proxy_pass that only a request tells, on headgate and on nginx."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, echo, named
from tests.dns_server import Cname, Code, NameServer, Records
from tests.harness import Server

Factory = Callable[..., Server]


@pytest.fixture(params=["headgate", "nginx"])
def either(request: pytest.FixtureRequest) -> Factory:
    """headgate, and nginx with the same configuration."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def dns() -> Iterator[Callable[..., NameServer]]:
    made: list[NameServer] = []

    def factory(*args: object, **options: object) -> NameServer:
        made.append(NameServer(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    yield factory
    for each in made:
        each.stop()


def conf(resolver: str, *more: str, location: str = "") -> str:
    return (
        f"http {{ resolver {resolver}; {' '.join(more)} server {{ listen 127.0.0.1:%%PORT_0%%;"
        f" location / {{ proxy_pass http://$arg_h; add_header X-Addr $upstream_addr always; {location} }} }} }}"
    )


def test_a_name_is_resolved_and_kept(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend()
    names = dns({"one.test": ["127.0.0.1"]})
    running = either(conf(names.address))
    for _ in range(3):
        reply = running.get(f"/path?h=one.test:{one.port}")
        assert (reply.status, reply.header("x-addr")) == (200, one.address)
    assert running.get(f"/?h=ONE.Test.:{one.port}").status == 200
    assert sorted(names.questions) == [("one.test", "A"), ("one.test", "AAAA")]
    assert one.requests[0].header("host") == f"one.test:{one.port}"


FAILURES: dict[str, tuple[Records, str]] = {
    "nx.test": (Code("NXDOMAIN"), r"\(3: Host not found\)"),
    "servfail.test": (Code("SERVFAIL"), r"\(2: Server failure\)"),
    "refused.test": (Code("REFUSED"), r"\(5: Operation refused\)"),
    "notimp.test": (Code("NOTIMP"), r"\(4: Unimplemented\)"),
    "empty.test": ([], r"\(3: Host not found\)"),
    "silent.test": (None, r"\(110: Operation timed out\)"),
}


def test_what_cannot_be_resolved_is_a_502(either: Factory, dns: Callable[..., NameServer]) -> None:
    names = dns()
    names.answer = lambda name, kind: FAILURES[name][0]
    running = either(conf(names.address, "resolver_timeout 300ms;"))
    for name, (_, message) in FAILURES.items():
        reply = running.get(f"/?h={name}")
        assert (reply.status, reply.header("x-addr")) == (502, None)
        (line,) = running.expect_log(f"{name} could not be resolved {message}, client: 127.0.0.1")
        assert "upstream:" not in line
    running.allow("could not be resolved")


def test_nobody_to_ask(either: Factory) -> None:
    text = "http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://$arg_h; } } }"
    running = either(text)
    assert running.get("/?h=one.test").status == 502
    running.expect_log("no resolver defined to resolve one.test, client: ")
    running.allow("no resolver defined")


def test_addresses_need_no_resolver(either: Factory, backend: Callable[..., Backend], tmp_path: object) -> None:
    four, six, local = backend(), backend(host="::1"), backend(unix=f"{tmp_path}/s")
    text = "http { server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://$arg_h; } } }"
    running = either(text)
    for one, host in ((four, four.address), (six, six.address), (local, f"unix:{tmp_path}/s:")):
        assert running.get(f"/?h={host}").status == 200
        assert len(one.requests) == 1


def test_a_variable_may_name_a_group(either: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(named("one"))
    text = (
        f"http {{ upstream Group {{ server {one.address}; }} server {{ listen 127.0.0.1:%%PORT_0%%;"
        " location / { proxy_pass http://$arg_h; } } }"
    )
    running = either(text)
    assert running.get("/?h=group").text == "one"
    assert running.get("/?h=GROUP").text == "one"
    assert running.get("/?h=group:80").status == 502  # a group has no port: this is a name
    running.allow("no resolver defined")


def test_aliases_are_followed(either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]) -> None:
    one = backend()
    names = dns(
        {
            "a.test": Cname("b.test"),
            "b.test": [Cname("c.test")],
            "c.test": ["127.0.0.1"],
            "loop.test": Cname("loop.test"),
            "nowhere.test": Cname("absent.test"),
        }
    )
    running = either(conf(names.address))
    assert running.get(f"/?h=a.test:{one.port}").status == 200
    asked = len(names.questions)
    assert running.get(f"/?h=a.test:{one.port}").status == 200
    assert len(names.questions) == asked
    for name in ("loop.test", "nowhere.test"):
        assert running.get(f"/?h={name}").status == 502
        running.expect_log(rf"{name}|absent.test could not be resolved \(3: Host not found\)")
    running.allow("could not be resolved")


def test_addresses_of_both_families(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend(host="::1")
    names = dns({"both.test": ["127.0.0.1", "::1"]})
    running = either(conf(names.address))
    reply = running.get(f"/?h=both.test:{one.port}")
    tried = (reply.header("x-addr") or "").split(", ")
    assert reply.status == 200
    assert tried[-1] == f"[::1]:{one.port}"
    running.allow("Connection refused")


@pytest.mark.parametrize(("option", "kind"), [("ipv6=off", "A"), ("ipv4=off", "AAAA")])
def test_one_family_only(
    headgate: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer], option: str, kind: str
) -> None:
    one = backend(host="127.0.0.1" if kind == "A" else "::1")
    names = dns({"both.test": ["127.0.0.1", "::1"]})
    running = headgate(conf(f"{names.address} {option}"))
    for _ in range(3):
        assert running.get(f"/?h=both.test:{one.port}").status == 200
    assert names.questions == [("both.test", kind)]


def test_the_next_address_gets_what_a_dead_one_loses(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    """Peers that a request resolves are thrown away with it: the dead one is tried again by others."""
    one = backend()
    names = dns({"two.test": ["127.0.0.9", "127.0.0.1"]})
    running = either(conf(f"{names.address} ipv6=off"))
    seen = set()
    for _ in range(40):
        reply = running.get(f"/?h=two.test:{one.port}")
        assert reply.status == 200
        seen.add(reply.header("x-addr"))
    # the first address is any, and the dead one is tried again and again
    assert seen == {f"127.0.0.1:{one.port}", f"127.0.0.9:{one.port}, 127.0.0.1:{one.port}"}
    running.allow("Connection refused")


def test_a_question_is_asked_once(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend()
    names, gate = dns(), threading.Event()

    def late(name: str, kind: str) -> Records:
        gate.wait(10)
        return ["127.0.0.1"]

    names.answer = late
    running = either(conf(f"{names.address} ipv6=off"))
    clients = [running.client() for _ in range(5)]
    for client in clients:
        client.send(f"GET /?h=late.test:{one.port} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    names.wait(1)
    assert running.request("GET", "/").status in (500, 502)  # the server is not blocked meanwhile
    gate.set()
    assert [client.response().status for client in clients] == [200] * 5
    assert names.questions == [("late.test", "A")]
    running.allow("invalid|no host|resolved")


def test_valid_and_ttl(either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]) -> None:
    one = backend()
    by_ttl, by_valid = dns({"x.test": ["127.0.0.1"]}, ttl=1), dns({"x.test": ["127.0.0.1"]}, ttl=3600)
    long_valid = dns({"x.test": ["127.0.0.1"]}, ttl=0)
    servers = {by_ttl: "", by_valid: " valid=1s", long_valid: " valid=1h"}
    for names, option in servers.items():
        running = either(conf(f"{names.address} ipv6=off{option}"))
        target = f"/?h=x.test:{one.port}"
        assert running.get(target).status == 200
        if names is long_valid:
            assert running.get(target).status == 200
            assert len(names.questions) == 1
            continue
        deadline = time.monotonic() + 10
        while len(names.questions) < 2 and time.monotonic() < deadline:
            assert running.get(target).status == 200
        assert len(names.questions) == 2


def test_long_answers_come_by_tcp(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend()
    names = dns({"long.test": ["127.0.0.1"]})
    names.truncate = True
    running = either(conf(f"{names.address} ipv6=off"))
    assert running.get(f"/?h=long.test:{one.port}").status == 200
    assert names.questions == [("long.test", "A")] * 2
    assert names.by_tcp == [("long.test", "A")]


def test_only_answers_to_questions_count(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend()
    names = dns({"real.test": ["127.0.0.1"]})

    def forged(data: bytes) -> list[bytes]:
        wrong_id = bytes([data[0] ^ 0xFF]) + data[1:]
        wrong_name = data.replace(b"\x04real\x04test", b"\x04fake\x04test")
        poisoned = wrong_id.replace(socket.inet_aton("127.0.0.1"), socket.inet_aton("127.0.0.9"))
        return [poisoned, wrong_name, b"\0", data[:10], b"\xff" * 40, data]

    names.tamper = forged
    running = either(conf(f"{names.address} ipv6=off"))
    assert running.get(f"/?h=real.test:{one.port}").header("x-addr") == one.address
    running.expect_log("wrong ident")
    running.expect_log("unexpected DNS response for fake.test")
    running.allow("DNS response|DNS error")


def test_the_next_name_server_is_asked(
    headgate: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    """Where nobody listens the next server is asked at once; nginx takes five seconds for it."""
    one = backend()
    names = dns({f"n{i}.test": ["127.0.0.1"] for i in range(4)})
    dead = NameServer()
    dead.stop()
    running = headgate(conf(f"{dead.address} {names.address} ipv6=off", "resolver_timeout 4s;"))
    for i in range(4):
        assert running.get(f"/?h=n{i}.test:{one.port}").status == 200
    running.expect_log(rf"recv\(\) failed \(111: Connection refused\) while resolving, resolver: {dead.address}")
    running.allow("while resolving")


def test_a_client_that_leaves_is_not_waited_for(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    names = dns()
    names.answer = lambda name, kind: None
    running = either(conf(f"{names.address} ipv6=off", "resolver_timeout 30s;"))
    client = running.client()
    client.send(b"GET /?h=gone.test HTTP/1.1\r\nHost: a\r\n\r\n")
    names.wait(1)
    client.close()
    (line,) = running.access_log(1)
    assert " 499 " in line


def test_the_body_is_there_when_the_name_is(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend(lambda request: Reply(body=request.body))
    names = dns({"one.test": ["127.0.0.1"]})
    running = either(conf(names.address, "client_body_buffer_size 1k;"))
    body = b"0123456789" * 5000
    assert running.request("POST", f"/?h=one.test:{one.port}", body=body).body == body


def test_locations_may_have_resolvers_of_their_own(
    either: Factory, backend: Callable[..., Backend], dns: Callable[..., NameServer]
) -> None:
    one = backend()
    outer, inner = dns({"one.test": ["127.0.0.1"]}), dns({"one.test": ["127.0.0.1"]})
    running = either(
        f"http {{ resolver {outer.address}; server {{ listen 127.0.0.1:%%PORT_0%%;"
        " location / { proxy_pass http://$arg_h; }"
        f" location /in {{ resolver {inner.address}; proxy_pass http://$arg_h; }} }} }}"
    )
    assert running.get(f"/?h=one.test:{one.port}").status == 200
    assert (len(outer.questions), len(inner.questions)) == (2, 0)
    assert running.get(f"/in?h=one.test:{one.port}").status == 200
    assert (len(outer.questions), len(inner.questions)) == (2, 2)


def test_tls_to_a_resolved_name(headgate: Factory, dns: Callable[..., NameServer], tmp_path: object) -> None:
    from pathlib import Path

    from tests.tls import Authority, TlsBackend

    root = Authority("root")
    one = TlsBackend(echo, root.issue("one", Path(str(tmp_path)), names=["one.test"]).server())
    names = dns({"one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"]})
    ca = root.write(Path(str(tmp_path)) / "ca.crt")
    running = headgate(
        f"http {{ resolver {names.address}; server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass https://$arg_h;"
        f" proxy_ssl_verify on; proxy_ssl_server_name on; proxy_ssl_trusted_certificate {ca}; }} }} }}"
    )
    assert running.get(f"/?h=one.test:{one.port}").status == 200
    assert one.handshakes[0].sni == "one.test"
    assert running.get(f"/?h=two.test:{one.port}").status == 502
    running.expect_log('certificate does not match "two.test"')
    running.allow("does not match")
    one.stop()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x"),
        ("resolver 127.0.0.1 ipv6=maybe;", "invalid parameter: ipv6=maybe"),
        ("resolver 127.0.0.1 ipv4=off ipv6=off;", '"ipv4" and "ipv6" cannot both be "off"'),
        ("resolver valid=5s;", "no name servers defined"),
        ("resolver 127.0.0.1:99999;", 'invalid port in resolver "127.0.0.1:99999"'),
        ("resolver no.such.host.invalid;", 'host not found in resolver "no.such.host.invalid"'),
        ("resolver 127.0.0.1; resolver 127.0.0.2;", '"resolver" directive is duplicate'),
        ("resolver 127.0.0.1 status_zone=z;", 'parameter "status_zone=z" of "resolver" is not implemented'),
        ("resolver_timeout x;", '"resolver_timeout" directive invalid value'),
    ],
)
def test_refused(headgate: Factory, line: str, message: str) -> None:
    result = headgate(f"http {{\n{line}\n}}", start=False).check()
    assert result.returncode == 1
    assert f"{message} in " in result.stderr or f"{message} by headgate in " in result.stderr
    assert "nginx.conf:2" in result.stderr
