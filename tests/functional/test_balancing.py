"""least_conn, ip_hash, hash, random, least_time, peak_ewma, slow_start: requests through a real headgate."""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests import balancing
from tests.backends import Backend, Reply, Request, refused_port
from tests.client import Client
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]

METHODS = {
    "least_conn": "least_conn;",
    "ip_hash": "ip_hash;",
    "hash": "hash $request_id;",
    "consistent": "hash $request_id consistent;",
    "random": "random;",
    "random_two": "random two;",
    "random_two_least_conn": "random two least_conn;",
    "random_two_header": "random two least_time=header;",
    "random_two_last_byte": "random two least_time=last_byte;",
    "least_time_header": "least_time header;",
    "least_time_last_byte": "least_time last_byte;",
    "least_time_header_inflight": "least_time header inflight;",
    "least_time_last_byte_inflight": "least_time last_byte inflight;",
    "peak_ewma": "peak_ewma;",
}
WITH_BACKUP = [name for name in METHODS if not re.match("ip_hash|hash|consistent|random", name)]


def held_since(peers: dict[str, Any], before: dict[str, int]) -> list[int]:
    """How many requests each backend got since then."""
    return [len(peer.requests) - before[name] for name, peer in peers.items()]


def test_a_method_uses_what_it_may_and_nothing_else(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    servers = "server {a} down; server {b} weight=2; server {c} drain; server {d} max_conns=1;"
    server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in METHODS}, workers=2))
    for name in METHODS:
        assert set(balancing.names(server, [f"/{name}/"] * 15)) <= {"b", "d"}, name
        before = {key: len(peer.requests) for key, peer in peers.items()}
        held = [balancing.start(server, f"/{name}/hold") for _ in range(5)]
        until(lambda begun=before: sum(held_since(peers, begun)) == 5, "all are held")
        assert len(peers["d"].requests) - before["d"] <= 1, name
        for peer in peers.values():
            peer.release.set()
        assert {client.response().text for client in held} <= {"b", "d"}
        for peer in peers.values():
            peer.release.clear()


def test_a_server_that_fails_is_left_out_by_all_workers(headgate: Factory, backend: Backends) -> None:
    peers: dict[str, Any] = balancing.make(backend, "ab")
    with refused_port() as x:
        peers["x"] = f"127.0.0.1:{x}"
        servers = "server {x} fail_timeout=1m; server {a}; server {b};"
        server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in METHODS}, workers=4))
        server.allow(r"connect\(\) failed")
        for name in METHODS:
            for n in range(24):
                with Client(server.port(), source=(f"127.0.{n}.1", 0)) as client:
                    assert client.get(f"/{name}/").status == 200
            failures = server.matching(rf"connect\(\) failed.* \"GET /{name}/ ")
            assert len(failures) <= 1, name
            assert len(server.matching(rf"temporarily disabled.* \"GET /{name}/ ")) == len(failures)


def test_backups_serve_when_no_primary_can(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    servers = "server {a} max_conns=1; server {b} backup;"
    server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in WITH_BACKUP}))
    for name in WITH_BACKUP:
        before = len(peers["a"].requests)
        held = balancing.start(server, f"/{name}/hold")
        peers["a"].wait_requests(before + 1)
        assert balancing.names(server, [f"/{name}/"] * 3) == "bbb", name
        peers["a"].release.set()
        held.response()
        peers["a"].release.clear()
        until(lambda name=name: balancing.names(server, [f"/{name}/"]) == "a", f"{name}: the primary serves again")


def test_a_mapping_is_the_same_in_all_workers_and_after_a_reload(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    servers = "server {a}; server {b}; server {c} weight=2;"
    maps = ("hash", "consistent", "ip_hash")
    blocks = {name: METHODS[name].replace("$request_id", "$arg_k") + servers for name in maps}
    conf = balancing.config(peers, blocks, workers=4)
    server = headgate(conf)

    def mapping(name: str) -> str:
        out = ""
        for n in range(40):
            with Client(server.port(), source=(f"127.{n}.3.1", 0)) as client:
                out += client.get(f"/{name}/?k={n}").text
        return out

    first = {name: mapping(name) for name in maps}
    assert all(len(set(each)) == 3 for each in first.values())
    assert {name: mapping(name) for name in maps} == first
    server.reload(conf.replace("worker_processes 4", "worker_processes 1"))
    assert {name: mapping(name) for name in maps} == first


def test_a_server_less_moves_only_its_own_keys_on_a_ring(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    block = "hash $arg_k consistent; server {a}; server {b}; server {c}; server {d};"
    server = headgate(balancing.config(peers, {"u": block}))
    keys = [f"/u/?k={n}" for n in range(80)]
    before = balancing.names(server, keys)
    server.reload(balancing.config(peers, {"u": block.replace("server {d};", "")}))
    after = balancing.names(server, keys)
    assert "d" not in after
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "d")


def test_random_spreads_by_weight(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "abc")
    # of two drawn the second serves when there is nothing else to choose by, as on nginx
    wanted = {"random": {"a": 75, "b": 75, "c": 150}, "random_two": {"a": 87, "b": 87, "c": 125}}
    servers = "server {a}; server {b}; server {c} weight=2;"
    server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in wanted}, workers=2))
    for name, want in wanted.items():
        got = Counter(balancing.names(server, [f"/{name}/"] * 300))
        assert all(abs(got[key] - want[key]) < 50 for key in "abc"), name


SLOW = 0.15  # seconds


def test_a_slow_server_gets_fewer_requests(headgate: Factory, backend: Backends) -> None:
    def slow(request: Request) -> Any:
        def wire() -> Any:
            time.sleep(SLOW)  # what is measured
            yield Reply(body=b"s").encode(request)

        return wire()

    timed = [name for name in METHODS if re.search("time|header|last_byte|peak", name)]
    assert len(timed) == 7
    peers = {"a": backend(slow), "b": balancing.held(backend, "f")}
    servers = "server {a}; server {b};"
    server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in timed}, workers=2))
    for name in timed:
        got = Counter(balancing.names(server, [f"/{name}/"] * 24))
        assert got["s"] <= 4, f"{name}: each worker learns from the other's requests"
        assert got["s"] + got["f"] == 24


def test_a_slow_body_counts_for_last_byte_only(headgate: Factory, backend: Backends) -> None:
    def slow(request: Request) -> Any:
        def wire() -> Any:
            data = Reply(body=b"s").encode(request)
            yield data[:-1]
            time.sleep(SLOW)
            yield data[-1:]

        return wire()

    peers = {"a": backend(slow), "b": balancing.held(backend, "f")}
    wanted = {"least_time_header": "sfsfsfsf", "least_time_last_byte": "sfffffff"}
    servers = "server {a}; server {b};"
    server = headgate(balancing.config(peers, {name: METHODS[name] + servers for name in wanted}))
    for name, want in wanted.items():
        assert balancing.names(server, [f"/{name}/"] * 8) == want


def test_a_server_that_comes_back_is_used_slowly(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    block = "server {a} slow_start=1m fail_timeout=1s; server {b};"
    server = headgate(balancing.config(peers, {"u": block}, workers=2))
    server.allow(r"connect\(\) failed")
    assert Counter(balancing.names(server, ["/u/"] * 20))["a"] == 10, "nothing has happened to it"
    peers["a"].stop()
    until(lambda: server.get("/u/").text == "b" and server.matching("temporarily disabled"), "it is out")
    peers["a"].start()
    until(lambda: "a" in balancing.names(server, ["/u/"] * 4), "it was tried again")
    assert Counter(balancing.names(server, ["/u/"] * 60))["a"] <= 6


@pytest.mark.parametrize("name", ["none", "least_conn", "consistent"])
def test_a_reload_that_adds_removes_and_reweights_keeps_what_is_known(
    headgate: Factory, backend: Backends, name: str
) -> None:
    peers: dict[str, Any] = balancing.make(backend, "abc")
    method = METHODS.get(name, "")
    with refused_port() as x:
        peers["x"] = f"127.0.0.1:{x}"
        servers = "server {x} fail_timeout=1m; server {a} max_conns=1; server {b};"
        server = headgate(balancing.config(peers, {"u": method + servers}, workers=2))
        server.allow(r"connect\(\) failed")
        until(lambda: balancing.names(server, ["/u/"]) != "-" and server.matching("temporarily disabled"), "x is out")
        held = []
        while not any(each.target == "/hold" for each in peers["a"].requests):
            before = sum(len(peers[key].requests) for key in "ab")
            held.append(balancing.start(server, "/u/hold"))
            until(lambda n=before: sum(len(peers[key].requests) for key in "ab") > n, "it is held")
        servers = "server {c} weight=2; server {x} fail_timeout=1m weight=5; server {a} max_conns=1 weight=3;"
        server.reload(balancing.config(peers, {"u": method + servers}, workers=1))
        assert balancing.names(server, ["/u/"] * 12) == "c" * 12, "x is still out, a full"
        assert len(server.matching(r"connect\(\) failed")) == 1
        for key in "ab":
            peers[key].release.set()
        assert {client.response().status for client in held} == {200}
        until(lambda: "a" in balancing.names(server, ["/u/"] * 6), "a has room again")
