"""Zones over reloads: what is carried over, what is freed, what does not fit; and the workers' slots."""

import os
from pathlib import Path

import pytest
from headgate.shm.peers import FAILED, OK, Peers
from headgate.shm.record import Records, capacity, segment_size
from headgate.shm.state import PeerState
from headgate.shm.zone import GroupSpec, PeerSpec, Zone, ZoneTooSmall

T = 1_000_000


def group(upstream: str, *peers: PeerSpec) -> GroupSpec:
    return GroupSpec(upstream, peers)


def peer(name: str, weight: int = 1, max_fails: int = 1, max_conns: int = 0) -> PeerSpec:
    return PeerSpec(name, f"{name}:80", weight, max_conns, max_fails)


def running(*groups: GroupSpec, size: int | None = None, slots: int = 1024) -> Zone:
    """A committed zone, bound to a slot of its own."""
    zone = Zone.create("z", size, groups, slots=slots)
    zone.commit()
    zone.bind(zone.claim_slot(os.getpid()))
    return zone


def successor(zone: Zone, *groups: GroupSpec, size: int | None = None) -> Zone:
    """The next generation, committed, bound to a slot of its own."""
    following = Zone.create("z", size, groups, previous=zone)
    following.commit()
    following.bind(following.claim_slot(os.getpid()))
    return following


def use(peers: Peers) -> None:
    """Leaves something in every field of peer 0 that a reload has to carry over."""
    for _ in range(3):
        assert peers.take(0, None, T)
    peers.free(0, OK, T)
    peers.free(0, FAILED, T + 7)
    peers.note_response(0, 2, 12, 100, 50)
    peers.set_drain(0, True)


def states(zone: Zone, upstream: str = "u") -> list[PeerState]:
    return zone.peers(upstream).snapshot()


# Reload


def test_an_unchanged_configuration_changes_nothing() -> None:
    groups = group("u", peer("a", 4, max_fails=2), peer("b"))
    old = running(groups)
    use(old.peers("u"))
    assert old.peers("u").pick(None, T) == 1
    before = states(old)
    new = successor(old, groups)
    assert states(new) == before
    assert (before[0].conns, before[0].fails, before[0].accessed, before[0].checked) == (1, 1, T + 7, T + 7)
    assert (before[0].effective_weight, before[0].drain, before[0].requests) == (2, True, 3)
    assert (old.generation, new.generation) == (1, 2)


def test_connections_count_against_the_same_limit_in_both_generations() -> None:
    groups = group("u", peer("a", max_conns=2), peer("b", max_conns=1))
    old = running(groups)
    new = successor(old, groups)
    picked = [zone.peers("u").pick(None, T) for zone in (old, new, old, new)]
    assert sorted(picked) == [-1, 0, 0, 1]
    old.peers("u").free(picked[0], OK, T)
    assert new.peers("u").pick(None, T) == picked[0]


def test_peers_that_stay_keep_their_state_when_others_come_and_go() -> None:
    old = running(group("u", peer("a"), peer("b", max_fails=3), peer("c")))
    assert old.peers("u").take(1, None, T)
    old.peers("u").free(1, FAILED, T)
    new = successor(old, group("u", peer("d"), peer("c"), peer("b", max_fails=3)))
    assert [(state.server, state.fails) for state in states(new)] == [("d", 0), ("c", 0), ("b", 1)]


def test_a_peer_belongs_to_its_upstream_server_and_address() -> None:
    old = running(group("u", peer("a"), peer("b")), group("v", peer("a"), peer("b")))
    for upstream in ("u", "v"):
        assert old.peers(upstream).conns(0) == 0
    assert old.peers("u").take(0, None, T)
    assert old.peers("v").conns(0) == 0
    new = successor(old, group("u", PeerSpec("a", "elsewhere:80"), peer("b")), group("v", peer("a"), peer("b")))
    assert states(new)[0].conns == 0


def test_a_server_that_is_listed_twice_is_two_peers() -> None:
    groups = group("u", peer("a"), peer("a"), peer("b"))
    old = running(groups)
    assert old.peers("u").take(1, None, T)
    assert [state.conns for state in states(successor(old, groups))] == [0, 1, 0]


def test_new_parameters_are_written_at_commit() -> None:
    old = running(group("u", peer("a"), peer("b")))
    spec = PeerSpec("a", "a:80", weight=3, max_conns=7, max_fails=2, fail_timeout=1234, down=True, slow_start=500)
    new = Zone.create("z", None, [group("u", spec, peer("b"))], previous=old)
    assert states(old)[0].weight == 1
    new.commit()
    state = states(old)[0]
    assert (state.weight, state.max_conns, state.max_fails, state.fail_timeout) == (3, 7, 2, 1234)
    assert (state.down, state.slow_start) == (True, 500)


def test_effective_weight_keeps_its_loss_but_not_more_than_the_new_weight() -> None:
    old = running(group("u", peer("a", 10, max_fails=5), peer("b", 10), peer("c", 10, max_fails=5)))
    for i in (0, 2):
        assert old.peers("u").take(i, None, T)
        old.peers("u").free(i, FAILED, T)
    new = successor(old, group("u", peer("a", 6), peer("b", 20), peer("c", 20)))
    assert [state.effective_weight for state in states(new)] == [6, 20, 8]


def test_a_running_value_does_not_outlive_the_weights_it_grew_from() -> None:
    old = running(group("u", peer("a", 1000), peer("b", 1000)))
    assert old.peers("u").pick(None, T) == 0
    new = successor(old, group("u", peer("a"), peer("b")))
    assert [state.current_weight for state in states(new)] == [-2, 2]


def test_an_abandoned_reload_leaves_no_trace() -> None:
    old = running(group("u", peer("a", 5), peer("b")), size=32768)
    use(old.peers("u"))
    before = states(old)
    for _ in range(100):
        # Were anything left behind, so many attempts would not fit.
        attempt = Zone.create(
            "z", 20 << 20, [group("w", *(peer(f"n{n}", 9) for n in range(1000))), group("u", peer("a", 2))], old
        )
        attempt.abandon()
    assert states(old) == before
    new = successor(old, group("u", peer("a", 5), peer("b")), group("w", peer("n1")))
    assert states(new) == before
    assert (states(new, "w")[0].weight, states(new, "w")[0].requests) == (1, 0)


def test_a_reload_that_does_not_fit_leaves_no_trace() -> None:
    old = running(group("u", peer("a"), peer("b")))
    before = states(old)
    half = capacity()[1] // 2 + 1
    keep = Zone.create("z", None, [group("w", *(peer(f"n{n}") for n in range(half)))], old)
    with pytest.raises(ZoneTooSmall):
        Zone.create("z", None, [group("w", *(peer(f"m{n}") for n in range(half)))], old)
    keep.abandon()
    Zone.create("z", None, [group("w", *(peer(f"m{n}") for n in range(half)))], old).abandon()
    assert states(old) == before


def test_a_group_that_is_refused_leaves_no_trace() -> None:
    old = running(group("u", peer("a"), peer("b")))
    for n in range(100):
        wrong = [PeerSpec("x", "x:80", backup=True), *(peer(f"{n}.{i}") for i in range(1000))]
        with pytest.raises(ValueError, match="primaries first"):
            Zone.create("z", None, [group("w", *wrong)], old)
    Zone.create("z", None, [group("w", *(peer(f"n{n}") for n in range(20_000)))], old).abandon()


def test_a_changed_size_keeps_all_state() -> None:
    groups = group("u", peer("a", max_conns=2), peer("b", max_conns=1))
    old = running(groups, size=32768)
    picked = old.peers("u").pick(None, T)
    new = successor(old, groups, size=65536)
    assert new.peers("u").conns(picked) == 1
    assert (old.size, new.size) == (32768, 65536)


def test_retiring_frees_what_only_the_old_generation_used() -> None:
    old = running(group("u", peer("a"), peer("b")), group("gone", peer("x")))
    assert old.peers("u").take(0, None, T)
    new = successor(old, group("u", peer("b"), peer("c")))
    new.release_slot(old.peers("u").slot)
    new.retire(old.generation)
    back = successor(new, group("u", peer("a"), peer("b")), group("gone", peer("x")))
    assert [state.requests for state in states(back)] == [0, 0]
    assert states(back, "gone")[0].weight == 1


def test_a_record_with_connections_is_not_given_to_another_peer() -> None:
    old = running(group("u", peer("a"), peer("b")))
    assert old.peers("u").take(0, None, T)
    new = successor(old, group("u", peer("b")))
    new.retire(old.generation)
    after = successor(new, group("u", peer("b"), peer("c")))
    assert states(after)[1].conns == 0
    old.peers("u").free(0, OK, T)
    assert after.peers("u").conns(1) == 0


def test_the_running_generation_cannot_be_retired() -> None:
    zone = running(group("u", peer("a")))
    with pytest.raises(ValueError, match="generation 1 is this one"):
        zone.retire(zone.generation)


def test_hundreds_of_reloads_need_no_more_room() -> None:
    zone = running(group("u", peer("a"), peer("b")))
    room = capacity()[1] // 64
    for n in range(200):
        new = Zone.create("z", None, [group("u", peer("a"), *(peer(f"{n}.{i}") for i in range(room)))], zone)
        new.commit()
        new.retire(zone.generation)
        zone = new
    assert zone.peers("u").count == room + 1


# Size


def test_a_zone_that_is_too_small_says_what_it_needs() -> None:
    peers = [peer(f"n{n}") for n in range(60)]
    with pytest.raises(ZoneTooSmall) as caught:
        Zone.create("back", 32768, [group("u", *peers)])
    assert str(caught.value) == 'zone "back" is too small: its size is 32768, 36864 needed'
    assert (caught.value.name, caught.value.size, caught.value.needed) == ("back", 32768, 36864)
    Zone.create("back", caught.value.needed, [group("u", *peers)])


def test_64k_hold_a_hundred_servers() -> None:
    Zone.create("z", 65536, [group("u", *(peer(f"n{n}") for n in range(100)))])


def test_an_automatic_zone_has_room_for_ten_thousand() -> None:
    zone = running(group("u", *(peer(f"n{n}") for n in range(10_000))))
    assert zone.peers("u").pick(None, T) == 0


def test_even_an_automatic_zone_ends_somewhere() -> None:
    most = capacity()[1]
    with pytest.raises(ZoneTooSmall, match=r'zone "z" is too small: its size is [0-9]+, [0-9]+ needed'):
        Zone.create("z", None, [group("u", *(peer(f"n{n}") for n in range(most + 1)))])


def test_a_small_zone_takes_little_memory() -> None:
    zone = running(group("u", peer("a"), peer("b")))
    segment = zone._store.segment
    zone.peers("u").free(zone.peers("u").pick(), OK)
    assert os.fstat(segment.fd).st_size > 100 << 20
    assert os.fstat(segment.fd).st_blocks * 512 <= 8 * 4096


def test_peers_out_of_range_are_refused() -> None:
    for weight, max_conns, fail_timeout in ((0, 0, 0), (1, -1, 0), (1, 0, 1 << 62)):
        with pytest.raises(ValueError, match="of a peer cannot be"):
            PeerSpec("a", "a:80", weight, max_conns, fail_timeout=fail_timeout)


def test_numbers_as_large_as_nginx_takes_them_are_no_error() -> None:
    zone = running(group("u", PeerSpec("a", "a", 1 << 40, 1 << 40, 1 << 40, 1 << 40), peer("b")))
    assert zone.peers("u").pick(None, T) == 0


def test_a_group_needs_peers_with_the_primaries_first() -> None:
    for peers in ([], [PeerSpec("a", "a", backup=True), peer("b")]):
        with pytest.raises(ValueError, match='upstream "u" needs peers'):
            Zone.create("z", None, [group("u", *peers)])
    with pytest.raises(ValueError, match="an upstream is twice"):
        Zone.create("z", None, [group("u", peer("a")), group("u", peer("b"))])


# Slots


def test_a_released_slot_gives_back_what_its_worker_held_and_no_more() -> None:
    zone = running(group("u", peer("a"), peer("b")), group("v", peer("c")))
    mine = zone.peers("u").slot
    assert zone.peers("u").take(0, None, T)
    other = zone.claim_slot(4711)
    zone.bind(other)
    for upstream, i, times in (("u", 0, 3), ("u", 1, 2), ("v", 0, 1)):
        for _ in range(times):
            assert zone.peers(upstream).take(i, None, T)
    assert [(state.slot, state.pid, state.held) for state in zone.slots()] == [(mine, os.getpid(), 1), (other, 4711, 6)]
    assert zone.release_slot(other) == 6
    assert [zone.peers("u").conns(0), zone.peers("u").conns(1), zone.peers("v").conns(0)] == [1, 0, 0]
    assert [state.slot for state in zone.slots()] == [mine]


def test_a_slot_can_be_claimed_before_the_fork() -> None:
    zone = running(group("u", peer("a")))
    slot = zone.claim_slot()
    assert zone.slots()[slot].pid == 0
    zone.own_slot(slot, 99)
    state = zone.slots()[slot]
    assert (state.pid, state.generation) == (99, 1)
    zone.heartbeat(slot)
    assert zone.slots()[slot].heartbeat >= state.started > 0


def test_slots_are_used_again_and_run_out() -> None:
    zone = running(group("u", peer("a")), slots=2)
    slot = zone.claim_slot(5)
    with pytest.raises(IndexError, match="no free worker slot"):
        zone.claim_slot(6)
    zone.release_slot(slot)
    assert zone.claim_slot(6) == slot
    with pytest.raises(ValueError, match="slot 7 is not claimed"):
        zone.release_slot(7)


def test_a_slot_s_next_owner_counts_exactly() -> None:
    zone = running(group("u", peer("a", max_conns=1)))
    peers = zone.peers("u")
    for pid in range(1, 50):
        slot = zone.claim_slot(pid)
        zone.bind(slot)
        assert peers.pick(None, T) == 0
        assert peers.pick(None, T) == -1
        zone.release_slot(slot)
        assert peers.conns(0) == 0


# The segment


def test_an_inherited_descriptor_shows_the_same_records() -> None:
    zone = running(group("u", peer("a"), peer("b")))
    zone.peers("u").take(1, None, T)
    segment = type(zone._store.segment).attach(os.dup(zone._store.segment.fd))
    records = Records(segment.map)
    assert records.generation == 1
    assert sorted(records.conns(i) for i in records.records().values()) == [0, 1]


def test_memory_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone of this layout"):
        Records(bytearray(8192))
    with pytest.raises(ValueError, match="too short"):
        Records(bytearray(100))
    with pytest.raises(ValueError, match="1 to 2048 worker slots, not 0"):
        segment_size(0)


def test_nothing_is_left_in_dev_shm() -> None:
    zone = running(group("u", peer("a")))
    assert zone.peers("u").count == 1
    assert not list(Path("/dev/shm").glob("headgate.*"))
