"""`server NAME resolve` and `service=`: addresses that change while the server runs, the same for all workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, named
from tests.dns_server import Code, NameServer, Srv
from tests.harness import Server, until

Factory = Callable[..., Server]


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server."""
    server = NameServer(ttl=1)
    yield server
    server.stop()


@pytest.fixture
def three(backend: Callable[..., Backend]) -> list[Backend]:
    """Backends on one port of three addresses, that say which one they are."""
    while True:
        first = backend(named("127.0.0.1"))
        try:
            others = [backend(named(f"127.0.0.{i}"), host=f"127.0.0.{i}", port=first.port) for i in (2, 3)]
        except OSError:
            continue
        return [first, *others]


def conf(names: NameServer, upstream: str, *, workers: int = 1, http: str = "") -> str:
    return (
        f"worker_processes {workers};\n"
        f"http {{ resolver {names.address} ipv6=off valid=1s; resolver_timeout 1s; {http}\n"
        f"upstream u {{ zone z 1m; {upstream} }}\n"
        "server { listen 127.0.0.1:%%PORT_0%%; location / { proxy_pass http://u;"
        " add_header X-Addr $upstream_addr always; } } }"
    )


def answers(running: Server, count: int = 6) -> list[str]:
    """Who answers so many requests, in order of the name; "502" when nobody does."""
    replies = [running.get("/") for _ in range(count)]
    return sorted({reply.text if reply.status == 200 else str(reply.status) for reply in replies})


def settle(running: Server, expected: list[str]) -> None:
    """Waits until exactly these answer."""
    running.allow("no live upstreams", "could not be resolved")
    until(lambda: answers(running) == expected, lambda: f"{expected}, not {answers(running)}\n{running.tail()}")


def test_addresses_come_and_go(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    names.records["a.test"] = ["127.0.0.1"]
    running = headgate(conf(names, f"server a.test:{three[0].port} resolve;"))
    settle(running, ["127.0.0.1"])
    names.records["a.test"] = ["127.0.0.2", "127.0.0.3"]
    settle(running, ["127.0.0.2", "127.0.0.3"])
    names.records["a.test"] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    settle(running, ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    del names.records["a.test"]
    settle(running, ["502"])
    running.expect_log(r"a.test could not be resolved \(3: Host not found\)")
    running.expect_log('no live upstreams while connecting to upstream, .* upstream: "http://u/"')
    names.records["a.test"] = ["127.0.0.3"]
    settle(running, ["127.0.0.3"])


def test_the_last_good_addresses_stay_while_dns_is_down(
    headgate: Factory, names: NameServer, three: list[Backend]
) -> None:
    names.records["a.test"] = ["127.0.0.2"]
    running = headgate(conf(names, f"server a.test:{three[0].port} resolve;"))
    settle(running, ["127.0.0.2"])
    names.answer = lambda name, kind: Code("SERVFAIL")
    running.expect_log(r"a.test could not be resolved \(2: Server failure\)")
    assert answers(running) == ["127.0.0.2"]
    names.answer = lambda name, kind: None
    running.expect_log(r"a.test could not be resolved \(110: Operation timed out\)")
    assert answers(running) == ["127.0.0.2"]
    names.answer = lambda name, kind: ["127.0.0.3"]
    settle(running, ["127.0.0.3"])


def test_one_worker_asks_and_all_know(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    names.records["a.test"] = ["127.0.0.1"]
    running = headgate(conf(names, f"server a.test:{three[0].port} resolve;", workers=4))
    settle(running, ["127.0.0.1"])
    assert len(names.questions) <= 4  # one worker's, in a second or two
    names.records["a.test"] = ["127.0.0.2"]
    clients = [running.client() for _ in range(16)]  # on whichever workers

    def body_of_all() -> set[str]:
        return {client.request("GET", "/").text for client in clients}

    until(lambda: body_of_all() == {"127.0.0.2"}, "all workers on the new address")


def test_when_the_asking_worker_dies_another_asks(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    names.records["a.test"] = ["127.0.0.1"]
    running = headgate(conf(names, f"server a.test:{three[0].port} resolve;", workers=2))
    settle(running, ["127.0.0.1"])
    for pid in running.workers():
        os.kill(pid, signal.SIGKILL)
    running.allow("exited on signal 9")
    running.expect_log("exited on signal 9", 2)
    settle(running, ["127.0.0.1"])
    names.records["a.test"] = ["127.0.0.2"]
    settle(running, ["127.0.0.2"])


def test_a_reload_keeps_addresses_and_what_is_known_of_them(
    headgate: Factory, names: NameServer, three: list[Backend]
) -> None:
    three[1].stop()
    names.records["a.test"] = ["127.0.0.1", "127.0.0.2"]
    text = conf(names, f"server a.test:{three[0].port} resolve max_fails=1 fail_timeout=1h;")
    running = headgate(text)
    running.allow("Connection refused", "temporarily disabled")
    settle(running, ["127.0.0.1"])
    running.expect_log("upstream server temporarily disabled")
    names.answer = lambda name, kind: Code("SERVFAIL")
    refused = len(running.matching("Connection refused"))
    running.reload(text + "\n# the same again\n")
    assert answers(running, 20) == ["127.0.0.1"]
    assert len(running.matching("Connection refused")) == refused


def test_beside_plain_servers_and_backups(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    port = three[0].port
    names.records["b.test"] = ["127.0.0.2"]
    running = headgate(conf(names, f"server 127.0.0.1:{port}; server b.test:{port} resolve backup;"))
    settle(running, ["127.0.0.1"])
    three[0].stop()
    running.allow("Connection refused", "temporarily disabled")
    settle(running, ["127.0.0.2"])


def test_weights(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    names.records["a.test"] = ["127.0.0.1"]
    names.records["b.test"] = ["127.0.0.2"]
    port = three[0].port
    running = headgate(conf(names, f"server a.test:{port} resolve weight=3; server b.test:{port} resolve;"))
    settle(running, ["127.0.0.1", "127.0.0.2"])
    bodies = [running.get("/").text for _ in range(40)]
    assert (bodies.count("127.0.0.1"), bodies.count("127.0.0.2")) == (30, 10)


def test_services(headgate: Factory, names: NameServer, backend: Callable[..., Backend]) -> None:
    one, two, spare = backend(named("one")), backend(named("two")), backend(named("spare"))
    names.records |= {
        "_http._tcp.s.test": [
            Srv(10, 3, one.port, "x.test"),
            Srv(10, 1, two.port, "x.test"),
            Srv(20, 1, spare.port, "y.test"),
        ],
        "x.test": ["127.0.0.1"],
        "y.test": ["127.0.0.1"],
    }
    running = headgate(conf(names, "server s.test service=http resolve;"))
    settle(running, ["one", "two"])
    bodies = [running.get("/").text for _ in range(40)]
    assert (bodies.count("one"), bodies.count("two")) == (30, 10)
    one.stop()
    two.stop()
    running.allow("Connection refused", "temporarily disabled")
    settle(running, ["spare"])
    names.records["_http._tcp.s.test"] = [Srv(1, 1, spare.port, "x.test"), Srv(1, 1, one.port, "absent.test")]
    running.expect_log(
        r"absent.test could not be resolved \(3: Host not found\) while resolving service http of s.test"
    )
    settle(running, ["spare"])


def test_a_service_may_be_named_in_full(headgate: Factory, names: NameServer, backend: Callable[..., Backend]) -> None:
    one = backend(named("one"))
    names.records |= {"_web._tcp.s.test": [Srv(1, 1, one.port, "x.test")], "x.test": ["127.0.0.1"]}
    running = headgate(conf(names, "server s.test service=_web._tcp resolve;"))
    settle(running, ["one"])
    names.answer = lambda name, kind: Code("REFUSED")
    running.expect_log(r"service _web._tcp of s.test could not be resolved \(5: Operation refused\)")
    assert answers(running) == ["one"]


def test_an_upstream_may_have_a_resolver_of_its_own(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    own = NameServer({"a.test": ["127.0.0.2"]}, ttl=1)
    names.records["a.test"] = ["127.0.0.1"]
    upstream = f"resolver {own.address} ipv6=off; resolver_timeout 2s; server a.test:{three[0].port} resolve;"
    running = headgate(conf(names, upstream))
    settle(running, ["127.0.0.2"])
    assert not names.questions
    own.stop()
    running.allow("Connection refused")


def test_requests_under_way_keep_their_peers(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    """A list that changes under load loses no request, and no count of connections."""
    port = three[0].port
    names.records["a.test"] = ["127.0.0.1", "127.0.0.2"]
    running = headgate(
        conf(names, f"server a.test:{port} resolve max_conns=50;", workers=2, http="keepalive_requests 1000000;")
    )
    settle(running, ["127.0.0.1", "127.0.0.2"])
    lists = [["127.0.0.3"], ["127.0.0.1", "127.0.0.3"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2", "127.0.0.3"]]
    with_clients = [running.client() for _ in range(8)]
    for addresses in lists:
        names.records["a.test"] = addresses
        seen: set[str] = set()
        count = 0
        while seen != set(addresses) or count < 30:
            replies = [client.request("GET", "/") for client in with_clients]
            assert {reply.status for reply in replies} == {200}
            seen = {reply.text for reply in replies} if len(addresses) == 1 else seen | {r.text for r in replies}
            seen = seen & set(addresses) if count % 10 == 0 else seen
            count += 1
            assert count < 4000, f"{addresses}: {seen}"


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("a.test resolve", 'no resolver defined to resolve names at run time in upstream "u"'),
        ("a.test service=http", 'service upstream "a.test" requires "resolve" parameter'),
        ("a.test:80 service=http resolve", 'service upstream "a.test:80" may not have port'),
        ("127.0.0.1 service=http resolve", 'service upstream "127.0.0.1" requires domain name'),
        ("a.test service= resolve", "service is empty"),
        ("no.such.host.invalid", 'host not found in upstream "no.such.host.invalid"'),
    ],
)
def test_refused(headgate: Factory, server: str, message: str) -> None:
    result = headgate(f"http {{ upstream u {{ zone z 1m;\nserver {server}; }} }}", start=False).check()
    assert result.returncode == 1
    assert message in result.stderr


def test_a_name_unknown_at_the_start_is_no_error(headgate: Factory, names: NameServer, three: list[Backend]) -> None:
    running = headgate(conf(names, f"server later.test:{three[0].port} resolve;"))
    settle(running, ["502"])
    names.records["later.test"] = ["127.0.0.1"]
    settle(running, ["127.0.0.1"])


def test_a_zone_that_is_full_says_so(headgate: Factory, names: NameServer) -> None:
    names.records["a.test"] = [f"127.0.{i // 250}.{i % 250 + 1}" for i in range(200)]
    text = conf(names, "server a.test:1 resolve;").replace("zone z 1m", "zone z 32k")
    running = headgate(text)
    running.expect_log('cannot add new server to upstream "u", memory exhausted')
    running.allow("memory exhausted", "no live upstreams")
    assert running.get("/").status == 502
