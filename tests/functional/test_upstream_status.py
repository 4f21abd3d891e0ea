"""upstream_status: what all workers together know of the servers."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests import balancing
from tests.backends import Backend, Reply, Request, refused_port
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]
HERE = "location = /status { upstream_status; }"


def status(server: Server, name: str = "u") -> dict[str, Any]:
    """What is said of an upstream."""
    reply = server.get("/status")
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    found: dict[str, Any] = json.loads(reply.body)[name]
    return found


def states(server: Server, name: str = "u") -> list[str]:
    return [peer["state"] for peer in status(server, name)["peers"]]


def test_connections_and_requests_of_all_workers(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    block = "zone z 128k; server {a} weight=3 max_conns=2; server {b} backup; queue 5;"
    server = headgate(balancing.config(peers, {"u": block}, server=HERE, workers=3))
    held = [balancing.start(server, "/u/hold") for _ in range(2)]
    peers["a"].wait_requests(2)
    assert status(server) == {
        "zone": "z",
        "peers": [
            {
                "id": 0, "server": peers["a"].address, "name": peers["a"].address, "backup": False, "weight": 3,
                "effective_weight": 3, "state": "up", "active": 2, "max_conns": 2, "requests": 2, "fails": 0,
            },
            {
                "id": 1, "server": peers["b"].address, "name": peers["b"].address, "backup": True, "weight": 1,
                "effective_weight": 1, "state": "up", "active": 0, "max_conns": 0, "requests": 0, "fails": 0,
            },
        ],
        "queue": {"size": 0, "max_size": 5},
    }  # fmt: skip
    held += [balancing.start(server, "/u/hold") for _ in range(1)]
    peers["b"].wait_requests(1)
    for peer in peers.values():
        peer.release.set()
    assert {client.response().status for client in held} == {200}
    until(lambda: [peer["active"] for peer in status(server)["peers"]] == [0, 0], "all was given back")
    server.reload()
    assert [peer["requests"] for peer in status(server)["peers"]] == [2, 1], "a reload keeps it"
    assert server.request("POST", "/status", body=b"x").status == 405
    assert server.request("HEAD", "/status").body == b""


def test_the_states_of_servers(headgate: Factory, backend: Backends) -> None:
    good = backend(lambda request: Reply(200))
    bad = backend(lambda request: Reply(500))
    with refused_port() as x:
        upstreams = {
            "u": "server {x} fail_timeout=1m; server {g}; server {g} down; server {g} drain;",
            "out": "server {b} max_fails=0; server {g}; outlier_ejection consecutive_5xx=1 interval=1h;",
            "sick": "server {b}; server {g};",
            "new": "server {g};",
        }
        check = (
            "location /check { proxy_pass http://sick; health_check interval=50ms; }"
            "location /never { proxy_pass http://new; health_check mandatory jitter=1h; }"
        )
        addresses = {"x": f"127.0.0.1:{x}", "g": good.address, "b": bad.address}
        server = headgate(balancing.config(addresses, upstreams, server=HERE + check))
        server.allow(r"connect\(\) failed")
        for name in ("u", "out"):
            for _ in range(3):
                server.get(f"/{name}/")
        assert states(server) == ["unavail", "up", "down", "draining"]
        assert status(server)["peers"][0]["fails"] == 1
        assert status(server)["zone"] is None
        assert states(server, "out") == ["ejected", "up"]
        assert status(server, "out")["ejections"] == {"active": 1, "total": 1}
        assert 0 < status(server, "out")["peers"][0]["ejection_left"] <= 30_000
        until(lambda: states(server, "sick") == ["unhealthy", "up"], "the checks' result")
        assert [peer["health"] for peer in status(server, "sick")["peers"]] == ["down", "up"]
        assert states(server, "new") == ["checking"]


def test_retries_that_were_not_allowed_are_counted(headgate: Factory) -> None:
    with refused_port() as x, refused_port() as y:
        block = "server {x} max_fails=0; server {y} max_fails=0; retry_budget percent=0 min_retries=0;"
        addresses = {"x": f"127.0.0.1:{x}", "y": f"127.0.0.1:{y}"}
        server = headgate(balancing.config(addresses, {"u": block}, server=HERE, workers=2))
        server.allow(r"connect\(\) failed")
        assert [server.get("/u/").status for _ in range(3)] == [502] * 3
        assert status(server)["retries"] == {"active": 0, "overflows": 3}


def test_times_and_names_that_nobody_has_resolved_yet(headgate: Factory, backend: Backends) -> None:
    def answer(request: Request) -> Reply:
        time.sleep(0.02)  # what is measured
        return Reply(200)

    slow = backend(answer)
    upstreams = {
        "u": "least_time header; server {s};",
        "peak": "peak_ewma; server {s};",
        "later": "server x.test resolve;",
    }
    with refused_port() as x:
        text = balancing.config({"s": slow.address}, upstreams, server=HERE, http=f"resolver 127.0.0.1:{x};")
        server = headgate(text)
        server.allow("could not be resolved", r"recv\(\) failed", r"send\(\) failed")
        for name in ("u", "peak"):
            server.get(f"/{name}/")
        assert all(status(server)["peers"][0][name] >= 20 for name in ("header_time", "response_time"))
        assert status(server, "peak")["peers"][0]["peak"] >= 15
        assert status(server, "later")["peers"] == []
