"""Several workers, one state: balancing across them, their sudden death under load, reloads under load.

HEADGATE_TEST_FULL=1 runs 200 reloads under load instead of 40.
"""

import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.backends import Backend, Reply, named, refused_port
from tests.client import Client, MalformedError, TruncatedError, build, fetch
from tests.harness import Server, until

Factory = Callable[..., Server]
FULL = bool(os.environ.get("HEADGATE_TEST_FULL"))
KILLS, RELOADS = 200, 200 if FULL else 40


def config(servers: str, workers: int, *, upstream: str = "", main: str = "") -> str:
    return f"""
        worker_processes {workers};
        {main}
        http {{
            add_header X-Pid $pid always;
            add_header X-Addr $upstream_addr always;
            upstream u {{ {servers} {upstream} }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; }}
                location /pid {{ return 200 "ok"; }}
            }}
        }}"""


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """An event that handlers may wait for; it happens at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


# Balancing


@pytest.mark.parametrize("zone", ["", "zone z 64k;"])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_weights_hold_across_workers(
    headgate: Factory, backend: Callable[..., Backend], workers: int, zone: str
) -> None:
    a, b, c = (backend(named(name)) for name in "abc")
    servers = f"server {a.address} weight=5; server {b.address}; server {c.address};"
    running = headgate(config(servers, workers, upstream=zone))
    until(lambda: len(running.workers()) == workers, "all workers")
    seen, pids = "", set()
    while len(seen) < 70 or len(pids) < min(workers, 2):
        reply = running.get("/")
        seen += reply.text
        pids.add(reply.header("x-pid"))
        assert len(seen) < 5000, f"one worker serves all: {pids}"
    assert seen == ("aabacaa" * (len(seen) // 7 + 1))[: len(seen)]


def test_a_failure_seen_by_one_worker_counts_for_all(headgate: Factory, backend: Callable[..., Backend]) -> None:
    good = backend(named("good"))
    with refused_port() as port:
        running = headgate(config(f"server 127.0.0.1:{port}; server {good.address};", 4))
        until(lambda: len(running.workers()) == 4, "all workers")
        pids = set()
        for _ in range(100):
            pids.add(running.get("/").header("x-pid"))
    assert len(pids) > 1 and len(running.matching(r"connect\(\) failed")) == 1
    running.allow("refused")


# Sudden death


class Load(threading.Thread):
    """Requests one after the other: on each connection one that tells the worker's pid, then some that are proxied."""

    def __init__(self, running: Server, stop: threading.Event) -> None:
        super().__init__()
        self.running, self.stop = running, stop
        self.done = 0
        self.lost: list[tuple[str | None, float, float]] = []  # (pid of its worker if known, start, end)
        self.strange: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            pid, start = None, time.monotonic()
            try:
                with Client(self.running.port()) as client:
                    pid = client.get("/pid").header("x-pid")
                    for n in range(5):
                        start = time.monotonic()
                        reply = client.get(f"/{n}")
                        if (reply.status, reply.text) != (200, f"/{n}"):
                            self.strange.append(f"{reply.status} {reply.text[:80]!r}")
                        self.done += 1
            except (OSError, TruncatedError):
                self.lost.append((pid, start, time.monotonic()))
            except (MalformedError, AssertionError) as error:
                self.strange.append(repr(error))


def loads(running: Server, count: int) -> tuple[list[Load], threading.Event]:
    stop = threading.Event()
    threads = [Load(running, stop) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, stop


def held_at_once(running: Server, stack: ExitStack, count: int, peers: list[Backend]) -> None:
    """Sends `count` requests that stay in the peers."""
    before = sum(len(peer.requests) for peer in peers)
    for _ in range(count):
        client = stack.enter_context(Client(running.port()))
        client.send(build("GET", "/hold"))
    until(lambda: sum(len(peer.requests) for peer in peers) == before + count, "requests in all places of the peers")


def test_workers_killed_under_load(headgate: Factory, backend: Callable[..., Backend], hold: threading.Event) -> None:
    pause = threading.Event()

    def work(request: object) -> Reply:
        target = request.target  # type: ignore[attr-defined]
        if target == "/hold":
            hold.wait(15)
        pause.wait(random.random() * 0.004)
        return Reply(body=target.encode())

    peers = [backend(work), backend(work)]
    servers = "".join(f"server {peer.address} max_fails=0 LIMIT;" for peer in peers)
    conf = config(servers.replace("LIMIT", ""), 4)
    running = headgate(conf)
    until(lambda: len(running.workers()) == 4, "all workers")
    threads, stop = loads(running, 6)
    kills: list[tuple[int, float]] = []
    try:
        for _ in range(KILLS):
            goal = sum(thread.done for thread in threads) + 5
            until(lambda goal=goal: sum(thread.done for thread in threads) >= goal, "answers")  # type: ignore[misc]
            pid = random.choice(running.workers())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills.append((pid, time.monotonic()))
            until(lambda pid=pid: len(set(running.workers()) - {pid}) == 4, "a new worker")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not [strange for thread in threads for strange in thread.strange]
    killed = {str(pid) for pid, _ in kills}
    lost = [each for thread in threads for each in thread.lost]
    for pid, start, end in lost:
        assert pid is None or pid in killed, f"a request was lost on {pid}, which nobody killed"
        assert any(start - 0.5 <= at <= end for _, at in kills), "a request was lost while no worker died"
    assert len(lost) <= len(kills) * len(threads)
    assert len(running.matching(r"exited on signal 9")) == len(kills)
    # what the dead held was given back: all places of the peers are free, and no more than those
    running.reload(conf.replace("LIMIT", "").replace("max_fails=0", "max_fails=0 max_conns=3"))
    running.allow("exited on signal 9", "no live upstreams")
    with ExitStack() as stack:
        held_at_once(running, stack, 6, peers)
        assert fetch(running.port()).status == 502
        hold.set()


# Reloads


def test_reloads_under_load_lose_nothing(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """Each client keeps its connection for as long as it may; http.client sees to `Connection: close`."""
    peers = [backend(lambda request: Reply(body=request.target.encode())) for _ in range(2)]
    running = headgate(config("".join(f"server {peer.address};" for peer in peers), 2))
    stop = threading.Event()
    done: Counter[str] = Counter()
    failures: list[str] = []

    def client(name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port(), timeout=15)
        try:
            while not stop.is_set():
                target = f"/{name}/{done[name]}"
                connection.request("GET", target)
                reply = connection.getresponse()
                body = reply.read().decode()
                if (reply.status, body) != (200, target):
                    failures.append(f"{reply.status} {body[:80]!r} for {target}")
                done[name] += 1
        except Exception as error:
            failures.append(f"{name}: {error!r} after {done[name]} requests")
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(f"c{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(RELOADS):
            before = dict(done)
            until(lambda before=before: all(done[t] > before.get(t, 0) for t in ("c0", "c3", "c5")), "answers")  # type: ignore[misc]
            running.reload()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert min(done.values()) >= RELOADS


def test_a_reload_keeps_failures(headgate: Factory, backend: Callable[..., Backend]) -> None:
    good = backend(named("good"))
    with refused_port() as port:
        conf = config(f"server 127.0.0.1:{port} fail_timeout=60s; server {good.address};", 1)
        running = headgate(conf)
        assert "," in (running.get("/").header("x-addr") or "")
        running.reload(conf)
        for _ in range(4):
            assert running.get("/").header("x-addr") == good.address
    running.allow("refused")


def test_a_reload_keeps_the_turn(headgate: Factory, backend: Callable[..., Backend]) -> None:
    a, b, c = (backend(named(name)) for name in "abc")
    conf = config(f"server {a.address} weight=5; server {b.address}; server {c.address};", 2)
    running = headgate(conf)
    seen = ""
    for n in range(28):
        seen += running.get("/").text
        if n in (2, 9, 18):
            running.reload(conf)
    assert seen == "aabacaa" * 4


def test_a_reload_keeps_connection_counts(
    headgate: Factory, backend: Callable[..., Backend], hold: threading.Event
) -> None:
    peer = backend(lambda request: hold.wait(15) and None if request.target == "/hold" else Reply(body=b"free"))
    conf = config(f"server {peer.address} max_conns=1 max_fails=0;", 1)
    running = headgate(conf)
    running.allow("no live upstreams", "prematurely closed")
    with running.client() as client:
        client.send(build("GET", "/hold"))
        peer.wait_requests(1)
        running.reload(conf)
        assert running.get("/").status == 502
        hold.set()
        assert client.response().status == 502
    running.expect_log("exited with code 0")
    assert running.get("/").text == "free"
