"""Round robin and peer state over a fake clock, as ngx_http_upstream_round_robin.c has them."""

import pytest
from headgate.shm.peers import FAILED, NEXT, OK, Peers, now_ms
from headgate.shm.zone import GroupSpec, PeerSpec, Zone

T = 1_000_000  # a moment long after any fail_timeout


def make(*specs: PeerSpec) -> Peers:
    zone = Zone.create("z", None, [GroupSpec("u", specs)])
    zone.commit()
    zone.bind(zone.claim_slot(1))
    return zone.peers("u")


def peer(name: str, weight: int = 1, max_fails: int = 1, fail_timeout: int = 10_000, max_conns: int = 0) -> PeerSpec:
    return PeerSpec(name, f"{name}:80", weight, max_conns, max_fails, fail_timeout)


def backup(name: str) -> PeerSpec:
    return PeerSpec(name, f"{name}:80", backup=True)


def turns(peers: Peers, n: int, state: int = OK, now: int = T) -> str:
    """The names of the peers of `n` requests that end in `state`, each before the next."""
    names = ""
    for _ in range(n):
        i = peers.pick(None, now)
        names += "abcdefgh"[i] if i >= 0 else "-"
        if i >= 0:
            peers.free(i, state, now)
    return names


def test_weights_5_1_1_interleave_smoothly() -> None:
    assert turns(make(peer("a", 5), peer("b"), peer("c")), 14) == "aabacaa" * 2


def test_equal_weights_take_turns_in_the_order_of_the_configuration() -> None:
    assert turns(make(peer("a"), peer("b"), peer("c")), 7) == "abcabca"


def test_a_failure_costs_weight_by_max_fails() -> None:
    peers = make(peer("a", 4, max_fails=2), peer("b"))
    assert peers.pick(None, T) == 0
    peers.free(0, FAILED, T)
    assert peers.snapshot()[0].effective_weight == 2


def test_effective_weight_never_falls_below_zero() -> None:
    peers = make(peer("a", 5, max_fails=2), peer("b"))
    for _ in range(4):
        assert peers.take(0, None, T)
    seen = []
    for _ in range(4):
        peers.free(0, FAILED, T)
        seen.append(peers.snapshot()[0].effective_weight)
    assert seen == [3, 1, 0, 0]


def test_effective_weight_recovers_by_one_a_selection() -> None:
    peers = make(peer("a", 4, max_fails=4), peer("b"))
    assert peers.take(0, None, T)
    peers.free(0, FAILED, T)
    seen = []
    for _ in range(3):
        seen.append(peers.snapshot()[0].effective_weight)
        peers.free(peers.pick(None, T), OK, T)
    assert seen == [3, 4, 4]


def test_max_fails_0_never_takes_a_peer_out_nor_costs_weight() -> None:
    peers = make(peer("a", max_fails=0), peer("b", max_fails=0))
    assert turns(peers, 6, FAILED) == "ababab"
    assert [(p.fails, p.effective_weight) for p in peers.snapshot()] == [(3, 1), (3, 1)]


def test_a_peer_is_out_from_max_fails_to_the_end_of_fail_timeout() -> None:
    peers = make(peer("a", max_fails=2, fail_timeout=5000), peer("b"))
    for now in (T, T + 10):
        assert peers.eligible(0, None, now)
        assert peers.take(0, None, now)
        peers.free(0, FAILED, now)
    assert not peers.eligible(0, None, T + 11)
    assert not peers.eligible(0, None, T + 5010)
    assert peers.eligible(0, None, T + 5011)


def test_exactly_one_request_probes_in_each_window() -> None:
    peers = make(peer("a", fail_timeout=5000), peer("b"))
    assert peers.take(0, None, T)
    peers.free(0, FAILED, T)
    window = T + 5001
    picked = [peers.pick(None, window + ms) for ms in range(20)]
    assert picked.count(0) == 1
    assert not peers.take(0, None, window + 20)
    assert peers.snapshot()[0].checked >= window


def test_a_success_clears_failures_only_after_the_window_s_check() -> None:
    peers = make(peer("a", max_fails=3, fail_timeout=5000), peer("b"))
    for _ in range(2):
        assert peers.take(0, None, T)
    peers.free(0, FAILED, T)
    peers.free(0, OK, T)
    assert peers.snapshot()[0].fails == 1, "accessed == checked: the success began before the failure"
    assert peers.take(0, None, T + 5001)
    peers.free(0, OK, T + 5001)
    state = peers.snapshot()[0]
    assert (state.fails, state.accessed, state.checked) == (0, T, T + 5001)


def test_a_failed_probe_keeps_the_peer_out_for_another_window() -> None:
    peers = make(peer("a", fail_timeout=5000), peer("b"))
    for now in (T, T + 5001):
        assert peers.take(0, None, now)
        peers.free(0, FAILED, now)
    assert not peers.eligible(0, None, T + 10_000)
    assert peers.eligible(0, None, T + 10_002)


def test_the_failure_that_reaches_max_fails_says_so_once() -> None:
    peers = make(peer("a", max_fails=2), peer("b"))
    for _ in range(4):
        assert peers.take(0, None, T)
    assert [peers.free(0, FAILED, T) for _ in range(4)] == [0, 1, 0, 0]


def test_another_peer_wanted_is_no_failure() -> None:
    peers = make(peer("a"), peer("b"))
    assert peers.take(0, None, T)
    assert peers.free(0, NEXT, T) == 0
    assert (peers.snapshot()[0].fails, peers.snapshot()[0].failed) == (0, 0)
    assert peers.eligible(0, None, T)


def test_a_single_peer_is_never_given_up() -> None:
    peers = make(peer("a"))
    assert peers.single
    assert turns(peers, 5, FAILED) == "aaaaa"
    assert peers.pick(bytearray(b"\1"), T) == 0
    state = peers.snapshot()[0]
    assert (state.fails, state.failed, state.checked) == (0, 5, 0)


def test_a_single_peer_can_be_down_or_full() -> None:
    peers = make(peer("a", max_conns=1))
    assert [peers.pick(None, T), peers.pick(None, T)] == [0, -1]
    peers.free(0, OK, T)
    peers.set_down(0, True)
    assert peers.pick(None, T) == -1


def test_with_a_backup_no_peer_is_single() -> None:
    peers = make(peer("a"), backup("b"))
    assert not peers.single
    assert turns(peers, 4, FAILED) == "ab--"


def test_each_of_70_peers_is_tried_once() -> None:
    peers = make(*(peer(str(n)) for n in range(70)))
    tried = bytearray(70)
    order = []
    for _ in range(70):
        i = peers.pick(tried, T)
        order.append(i)
        tried[i] = 1
        peers.free(i, FAILED, T)
    assert sorted(order) == list(range(70))
    assert peers.pick(tried, T) == -1


def test_tries_leaves_out_peers_that_are_down_or_draining() -> None:
    peers = make(peer("a"), PeerSpec("b", "b:80", down=True), peer("c"), backup("d"))
    assert (peers.count, len(peers), peers.primaries, peers.tries()) == (4, 4, 3, 3)
    peers.set_drain(2, True)
    assert peers.tries() == 2
    assert turns(peers, 3) == "aaa"
    peers.set_down(1, False)
    peers.set_drain(2, False)
    assert peers.tries() == 4


def test_backups_serve_while_no_primary_can() -> None:
    peers = make(peer("a", max_conns=1), backup("b"), backup("c"))
    assert peers.pick(None, T) == 0
    assert turns(peers, 4) == "bcbc"
    peers.free(0, OK, T)
    assert turns(peers, 2) == "aa"


def test_a_request_that_went_over_to_the_backups_stays_there() -> None:
    peers = make(peer("a", max_conns=1), backup("b"), backup("c"))
    assert peers.take(0, None, T)
    tried = bytearray(3)
    assert peers.pick(tried, T) == 1
    tried[1] = 1
    peers.free(0, OK, T)
    assert peers.pick(tried, T) == 2


def test_no_peer_left_changes_no_failure_count() -> None:
    peers = make(peer("a"), peer("b"))
    assert turns(peers, 4, FAILED) == "ab--"
    assert [p.fails for p in peers.snapshot()] == [1, 1]


def test_max_conns_is_kept_and_connections_come_back() -> None:
    peers = make(peer("a", 5, max_conns=2), peer("b", max_conns=1))
    picked = [peers.pick(None, T) for _ in range(4)]
    assert sorted(picked) == [-1, 0, 0, 1]
    assert [peers.conns(0), peers.conns(1)] == [2, 1]
    assert not peers.take(0, None, T)
    for i in (0, 0, 1):
        peers.free(i, OK, T)
    assert [peers.conns(0), peers.conns(1)] == [0, 0]


def test_freeing_what_is_not_held_is_refused() -> None:
    peers = make(peer("a"), peer("b"))
    with pytest.raises(ValueError, match="no connection to free on peer 1"):
        peers.free(1, OK, T)
    assert peers.conns(1) == 0


def test_a_marked_peer_is_not_eligible() -> None:
    peers = make(peer("a"), peer("b"))
    tried = bytearray(b"\0\1")
    assert [peers.eligible(i, tried, T) for i in (0, 1)] == [True, False]
    assert not peers.take(1, tried, T)
    with pytest.raises(ValueError, match="tried has 1 bytes for 2 peers"):
        peers.pick(bytearray(1), T)


def test_an_index_out_of_range_is_refused() -> None:
    peers = make(peer("a"), peer("b"))
    for i in (-1, 2):
        for call in (peers.conns, peers.eligible, peers.take):
            with pytest.raises(IndexError):
                call(i)


def test_a_weight_changed_at_run_time_takes_effect_at_once() -> None:
    peers = make(peer("a"), peer("b"))
    peers.set_weight(0, 3)
    assert turns(peers, 8).count("a") == 6
    peers.set_weight(0, 1)
    assert peers.snapshot()[0].effective_weight == 1
    assert turns(peers, 8).count("a") == 4
    with pytest.raises(ValueError, match="a weight is 1 or more, not 0"):
        peers.set_weight(0, 0)


def test_a_large_former_weight_does_not_decide_for_long() -> None:
    peers = make(peer("a", 100_000), peer("b", 100_000))
    assert turns(peers, 1) == "a"
    for i in (0, 1):
        peers.set_weight(i, 1)
    assert turns(peers, 12).count("a") in (5, 6, 7)


def test_responses_are_counted_by_class_time_and_bytes() -> None:
    peers = make(peer("a"), peer("b"))
    assert turns(peers, 3) == "aba"
    peers.note_response(0, 2, 30, 1000, 10)
    peers.note_response(0, 5, 10, 500, 20)
    state = peers.snapshot()[0]
    assert state.responses == (0, 1, 0, 0, 1)
    assert (state.requests, state.last_ms, state.average_ms, state.bytes_in, state.bytes_out) == (2, 10, 20.0, 1500, 30)
    with pytest.raises(ValueError, match="no such class"):
        peers.note_response(0, 6, 1, 1, 1)


def test_without_a_given_time_the_clock_is_read() -> None:
    peers = make(peer("a", fail_timeout=0), peer("b"))
    before = now_ms()
    assert peers.take(0)
    peers.free(0, FAILED)
    assert before <= peers.snapshot()[0].accessed <= now_ms()


def test_peers_are_not_picked_before_they_are_bound_and_committed() -> None:
    zone = Zone.create("z", None, [GroupSpec("u", [peer("a"), peer("b")])])
    peers = zone.peers("u")
    with pytest.raises(RuntimeError, match="not bound"):
        peers.pick(None, T)
    with pytest.raises(ValueError, match="slot 0 is not claimed"):
        peers.bind(0)
    slot = zone.claim_slot(1)
    with pytest.raises(RuntimeError, match="not committed"):
        peers.bind(slot)
