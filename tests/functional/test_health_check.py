"""health_check and match: one worker asks the servers, all workers heed what it has found."""

import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests import balancing
from tests.backends import Answer, Backend, Reply, Request
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]


class Checked:
    """A backend whose health is said by the test. Checks are what asks for /health."""

    def __init__(self, backend: Backends, name: str, **healthy: Any) -> None:
        self.name = name
        self.healthy = Reply(**healthy)
        self.now = self.healthy
        self.backend = backend(self.answer)
        self.address = self.backend.address

    def answer(self, request: Request) -> Answer:
        return self.now if request.target == "/health" else Reply(body=self.name.encode())

    @property
    def checks(self) -> list[Request]:
        return [request for request in self.backend.requests if request.target == "/health"]


def config(peers: dict[str, Any], check: str, more: str = "", block: str = "", workers: int = 2, http: str = "") -> str:
    servers = "".join(f"server {peer.address};" for peer in peers.values())
    return f"""
        worker_processes {workers};
        http {{
            {http}
            upstream u {{ {servers} {block} }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                add_header X-Pid $pid always;
                location / {{ proxy_pass http://u; health_check uri=/health interval=50ms {check}; {more} }}
            }}
        }}"""


def answers(server: Server, n: int = 12) -> set[str]:
    """Who answers; - for an error."""
    return set(balancing.names(server, ["/"] * n))


def test_an_unhealthy_server_is_left_out_until_it_is_healthy_again(headgate: Factory, backend: Backends) -> None:
    peers = {name: Checked(backend, name) for name in "ab"}
    server = headgate(config(peers, "fails=2 passes=2", workers=3))
    until(lambda: all(len(peer.checks) > 2 for peer in peers.values()), "checks")
    assert answers(server) == {"a", "b"}
    peers["a"].now = Reply(503)
    whose = f'health check "" of peer {peers["a"].address} in upstream "u"'
    server.expect_log(r"\[warn\].*peer is unhealthy while checking status code \(503\), " + re.escape(whose))
    assert answers(server) == {"b"}, "no worker uses it"
    peers["a"].now = peers["a"].healthy
    server.expect_log(r"\[notice\].*peer is healthy, " + re.escape(whose))
    assert answers(server) == {"a", "b"}
    assert len(server.matching("peer is")) == 2


def test_one_worker_checks_and_another_one_does_when_it_is_killed(headgate: Factory, backend: Backends) -> None:
    peer = Checked(backend, "a")
    server = headgate(
        config({"a": peer}, "", more="proxy_set_header X-Fixed yes; proxy_set_header X-Gone $uri;", workers=3)
    )
    until(lambda: len(peer.checks) >= 10, "checks")
    assert len(server.workers()) == 3
    request = peer.checks[0]
    assert (request.method, request.version, request.header("connection")) == ("GET", "HTTP/1.1", "close")
    assert (request.header("host"), request.header("x-fixed"), request.header("x-gone")) == ("u", "yes", None)
    server.allow(r"exited on signal 9")
    for _ in range(2):
        for pid in server.workers():
            # Whoever checks is among them; the others have not been told to.
            os.kill(pid, signal.SIGKILL)
            seen = len(peer.checks)
            until(lambda seen=seen: len(peer.checks) > seen + 3, "checks after a worker's death")  # type: ignore[misc]
    peer.now = Reply(500)
    server.expect_log("peer is unhealthy")
    assert answers(server, 3) == {"-"}
    server.allow("no live upstreams")


def test_a_stopped_prober_loses_its_office(headgate: Factory, backend: Backends) -> None:
    peer = Checked(backend, "a")
    server = headgate(config({"a": peer}, "", workers=2))
    until(lambda: len(peer.checks) >= 3, "checks")
    # Of two stopped in turn one is the prober.
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)
        try:
            seen = len(peer.checks)
            until(lambda seen=seen: len(peer.checks) > seen + 4, "checks while a worker is stopped")  # type: ignore[misc]
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_reload_keeps_what_was_found(headgate: Factory, backend: Backends) -> None:
    peers = {name: Checked(backend, name) for name in "ab"}
    conf = config(peers, "")
    server = headgate(conf)
    peers["a"].now = Reply(503)
    server.expect_log("peer is unhealthy")
    server.reload(conf.replace("interval=50ms", "interval=1h"))
    assert answers(server) == {"b"}
    server.reload(conf)
    peers["a"].now = peers["a"].healthy
    server.expect_log("peer is healthy")
    server.reload(conf.replace("health_check uri=/health interval=50ms ;", ""))
    assert answers(server) == {"a", "b"}
    assert len(server.matching("peer is unhealthy")) == 1


def test_a_check_that_is_gone_keeps_nobody_out(headgate: Factory, backend: Backends) -> None:
    peers = {name: Checked(backend, name) for name in "ab"}
    conf = config(peers, "")
    server = headgate(conf)
    peers["a"].now = Reply(503)
    server.expect_log("peer is unhealthy")
    server.reload(conf.replace("health_check uri=/health interval=50ms ;", ""))
    assert answers(server) == {"a", "b"}


@pytest.mark.parametrize("persistent", [False, True])
def test_a_mandatory_check_comes_first(headgate: Factory, backend: Backends, persistent: bool) -> None:
    peers = {name: Checked(backend, name) for name in "ab"}
    conf = config(peers, "mandatory persistent" if persistent else "mandatory").replace("interval=50ms", "interval=1h")
    server = headgate(conf.replace("interval=1h", "interval=1h jitter=1h"))
    server.allow("no live upstreams")
    assert answers(server, 4) == {"-"}, "nobody was checked"
    peers["b"].now = Reply(503)
    server.reload(conf)
    server.expect_log("peer is healthy")
    server.expect_log("peer is unhealthy")
    assert answers(server, 4) == {"a"}
    server.reload(conf.replace("interval=1h", "interval=1h jitter=1h"))  # nobody is checked any more
    assert answers(server, 4) == ({"a"} if persistent else {"-"})


GOOD = {"status": 201, "headers": [("X-State", "ready"), ("Content-Type", "text/html")], "body": b"I am fine"}


@pytest.mark.parametrize(
    "match, reply, fails_by",
    [
        ("status 200-299;", {"status": 404}, r"checking status code \(404\)"),
        ("status 200 201; header Content-Type = text/html;", {"headers": [("Content-Type", "a")]}, "checking headers"),
        ("status ! 500-599; header ! X-Out;", {"headers": [("X-Out", "1")]}, "checking headers"),
        ("header X-State ~ ^rea;", {"headers": [("X-State", "unready")]}, "checking headers"),
        ("header X-State !~ un; header X-State;", {}, "checking headers"),
        ("header X-State != away;", {"headers": [("X-State", "away")]}, "checking headers"),
        ('body ~ "fine$";', {"body": b"fine no more"}, "checking body"),
        ('body !~ "no more";', {"chunks": [b"fine no", b" more"]}, "checking body"),
    ],
)
def test_match(headgate: Factory, backend: Backends, match: str, reply: dict[str, Any], fails_by: str) -> None:
    peer = Checked(backend, "a", **GOOD)
    server = headgate(config({"a": peer}, "match=m", http=f"match m {{ {match} }}", workers=1))
    until(lambda: len(peer.checks) > 2, "checks")
    assert answers(server, 2) == {"a"}
    peer.now = Reply(**reply)
    server.expect_log(f'peer is unhealthy while {fails_by}, health check "m"')


def test_a_server_that_does_not_answer(headgate: Factory, backend: Backends) -> None:
    peers = {name: Checked(backend, name) for name in "ab"}
    server = headgate(config(peers, "", more="proxy_read_timeout 200ms;"))
    until(lambda: len(peers["a"].checks) > 2, "checks")
    peers["a"].backend.stop()
    server.expect_log(r"unhealthy while connecting to upstream \(111: Connection refused\)")
    peers["b"].now = b"nonsense\r\n\r\n"  # type: ignore[assignment]
    server.expect_log(r"unhealthy while reading response from upstream \(upstream sent no valid HTTP/1.0 header")
    peers["a"].backend.start()
    server.expect_log("peer is healthy")
    assert answers(server, 4) == {"a"}


def test_port_and_keepalive(headgate: Factory, backend: Backends) -> None:
    peer, doctor = Checked(backend, "a"), Checked(backend, "doctor")
    port = doctor.address.rpartition(":")[2]
    server = headgate(config({"a": peer}, f"port={port} keepalive_time=1h", workers=1))
    until(lambda: len(doctor.checks) > 5, "checks")
    assert not peer.checks
    assert doctor.backend.connections == 1
    doctor.now = Reply(503, close=True)
    server.expect_log("peer is unhealthy")
    server.allow("no live upstreams")
    assert answers(server, 2) == {"-"}


@pytest.mark.parametrize(
    "line, error",
    [
        ("health_check match=x;", 'unknown match "x"'),
        ("health_check persistent;", '"persistent" requires "mandatory"'),
        ("health_check interval=0;", 'invalid parameter "interval=0"'),
        ("health_check port=70000;", 'invalid parameter "port=70000"'),
        ("health_check uri=x;", 'invalid parameter "uri=x"'),
        ("health_check type=grpc;", '"type" of "health_check" is known to nginx but not implemented by headgate'),
        ("health_check; " * 5, 'too many health checks of upstream "u": there may be 4'),
    ],
)
def test_what_is_refused(headgate: Factory, line: str, error: str) -> None:
    text = f"http {{ upstream u {{ server 127.0.0.1:1; }} server {{ location / {{ proxy_pass http://u; {line} }} }} }}"
    assert f"[emerg] {error}" in re.sub(r"\d+#\d+: ", "", headgate(text, start=False).check().stderr)


@pytest.mark.parametrize(
    "block, error",
    [
        ("status 2x;", 'invalid status "2x"'),
        ("status 300-200;", 'invalid status "300-200"'),
        ("status 200; status 201;", '"status" directive is duplicate'),
        ("header A = b c;", 'invalid number of arguments in "header" directive'),
        ("body = x;", 'invalid parameter "="'),
        ("require $x;", '"require" of a match is known to nginx but not implemented by headgate'),
        ("other x;", 'unknown directive "other"'),
    ],
)
def test_what_a_match_refuses(headgate: Factory, block: str, error: str) -> None:
    text = f"http {{ match m {{ {block} }} }}"
    assert f"[emerg] {error}" in re.sub(r"\d+#\d+: ", "", headgate(text, start=False).check().stderr)


def test_a_location_without_proxy_pass_is_refused(headgate: Factory) -> None:
    text = "http { server { location / { health_check; } } }"
    assert "needs a proxy_pass without variables" in headgate(text, start=False).check().stderr
