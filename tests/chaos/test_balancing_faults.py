"""Workers killed or stopped at any point of any balancing method: no lock stays taken, no count is wrong.

250 kill points at random; HEADGATE_TEST_FULL=1 makes it 10,000.
"""

import itertools
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from headgate.shm.peers import (
    FAILED,
    OK,
    Health,
    IpHashed,
    KeyHashed,
    Least,
    Outliers,
    Peers,
    Queue,
    Random,
    Retries,
    Ring,
    RingHashed,
    Shares,
    arm,
)
from headgate.shm.sessions import Sessions
from headgate.shm.zone import GroupSpec, PeerSpec, Zone

from tests.shm import Worker, conns, held, together

T = 1_000_000
KILLS = 10_000 if os.environ.get("HEADGATE_TEST_FULL") else 250
Trapped = Callable[[Peers, int, int], int]

METHODS: dict[str, Trapped] = {
    "round robin": lambda peers, n, number: peers.trapped_pick(n, number, None, T),
    "least_conn": lambda peers, n, number: Least(peers).trapped_get(n, number, None, T),
    "least_time": lambda peers, n, number: Least(peers, "header inflight").trapped_get(n, number, None, T),
    "random": lambda peers, n, number: Random(peers).trapped_get(n, number, None, T),
    "random two": lambda peers, n, number: Random(peers, True).trapped_get(n, number, None, T),
    "peak_ewma": lambda peers, n, number: Random(peers, True, "peak").trapped_get(n, number, None, T),
    "ip_hash": lambda peers, n, number: IpHashed(peers, b"abc", Shares(peers)).trapped_get(n, number, None, T),
    "hash": lambda peers, n, number: KeyHashed(peers, b"abc", Shares(peers)).trapped_get(n, number, None, T),
    "consistent": lambda peers, n, number: RingHashed(peers, b"abc", Ring(peers)).trapped_get(n, number, None, T),
}
OTHERS: dict[str, Trapped] = {
    "a failure": lambda peers, n, number: failing(peers, n, number),
    "a success": lambda peers, n, number: peers.trapped_free(n, number, held_by(peers), OK, T + 11),
}


def held_by(peers: Peers) -> int:
    """A peer that this worker holds a connection on, now."""
    i = peers.pick(None, T)
    assert i >= 0
    return i


def failing(peers: Peers, n: int, number: int) -> int:
    return peers.trapped_free(n, number, held_by(peers), FAILED, T + 11)


def ramping_zone() -> Zone:
    """Two peers of one server, one that drains, and one whose weight grows."""
    specs = [
        PeerSpec("s:80", "1:80", 3, max_fails=1000, slow_start=10_000, down=True),
        PeerSpec("s:80", "2:80", 2, max_fails=1000),
        PeerSpec("d:80", "3:80", 1, max_fails=1000, drain=True),
        PeerSpec("e:80", "4:80", 1, max_fails=1000),
    ]
    zone = Zone.create("z", None, [GroupSpec("u", specs)])
    zone.commit()
    zone.peers("u").set_down(0, False)
    return zone


def check(zone: Zone, before: list[int]) -> None:
    """All is as it was before the worker that is gone, and the lock is free."""
    assert conns(zone) == before
    assert sum(before) == held(zone)
    for state in zone.peers("u").snapshot():
        assert 0 <= state.effective_weight <= state.weight
        assert abs(state.current_weight) <= 7


@pytest.mark.parametrize("name", METHODS)
def test_a_worker_killed_at_any_step_of_a_method_leaves_nothing_behind(name: str) -> None:
    zone = ramping_zone()
    zone.bind(zone.claim_slot(os.getpid()))
    peers = zone.peers("u")
    killed = 0
    for n in itertools.count():
        worker = Worker(zone, lambda peers, n=n: [METHODS[name](peers, n, signal.SIGKILL)])  # type: ignore[misc]
        number = worker.wait()
        assert sum(conns(zone)) == held(zone)
        i = peers.pick(None, T)
        assert i >= 0, "the others go on"
        peers.free(i, OK, T)
        zone.release_slot(worker.slot)
        check(zone, [0, 0, 0, 0])
        worker.close()
        if number == 0:
            break
        killed += 1
    assert killed >= 3
    assert peers.unlocked == 0, "nobody had to wait"


@pytest.mark.parametrize("name", METHODS)
def test_a_worker_stopped_at_any_step_of_a_method_does_not_stop_the_others(name: str) -> None:
    zone = ramping_zone()
    zone.bind(zone.claim_slot(os.getpid()))
    peers = zone.peers("u")
    for n in itertools.count():
        worker = Worker(zone, lambda peers, n=n: [METHODS[name](peers, n, signal.SIGSTOP)])  # type: ignore[misc]
        stopped = worker.stopped()
        began = time.monotonic()
        picks = [METHODS[name](peers, -1, 0) for _ in range(100)]
        assert min(picks) >= 0
        for i in picks:
            peers.free(i, OK, T)
        assert time.monotonic() - began < 1
        if not stopped:
            worker.close()
            zone.release_slot(worker.slot)
            break
        worker.signal(signal.SIGKILL)
        assert worker.wait() == signal.SIGKILL
        worker.close()
        zone.release_slot(worker.slot)
        check(zone, [0, 0, 0, 0])
    assert n >= 3


def test_kill_points_at_random_leave_exact_counts_and_a_lock_that_is_free_at_once() -> None:
    zone = ramping_zone()
    zone.bind(zone.claim_slot(os.getpid()))
    peers = zone.peers("u")
    queue = Queue(peers)
    chance = random.Random(4)
    operations = [*METHODS.values(), *OTHERS.values()]
    times = []
    kills = 0
    while kills < KILLS:
        operation, n = chance.choice(operations), chance.randrange(10)

        def work(peers: Peers, operation: Trapped = operation, n: int = n) -> list[int]:
            assert queue.enter(1)
            peers.begin(0, T)
            for i in (0, 1, 3):
                assert peers.take(i, None, T)
            return [operation(peers, n, signal.SIGKILL)]

        worker = Worker(zone, work)
        ended = worker.wait()
        worker.close()
        cpu, wall = time.process_time(), time.monotonic()
        i = peers.pick(None, T)
        peers.free(i, FAILED if kills % 100 == 0 else OK, T)
        zone.release_slot(worker.slot)
        times.append(time.monotonic() - wall)
        assert time.process_time() - cpu < 0.02
        assert i >= 0
        check(zone, [0, 0, 0, 0])
        assert queue.waiting() == 0
        kills += ended == signal.SIGKILL
    percentile = statistics.quantiles(times, n=100)[-1]
    print(f"{kills} kills; after them a pick and the dead one's share took {statistics.median(times) * 1e6:.0f} us,")
    print(f"99 of 100 less than {percentile * 1e6:.0f} us, all less than {max(times) * 1e3:.1f} ms")
    assert peers.unlocked == 0, "a lock was stuck"
    assert percentile < 0.02, "the machine may be late for one or two, not for all"


# Health, outliers, retries, queues


def test_no_more_requests_wait_than_may_whoever_asks_at_once() -> None:
    zone = ramping_zone()
    queue = Queue(zone.peers("u"))
    results = together(zone, 4, lambda peers: [queue.enter(150) for _ in range(100)])
    tickets = [ticket for each in results for ticket in each if ticket]
    assert sorted(tickets) == list(range(1, 151))
    assert queue.waiting() == 150


CHECK = 7
DONE: dict[str, tuple[Callable[[Peers], object], Callable[[Peers], object]]] = {
    "a failed check": (
        lambda peers: Health(peers).note(1, CHECK, False, now=T),
        lambda peers: peers.snapshot()[1].health == "down" and not peers.eligible(1, None, T),
    ),
    "a passed check": (
        lambda peers: Health(peers).note(0, CHECK, True, now=T),
        lambda peers: peers.snapshot()[0].health == "up" and peers.eligible(0, None, T),
    ),
    "an ejection": (
        lambda peers: Outliers(peers, consecutive=1).note(2, True, now=T),
        lambda peers: peers.snapshot()[2].ejected and not peers.eligible(2, None, T),
    ),
    "a sweep": (
        lambda peers: Outliers(peers, base_time=1).sweep(T + 100_000),
        lambda peers: not peers.snapshot()[3].ejected and peers.eligible(3, None, T + 100_000),
    ),
    "a wait": (lambda peers: Queue(peers).enter(1), lambda peers: Queue(peers).waiting() == 1),
    "a retry": (lambda peers: Retries(peers, 0, 2).begin(), lambda peers: Retries(peers).retries() == 1),
}


def judged_zone(name: str) -> Zone:
    """Four peers; the first has failed a check, and before a sweep the last is ejected."""
    specs = [PeerSpec(f"{n}:80", f"{n}:80", max_fails=0, checks=((CHECK, False, False),)) for n in range(4)]
    zone = Zone.create("z", None, [GroupSpec("u", [replace(spec, ejection=True) for spec in specs])])
    zone.commit()
    zone.bind(zone.claim_slot(os.getpid()))
    peers = zone.peers("u")
    Health(peers).note(0, CHECK, False, now=T)
    if name == "a sweep":
        assert Outliers(peers, consecutive=1, base_time=1).note(3, True, now=T)
    return zone


@pytest.mark.parametrize("name", DONE)
def test_a_worker_killed_while_it_judges_leaves_what_another_one_can_finish(name: str) -> None:
    act, done = DONE[name]
    for n in itertools.count():
        zone = judged_zone(name)
        peers = zone.peers("u")
        assert not done(peers)

        def work(peers: Peers, n: int = n) -> list[int]:
            assert peers.take(1, None, T)
            arm(n, signal.SIGKILL)
            act(peers)
            return []

        worker = Worker(zone, work)
        ended = worker.wait()
        worker.close()
        zone.release_slot(worker.slot)
        assert (Retries(peers).retries(), Queue(peers).waiting()) == (0, 0)
        assert conns(zone) == [0] * 4 and held(zone) == 0
        i = peers.pick(None, T)
        assert i >= 0
        peers.free(i, OK, T)
        Outliers(peers).enforce()  # as at the end of every interval
        if name != "a sweep" or ended == signal.SIGKILL:
            act(peers)
        if name == "a sweep":  # whoever was killed has had this one
            Outliers(peers).sweep(T + 200_000)
        assert done(peers), f"after a kill at step {n}"
        assert peers.unlocked == 0, "the lock was stuck"
        if ended == 0:
            break
    assert n >= 2


# Sessions


def key(n: int) -> bytes:
    return n.to_bytes(16, "little")


@pytest.mark.parametrize("case", ["new", "known", "crowded", "expired"])
def test_a_worker_killed_at_any_step_of_learning_leaves_a_table_that_is_whole(case: str) -> None:
    zone = ramping_zone()
    table = Sessions(32768)
    known = {n: b"p%d" % (n % 7) for n in range(table.capacity if case == "crowded" else 50)}
    now = T
    for n in itertools.count():
        for session, name in known.items():
            now += 1
            table.learn(key(session), name, True, now, 10**6)
        session, now = (7, now) if case == "known" else (100_000 + n, now + (10**6 if case == "expired" else 1))

        def work(peers: Peers, n: int = n, session: int = session, now: int = now) -> list[int]:
            return [table.trapped_learn(n, signal.SIGKILL, key(session), b"new", now, 10**6)]

        worker = Worker(zone, work)
        ended = worker.wait()
        worker.close()
        zone.release_slot(worker.slot)
        found = {each: table.find(key(each), now, 10**6) for each in known if each != session}
        lost = [each for each, name in found.items() if name != known[each]]
        assert len(lost) <= {"crowded": 1, "expired": len(known)}.get(case, 0)
        assert table.find(key(session), now, 10**6) in (None, b"new", known.get(session))
        # the table goes on as if nothing had been
        for each, name in known.items():
            now += 1
            table.learn(key(each), name, True, now, 10**6)
        assert all(table.find(key(each), now, 10**6) == name for each, name in known.items())
        assert len(table) <= table.capacity
        if ended == 0:
            break
    assert n >= 4


def test_a_stopped_worker_keeps_nobody_from_the_sessions() -> None:
    zone = ramping_zone()
    table = Sessions(32768)
    table.learn(key(1), b"one", True, T, 10**6)

    def work(peers: Peers) -> list[int]:
        return [table.trapped_learn(1, signal.SIGSTOP, key(2), b"two", T, 10**6)]

    worker = Worker(zone, work)
    assert worker.stopped()
    began = time.monotonic()
    answers: list[Any] = [table.find(key(1), T, 10**6) for _ in range(200)]
    assert time.monotonic() - began < 0.5, "one wait of 5 ms, and no more"
    assert answers == [None] * 200, "as if there were no session"
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0
    assert (table.find(key(1), T, 10**6), table.find(key(2), T, 10**6)) == (b"one", b"two")
