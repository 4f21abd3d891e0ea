"""What active checks, outlier ejection and the retry budget make of a peer's state: on a clock of the test's own."""

from typing import Any

import pytest
from headgate.shm.peers import OK, Health, Outliers, Peers, Retries
from headgate.shm.zone import GroupSpec, PeerSpec, Zone

T = 1_000_000
CHECK = (7, False, False)


def zone_of(names: str, previous: Zone | None = None, **parameters: Any) -> Zone:
    specs = [PeerSpec(name, f"{name}:80", **parameters) for name in names]
    zone = Zone.create("z", None, [GroupSpec("u", specs)], previous)
    zone.commit()
    zone.bind(zone.claim_slot(1) if previous is None else previous.peers("u").slot)
    return zone


def make(names: str, **parameters: Any) -> Peers:
    return zone_of(names, **parameters).peers("u")


def eligible(peers: Peers, now: int = T) -> str:
    return "".join(spec.server for i, spec in enumerate(peers.specs) if peers.eligible(i, None, now))


# Health


def test_fails_and_passes_are_counted_in_a_row() -> None:
    peers = make("ab", checks=(CHECK,))
    health = Health(peers)
    assert peers.snapshot()[0].health == "unknown"
    results = [
        health.note(0, 7, passed, fails=3, passes=2, now=T)
        for passed in (False, False, True, False, False, False, False, True, False, True, True)
    ]
    assert results == [0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]
    assert eligible(peers) == "ab"
    assert [state.health for state in peers.snapshot()] == ["up", "unknown"]


def test_one_failing_check_of_several_is_enough() -> None:
    peers = make("ab", checks=(CHECK, (8, False, False)))
    health = Health(peers)
    assert health.note(0, 8, False) == -1
    assert health.note(0, 7, True) == 0
    assert (eligible(peers), peers.snapshot()[0].health) == ("b", "down")
    assert health.note(0, 8, True) == 1
    assert eligible(peers) == "ab"
    assert health.note(0, 99, False) == 0, "no such check"


def test_a_mandatory_check_must_be_passed_once() -> None:
    peers = make("ab", checks=((7, True, False),))
    health = Health(peers)
    assert (eligible(peers), peers.pick(None, T), peers.snapshot()[0].health) == ("", -1, "checking")
    assert health.note(0, 7, False, fails=2) == 0
    assert health.note(0, 7, True, passes=3) == 1
    assert health.note(1, 7, False) == -1
    assert eligible(peers) == "a"


@pytest.mark.parametrize("persistent, left", [(True, "a"), (False, "")])
def test_a_reload_keeps_states_by_check(persistent: bool, left: str) -> None:
    zone = zone_of("abc", checks=(CHECK, (8, True, persistent)))
    health = Health(zone.peers("u"))
    for i in range(3):
        health.note(i, 8, i != 1)
    assert eligible(zone.peers("u")) == "ac"
    health.note(2, 7, False)
    later = zone_of("abc", zone, checks=((8, True, persistent), CHECK))
    assert eligible(later.peers("u")) == left
    gone = zone_of("abc", later)
    assert eligible(gone.peers("u")) == "abc"
    assert health.note(0, 8, False) == 0, "a worker of the past cannot speak for a check that is gone"


def test_recovery_starts_slowly() -> None:
    peers = make("ab", checks=(CHECK,), slow_start=1000)
    health = Health(peers)
    health.note(0, 7, False, now=T)
    health.note(0, 7, True, now=T + 10)
    assert peers.snapshot()[0].slow_started == T + 10


def test_more_checks_than_there_is_room_for_are_an_error() -> None:
    zone = Zone.create(
        "z", None, [GroupSpec("u", [PeerSpec("a", "a", checks=tuple((i, False, False) for i in range(5)))])]
    )
    with pytest.raises(ValueError, match="at most 4 health checks"):
        zone.commit()


def test_one_worker_leads_until_it_leaves_dies_or_stands_still() -> None:
    zone = zone_of("a", checks=(CHECK,))
    mine = zone.peers("u")
    first, second = mine.slot, zone.claim_slot(2)
    other = zone_of("a", zone, checks=(CHECK,)).peers("u")
    other.bind(second)
    a, b = Health(mine), Health(other)
    assert (a.lead(T), b.lead(T + 1), a.holder()) == (True, False, first)
    assert (a.lead(T + 2000), b.lead(T + 4000)) == (True, False), "renewed"
    assert (b.lead(T + 5000), a.lead(T + 5001), a.holder()) == (True, False, second), "not renewed for 3 s"
    b.leave()
    assert a.lead(T + 5002)
    b.leave()
    assert not b.lead(T + 5003), "it was not b's to leave"
    zone.release_slot(first)
    assert b.lead(T + 5004)


# Outliers


def outliers(peers: Peers, **parameters: Any) -> Outliers:
    values = {"consecutive": 2, "interval": 1000, "base_time": 3000, "max_time": 7000, "max_percent": 50}
    return Outliers(peers, **(values | parameters))  # type: ignore[arg-type]


def test_ejections_grow_and_shrink() -> None:
    peers = make("abc", ejection=True)
    found = outliers(peers)
    found.sweep(T)
    now, lengths = T, []
    for _ in range(4):
        assert not found.note(0, True, 0, now)
        assert found.note(0, True, 0, now)
        assert eligible(peers, now) == "bc"
        lengths.append(peers.snapshot()[0].ejected_until - now)
        now += lengths[-1]
        assert found.sweep(now - 1) == ([], [])
        now += 1000
        assert found.sweep(now) == ([], [0])
        assert eligible(peers, now) == "abc"
    assert lengths == [3000, 6000, 7000, 7000], "base times the number, capped"
    for _ in range(3):
        now += 1000
        found.sweep(now)
    found.note(0, True, 0, now)
    found.note(0, True, 0, now)
    assert peers.snapshot()[0].ejected_until - now == 6000, "three good intervals took three off"
    assert peers.snapshot()[0].ejections == 5


def test_at_least_one_and_at_most_the_share() -> None:
    peers = make("abcdef", ejection=True)
    found = outliers(peers, consecutive=1, max_percent=34)
    assert [found.note(i, True, 0, T) for i in range(4)] == [True, True, False, False]
    assert eligible(peers) == "cdef"
    few = make("ab", ejection=True)
    found = outliers(few, consecutive=1, max_percent=10)
    assert [found.note(i, True, 0, T) for i in (0, 1)] == [True, False]
    never = make("ab", ejection=True)
    assert not outliers(never, consecutive=1, max_percent=0).note(0, True, 0, T)
    only = make("a", ejection=True)
    assert not outliers(only, consecutive=1, max_percent=100).note(0, True, 0, T)


def test_panic() -> None:
    peers = make("abcd", ejection=True, checks=(CHECK,))
    found, health = outliers(peers, consecutive=1, max_percent=50, panic=50), Health(peers)
    assert found.note(0, True, 0, T) and found.note(1, True, 0, T)
    assert eligible(peers) == "cd", "half of them is enough"
    health.note(2, 7, False, now=T)
    found.enforce()
    assert eligible(peers) == "abd", "ejections are ignored, health is not"
    health.note(2, 7, True, now=T)
    found.enforce()
    assert eligible(peers) == "cd"


def test_the_rate_of_success_is_compared() -> None:
    peers = make("abcde", ejection=True)
    found = outliers(peers, consecutive=0, stdev_factor=1.9, minimum_hosts=5, volume=10)
    found.sweep(T)
    for i in range(5):
        for n in range(10):
            found.note(i, i == 3 and n % 2 == 0, 1000, T)
    assert found.sweep(T + 500) == ([], []), "once in an interval"
    assert found.sweep(T + 1000) == ([(3, "success rate")], [])
    assert found.sweep(T + 2000) == ([], [])


@pytest.mark.parametrize("count, volume, out", [(4, 10, []), (5, 11, []), (5, 10, [(3, "latency")])])
def test_times_are_compared_where_enough_is_known(count: int, volume: int, out: list[Any]) -> None:
    peers = make("abcde"[:count], ejection=True)
    found = outliers(peers, latency_factor=3.0, minimum_hosts=5, volume=volume)
    found.sweep(T)
    for i in range(count):
        for _ in range(10):
            found.note(i, False, 70_000 if i == 3 else 20_000, T)
    assert found.sweep(T + 1000) == (out, [])


def test_small_differences_of_time_are_none() -> None:
    peers = make("abcde", ejection=True)
    found = outliers(peers)
    found.sweep(T)
    for i in range(5):
        for _ in range(100):
            found.note(i, False, 9_000 if i == 3 else 500, T)
    assert found.sweep(T + 1000) == ([], [])


def test_a_reload_keeps_ejections_and_ends_them_with_the_directive() -> None:
    zone = zone_of("abc", ejection=True)
    old = outliers(zone.peers("u"), consecutive=1)
    old.note(0, True, 0, T)
    later = zone_of("abc", zone, ejection=True)
    assert eligible(later.peers("u")) == "bc"
    assert not old.note(1, True, 0, T), "workers of the past eject nobody"
    gone = zone_of("abc", later)
    assert eligible(gone.peers("u")) == "abc"


# The retry budget


def test_the_budget_is_a_share_of_the_active_requests() -> None:
    peers = make("ab")
    budget = Retries(peers, 20, 0)
    assert not budget.begin()
    for _ in range(14):
        peers.pick(None, T)
    assert budget.active() == 14
    assert [budget.begin() for _ in range(4)] == [True, True, True, False], "20 % of 15"
    assert [budget.begin(held=True), budget.retries()] == [False, 3]
    budget.end()
    assert not budget.begin(held=True), "20 % of 14 is 2"
    assert budget.begin()


def test_the_budget_is_shared_and_the_dead_give_theirs_back() -> None:
    zone = zone_of("ab")
    other = zone_of("ab", zone).peers("u")
    slot = zone.claim_slot(2)
    other.bind(slot)
    mine, theirs = Retries(zone.peers("u")), Retries(other)
    assert [mine.begin(), theirs.begin(), theirs.begin(), theirs.begin(), mine.begin()] == [True] * 3 + [False] * 2
    zone.release_slot(slot)
    assert mine.retries() == 1
    peers = zone.peers("u")
    peers.free(peers.pick(None, T), OK, T)
    assert [mine.begin(), mine.begin(), mine.begin()] == [True, True, False]
