"""queue: requests that find no server wait for one, in the order in which they came to any worker."""

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from tests import balancing
from tests.backends import Backend
from tests.client import Client, build
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]
BLOCK = "server {a} max_conns=1; queue 10;"


def waiting(server: Server, clients: list[Client]) -> None:
    """Waits until none of these has been answered for a moment."""
    assert all(client.silent(0.05) for client in clients)


@pytest.mark.parametrize("workers", [1, 3])
def test_requests_are_served_in_the_order_in_which_they_came(
    headgate: Factory, backend: Backends, workers: int
) -> None:
    peers = balancing.make(backend, "a")
    server = headgate(balancing.config(peers, {"u": BLOCK}, workers=workers))
    held = balancing.start(server, "/u/hold")
    peers["a"].wait_requests(1)
    clients = []
    for n in range(8):
        clients.append(balancing.start(server, f"/u/{n}"))
        waiting(server, clients[-1:])
    peers["a"].release.set()
    assert [client.response().text for client in [held, *clients]] == ["a"] * 9
    order = [request.target for request in peers["a"].requests]
    assert order == ["/hold", *(f"/{n}" for n in range(8))]


def test_nobody_overtakes_those_that_wait(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "a")
    server = headgate(balancing.config(peers, {"u": BLOCK}, workers=2))
    held = [balancing.start(server, "/u/hold")]
    peers["a"].wait_requests(1)
    for n in range(3):
        held.append(balancing.start(server, f"/u/hold{n}"))
        waiting(server, held[-1:])
    late = []
    for n in range(4):  # each of them comes while one server is about to be free
        late.append(balancing.start(server, f"/u/late{n}"))
        waiting(server, late[-1:])
    peers["a"].release.set()
    for client in held + late:
        client.response()
    targets = [request.target for request in peers["a"].requests]
    assert targets == ["/hold", "/hold0", "/hold1", "/hold2", "/late0", "/late1", "/late2", "/late3"]


def test_a_full_queue_and_a_long_wait_end_in_502(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "a")
    server = headgate(balancing.config(peers, {"u": "server {a} max_conns=1; queue 2 timeout=300ms;"}, workers=2))
    server.allow("no live upstreams")
    held = balancing.start(server, "/u/hold")
    peers["a"].wait_requests(1)
    began = time.monotonic()
    clients = [balancing.start(server, "/u/"), balancing.start(server, "/u/")]
    waiting(server, clients)
    reply = server.get("/u/")
    assert (reply.status, reply.header("x-addr")) == (502, "u")
    assert time.monotonic() - began < 0.3, "there is no room for it"
    assert [client.response().status for client in clients] == [502, 502]
    assert time.monotonic() - began >= 0.3
    peers["a"].release.set()
    assert held.response().status == 200
    assert server.get("/u/").status == 200


def test_a_client_that_goes_leaves_the_queue(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "a")
    server = headgate(balancing.config(peers, {"u": "server {a} max_conns=1; queue 1;"}))
    held = balancing.start(server, "/u/hold")
    peers["a"].wait_requests(1)
    gone = balancing.start(server, "/u/gone")
    waiting(server, [gone])
    gone.close()
    server.access_log(1)
    assert " 499 " in server.access_log(1)[0]
    client = balancing.start(server, "/u/next")
    waiting(server, [client])
    peers["a"].release.set()
    assert (held.response().status, client.response().status) == (200, 200)
    assert [request.target for request in peers["a"].requests] == ["/hold", "/next"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_gone_or_stopped_does_not_hold_the_others_up(
    headgate: Factory, backend: Backends, number: signal.Signals
) -> None:
    peers = balancing.make(backend, "a")
    server = headgate(balancing.config(peers, {"u": BLOCK}, workers=2, server="location = /here { return 204; }"))
    server.allow(r"exited on signal 9")
    victim, other = server.workers()
    held, first, second, third = (connected_to(server, pid) for pid in (other, victim, other, other))
    held.send(build("GET", "/u/hold"))
    peers["a"].wait_requests(1)
    for n, client in enumerate((first, second, third)):
        client.send(build("GET", f"/u/{n}"))
        waiting(server, [client])
    os.kill(victim, number)
    peers["a"].release.set()
    assert [client.response().status for client in (held, second, third)] == [200] * 3
    if number == signal.SIGSTOP:
        assert first.silent(0.05), "its worker is stopped"
        began = time.monotonic()
        assert {second.get("/u/").status for _ in range(50)} == {200}
        assert time.monotonic() - began < 0.9, "it is waited for once, not by every request"
        os.kill(victim, signal.SIGCONT)
        assert first.response().status == 200
    assert server.get("/u/").status == 200


def connected_to(server: Server, pid: int) -> Client:
    """A connection that this worker has accepted."""
    for _ in range(200):
        client = server.client()
        client.get("/here")  # it is accepted by then
        if worker_of(server, client) == pid:
            return client
        client.close()
    raise AssertionError(f"worker {pid} accepts nothing")


def worker_of(server: Server, client: Client) -> int:
    """The worker that has the other end of a connection."""
    ends = f":{server.port():04X}", f":{client.local_port:04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    (socket,) = [f"socket:[{row[9]}]" for row in rows if (row[1][-5:], row[2][-5:]) == ends]
    for pid in server.workers():
        if socket in descriptors(pid).values():
            return pid
    raise AssertionError("no worker has it")


def test_a_request_that_has_tried_all_servers_does_not_wait(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "a")
    address = peers["a"].address
    peers["a"].stop()
    server = headgate(balancing.config({"a": address}, {"u": "server {a}; server {a} max_fails=0; queue 5;"}))
    server.allow(r"connect\(\) failed", "no live upstreams")
    reply = server.get("/u/")
    assert (reply.status, reply.header("x-addr")) == (502, f"{address}, {address}")


def test_a_request_waits_for_a_server_that_failed_to_come_back(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    block = "server {a} fail_timeout=1s; server {b} down; queue 5 timeout=10s;"
    server = headgate(balancing.config(peers, {"u": block}))
    server.allow(r"connect\(\) failed", "no live upstreams")
    peers["a"].stop()
    assert server.get("/u/").status == 502
    peers["a"].start()
    began = time.monotonic()
    assert server.get("/u/").text == "a"
    assert time.monotonic() - began > 0.3, "its time out was not over"


def test_stickiness_and_methods_work_behind_a_queue(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    block = "least_conn; server {a} max_conns=1; server {b} max_conns=1; sticky cookie srv; queue 5;"
    server = headgate(balancing.config(peers, {"u": block}))
    first = server.get("/u/")
    cookie = first.header("set-cookie") or ""
    assert re.fullmatch("srv=[0-9a-f]{32}", cookie)
    assert {server.get("/u/", [("Cookie", cookie)]).text for _ in range(4)} == {first.text}
    held = [balancing.start(server, "/u/hold"), balancing.start(server, "/u/hold")]
    until(
        lambda: sum(each.target == "/hold" for peer in peers.values() for each in peer.requests) == 2, "both are held"
    )
    client = balancing.start(server, "/u/")
    waiting(server, [client])
    for peer in peers.values():
        peer.release.set()
    assert {each.response().status for each in [*held, client]} == {200}
