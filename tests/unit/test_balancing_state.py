"""Slow start, stickiness, tickets of the queue, times of requests under way: what the zone holds beside round robin."""

from collections import Counter
from typing import Any

import pytest
from headgate.shm.peers import (
    FAILED,
    OK,
    IpHashed,
    KeyHashed,
    Least,
    Peers,
    Queue,
    Random,
    Ring,
    RingHashed,
    Shares,
    now_ms,
)
from headgate.shm.sessions import Sessions
from headgate.shm.zone import GroupSpec, PeerSpec, Zone

T = 1_000_000


def zone_of(*specs: PeerSpec, previous: Zone | None = None) -> Zone:
    zone = Zone.create("z", None, [GroupSpec("u", specs)], previous)
    zone.commit()
    if previous is None:
        zone.bind(zone.claim_slot(1))
    else:
        zone.bind(previous.peers("u").slot)
    return zone


def make(*specs: PeerSpec) -> Peers:
    return zone_of(*specs).peers("u")


def peer(name: str, weight: int = 1, **parameters: Any) -> PeerSpec:
    return PeerSpec(name, f"{name}:80", weight, **parameters)


def share(method: Any, peers: Peers, i: int, now: int, n: int = 1200) -> float:
    picks: Counter[int] = Counter()
    for _ in range(n):
        picked = method(None, now)
        picks[picked] += 1
        peers.free(picked, OK, now)
    return picks[i] / n


# Slow start


def recovered(weight: int = 1) -> Peers:
    """Two peers of which the first failed and, at T + 101, came back: with 10 s of slow start."""
    peers = make(peer("a", weight, fail_timeout=100, slow_start=10_000), peer("b", weight))
    assert peers.take(0, None, T)
    peers.free(0, FAILED, T)
    assert not peers.eligible(0, None, T + 100)
    assert peers.take(0, None, T + 101)
    peers.free(0, OK, T + 101)
    return peers


@pytest.mark.parametrize("weight", [1, 5])
def test_a_recovered_peer_s_weight_grows_with_time(weight: int) -> None:
    peers = recovered(weight)
    for passed, want in ((0, 0.0), (1000, 1 / 11), (5000, 1 / 3), (9000, 9 / 19), (10_000, 1 / 2), (20_000, 1 / 2)):
        assert share(peers.pick, peers, 0, T + 101 + passed) == pytest.approx(want, abs=0.02)
    assert peers.snapshot()[0].slow_started == 0, "it is over"


def test_least_conn_counts_a_growing_weight() -> None:
    peers = recovered()
    method = Least(peers)
    picks = [method.get(None, T + 101 + 2500) for _ in range(20)]
    assert picks.count(0) == 4, "a quarter of the weight: a fifth of the connections"


def test_a_peer_that_is_taken_out_and_back_in_starts_slowly() -> None:
    peers = make(peer("a", slow_start=60_000), peer("b"))
    assert share(peers.pick, peers, 0, now_ms()) == 0.5, "nothing was wrong with it"
    peers.set_down(0, True)
    peers.set_down(0, False)
    assert share(peers.pick, peers, 0, now_ms()) < 0.1


def test_a_reload_that_brings_a_server_back_starts_it_slowly_and_keeps_it_so() -> None:
    one = zone_of(peer("a", slow_start=60_000, down=True), peer("b"))
    two = zone_of(peer("a", slow_start=60_000), peer("b"), previous=one)
    started = two.peers("u").snapshot()[0].slow_started
    assert started
    three = zone_of(peer("a", slow_start=60_000), peer("b"), peer("c"), previous=two)
    assert three.peers("u").snapshot()[0].slow_started == started


def test_without_slow_start_and_with_one_peer_weight_is_whole_at_once() -> None:
    peers = make(peer("a", fail_timeout=100), peer("b"))
    assert peers.take(0, None, T)
    peers.free(0, FAILED, T)
    assert peers.take(0, None, T + 101)
    peers.free(0, OK, T + 101)
    assert share(peers.pick, peers, 0, T + 101) == 0.5
    single = make(peer("a", slow_start=1000))
    single.set_down(0, True)
    single.set_down(0, False)
    assert single.pick(None, T) == 0


# What stickiness wants


def methods(peers: Peers) -> dict[str, Any]:
    shares, ring = Shares(peers), Ring(peers)
    return {
        "round robin": peers.pick,
        "least_conn": Least(peers).get,
        "least_time": Least(peers, "header").get,
        "random": Random(peers).get,
        "random two": Random(peers, True).get,
        "peak_ewma": Random(peers, True, "peak").get,
        "ip_hash": lambda *args: IpHashed(peers, b"abc", shares).get(*args),
        "hash": lambda *args: KeyHashed(peers, b"abc", shares).get(*args),
        "hash consistent": lambda *args: RingHashed(peers, b"abc", ring).get(*args),
    }


@pytest.mark.parametrize("name", methods(make(peer("a"), peer("b"))))
def test_every_method_uses_the_wanted_peer_if_it_can(name: str) -> None:
    peers = make(peer("a"), peer("b"), peer("c", max_conns=20), peer("d"))
    get = methods(peers)[name]
    for i in range(4):
        assert [get(None, T, i) for _ in range(5)] == [i] * 5
    tried = bytearray(b"\0\0\1\0")
    assert get(tried, T, 2) != 2
    peers.set_down(3, True)
    assert get(None, T, 3) != 3
    peers.set_drain(2, True)
    assert get(None, T, 2) == 2, "one that drains serves its sticky requests"
    assert 2 not in [get(None, T) for _ in range(20)]
    while peers.conns(2) < 20:
        assert get(None, T, 2) == 2
    assert get(None, T, 2) != 2


def test_sticky_requests_use_up_turns_but_no_more_than_a_round() -> None:
    peers = make(peer("a"), peer("b"), peer("c"))
    for _ in range(50):
        assert peers.pick(None, T, 0) == 0
    rest = [peers.pick(None, T) for _ in range(30)]
    assert 8 <= rest.count(0) <= 10


def test_of_backups_the_spare_one_is_wanted() -> None:
    peers = make(peer("a"), peer("b", backup=True), peer("c", backup=True))
    peers.set_down(0, True)
    assert [peers.pick(None, T, 0, 2) for _ in range(3)] == [2, 2, 2]
    assert Least(peers).get(None, T, 0, 1) == 1


def test_a_single_peer_that_drains_serves_sticky_requests_only() -> None:
    peers = make(peer("a", drain=True))
    assert [peers.pick(None, T), peers.pick(None, T, 0)] == [-1, 0]


def test_drain_of_the_configuration_ends_with_it_and_that_of_run_time_does_not() -> None:
    one = zone_of(peer("a", drain=True), peer("b"), peer("c"))
    one.peers("u").set_drain(1, True)
    two = zone_of(peer("a"), peer("b"), peer("c"), previous=one)
    assert [state.drain for state in two.peers("u").snapshot()] == [False, True, False]


# Requests under way


def test_requests_under_way_count_as_long_as_they_take() -> None:
    peers = make(peer("a"), peer("b"))
    method = Least(peers, "last_byte inflight")
    i = method.get(None, T)
    peers.begin(i, T)
    # Its average is young: 5 % of 4 s on top of nothing is all of it at once.
    picks = [method.get(None, T + 4000) for _ in range(3)]
    assert picks == [1 - i] * 3
    peers.end(i, T)
    assert method.get(None, T + 4000) == i


def test_a_worker_that_is_gone_has_nothing_under_way() -> None:
    zone = zone_of(peer("a"), peer("b"))
    peers = zone.peers("u")
    method = Least(peers, "last_byte inflight")
    mine = peers.slot
    other = zone.claim_slot(2)
    zone.bind(other)
    assert peers.take(0, None, T)
    peers.begin(0, T)
    zone.bind(mine)
    assert method.get(None, T + 5000) == 1
    zone.release_slot(other)
    peers.free(1, OK, T)
    assert peers.conns(0) == 0
    assert {method.get(None, T + 5000) for _ in range(2)} == {0, 1}


# Tickets


def test_the_oldest_ticket_of_all_workers_is_known_to_all() -> None:
    zone = zone_of(peer("a"))
    first, second = zone.peers("u").slot, zone.claim_slot(2)
    queue = Queue(zone.peers("u"))
    assert (queue.oldest(), queue.waiting()) == (0, 0)
    one, two, three = (queue.enter(3) for _ in range(3))
    assert 0 < one < two < three
    assert (queue.oldest(), queue.waiting(), queue.enter(3)) == (one, 3, 0)
    queue.publish(two, 1)
    zone.bind(second)
    queue.publish(one, 2)
    assert (queue.oldest(), queue.waiting()) == (one, 3)
    assert (queue.oldest(one), queue.oldest(two)) == (two, 0)
    queue.publish(three, 1)
    assert queue.oldest() == two
    zone.release_slot(first)
    assert (queue.oldest(), queue.waiting()) == (three, 1)


# Sessions


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def test_sessions_are_found_until_their_timeout_is_over() -> None:
    table = Sessions(65536)
    table.learn(key(1), b"peer", True, T, 1000)
    assert table.find(key(1), T + 999, 1000) == b"peer"
    assert table.find(key(2), T, 1000) is None
    table.learn(key(1), b"other", False, T + 900, 1000)
    assert table.find(key(1), T + 1800, 1000) == b"other"
    assert table.find(key(1), T + 1900, 1000) is None
    assert len(table) == 0


def test_a_session_that_is_not_known_is_learned_only_when_it_is_new() -> None:
    table = Sessions(65536)
    table.learn(key(1), b"peer", False, T, 1000)
    assert table.find(key(1), T, 1000) is None


def test_the_session_not_used_for_longest_makes_room() -> None:
    table = Sessions(32768)
    full = table.capacity
    assert full > 200
    crowded = [table.learn(key(n), b"%d" % n, True, T + n, 10**6) for n in range(full)]
    assert not any(crowded)
    table.learn(key(0), b"0", False, T + full, 10**6)
    assert table.learn(key(full), b"new", True, T + full + 1, 10**6)
    assert (table.find(key(0), T + full, 10**6), table.find(key(1), T + full, 10**6)) == (b"0", None)
    assert len(table) == full


def test_many_sessions_come_and_go() -> None:
    table, known = Sessions(32768), {}
    for n in range(20_000):
        now = T + n * 10
        session = key(n * 7919 % 500)
        table.learn(session, b"%d" % (n % 10), True, now, 1000)
        known[session] = (b"%d" % (n % 10), now)
    now = T + 200_000
    for session, (name, last) in known.items():
        assert table.find(session, now, 1000) == (name if now - last < 1000 else None)


def test_keys_and_names_have_their_length() -> None:
    table = Sessions(32768)
    with pytest.raises(ValueError, match="16 bytes"):
        table.learn(b"short", b"a", True, T, 1)
    with pytest.raises(ValueError, match="32 at most"):
        table.learn(key(1), bytes(33), True, T, 1)
    with pytest.raises(ValueError, match="too few"):
        Sessions(4096)
