"""Balancing methods compared, step by step, with plain models of nginx's; and the numbers of the hashes."""

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from headgate.conf.template import Template
from headgate.shm.peers import (
    FAILED,
    OK,
    IpHashed,
    KeyHashed,
    Least,
    Peers,
    Random,
    Ring,
    RingHashed,
    Shares,
    now_ms,
)
from headgate.shm.zone import GroupSpec, PeerSpec, Zone
from headgate.worker.upstream.balancer.hash import ConsistentHash
from hypothesis import given, settings
from hypothesis import strategies as st

T = 1_000_000


def peers_of(specs: list[PeerSpec]) -> Peers:
    zone = Zone.create("z", None, [GroupSpec("u", specs)])
    zone.commit()
    zone.bind(zone.claim_slot(1))
    return zone.peers("u")


def weighted(*weights: int, **parameters: Any) -> Peers:
    return peers_of([PeerSpec(f"s{n}", f"10.0.0.{n}:80", weight, **parameters) for n, weight in enumerate(weights)])


@dataclass
class ModelPeer:
    spec: PeerSpec
    effective: int
    current: int = 0
    conns: int = 0
    fails: int = 0
    accessed: int = 0
    checked: int = 0
    times: dict[str, int] = field(default_factory=lambda: {"header": 0, "last_byte": 0})


class Model:
    """ngx_http_upstream_least_conn_module.c and ngx_http_upstream_least_time_module.c, in so many words."""

    def __init__(self, specs: list[PeerSpec], by: str) -> None:
        self.peers = [ModelPeer(spec, spec.weight) for spec in specs]
        self.by = by

    def cost(self, peer: ModelPeer, now: int) -> int:
        if self.by == "conns":
            return peer.conns
        ms, passed = peer.times[self.by], now - peer.checked
        if passed > peer.spec.fail_timeout:
            ms >>= passed // (peer.spec.fail_timeout + 1000)
        ms = 5000 if ms > 5000 else ms + 20 - ms % 20
        return ms * (1 + peer.conns)

    def pick(self, tried: bytearray, now: int) -> int:
        for backups in (False, True):
            if not backups and any(mark and peer.spec.backup for mark, peer in zip(tried, self.peers, strict=True)):
                continue
            usable = [i for i, peer in enumerate(self.peers) if peer.spec.backup == backups and not tried[i]]
            usable = [i for i in usable if self._may(self.peers[i], now)]
            if usable:
                return self._take(self._best(usable, now), now)
        return -1

    def _may(self, peer: ModelPeer, now: int) -> bool:
        spec = peer.spec
        banned = spec.max_fails and peer.fails >= spec.max_fails and now - peer.checked <= spec.fail_timeout
        full = spec.max_conns and peer.conns >= spec.max_conns
        return not (spec.down or spec.drain or banned or full)

    def _best(self, usable: list[int], now: int) -> int:
        def order(i: int) -> float:
            return self.cost(self.peers[i], now) / self.peers[i].spec.weight

        least = min(map(order, usable))
        equal = [i for i in usable if order(i) == least]
        best = equal[0]
        if len(equal) > 1:
            total = 0
            for i in equal:
                peer = self.peers[i]
                peer.current += peer.effective
                total += peer.effective
                peer.effective += peer.effective < peer.spec.weight
            best = max(equal, key=lambda i: self.peers[i].current)
            self.peers[best].current -= total
        return best

    def _take(self, i: int, now: int) -> int:
        peer = self.peers[i]
        if now - peer.checked > peer.spec.fail_timeout:
            peer.checked = now
        peer.conns += 1
        return i

    def free(self, i: int, state: int, now: int) -> None:
        peer = self.peers[i]
        peer.conns -= 1
        if state & FAILED:
            peer.fails += 1
            peer.accessed = peer.checked = now
            if peer.spec.max_fails:
                peer.effective = max(0, peer.effective - peer.spec.weight // peer.spec.max_fails)
        elif peer.accessed < peer.checked:
            peer.fails = 0

    def note(self, i: int, which: str, ms: int) -> None:
        times = self.peers[i].times
        times[which] = int(0.5 + (ms * 0.05 + times[which] * 0.95)) if times[which] else ms


@st.composite
def groups(draw: Any) -> list[PeerSpec]:
    specs = [
        PeerSpec(
            str(n),
            f"{n}:80",
            weight=draw(st.sampled_from([1, 2, 4, 8])),  # their quotients are exact
            max_conns=draw(st.sampled_from([0, 0, 1, 3])),
            max_fails=draw(st.integers(0, 2)),
            fail_timeout=draw(st.sampled_from([0, 10, 1000])),
            backup=n > 0 and draw(st.booleans()),
            down=draw(st.integers(0, 9)) == 0,
            drain=draw(st.integers(0, 9)) == 0,
        )
        for n in range(draw(st.integers(2, 6)))
    ]
    return sorted(specs, key=lambda spec: spec.backup)


@pytest.mark.parametrize("by", ["conns", "header", "last_byte"])
@settings(max_examples=100, deadline=None)
@given(groups(), st.data())
def test_every_decision_of_the_least_is_nginx_s(by: str, specs: list[PeerSpec], data: st.DataObject) -> None:
    peers = peers_of(specs)
    model, method, now = Model(specs, by), Least(peers, by), T
    out: list[int] = []
    for _ in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0, 1, 9, 11, 1001, 5000]))
        if bool(out) and data.draw(st.booleans()):
            i = out.pop(data.draw(st.integers(0, len(out) - 1)))
            end = data.draw(st.sampled_from([OK, OK, FAILED]))
            if end == OK:
                ms = data.draw(st.sampled_from([1, 19, 20, 300, 6000]))
                for which, note in (("header", peers.note_header), ("last_byte", peers.note_whole)):
                    note(i, ms)
                    model.note(i, which, ms)
            peers.free(i, end, now)
            model.free(i, end, now)
        else:
            tried = bytearray(data.draw(st.integers(0, 1)) for _ in specs)
            i = method.get(tried, now)
            assert i == model.pick(tried, now)
            if i >= 0:
                out.append(i)
        for state, own in zip(peers.snapshot(), model.peers, strict=True):
            assert (state.current_weight, state.effective_weight) == (own.current, own.effective)
            assert (state.conns, state.fails, state.checked) == (own.conns, own.fails, own.checked)
            assert (state.header_ms, state.response_ms) == (own.times["header"], own.times["last_byte"])


# Hashes


def at(weights: list[int], place: int) -> int:
    for i, weight in enumerate(weights):
        if place < weight:
            return i
        place -= weight
    raise AssertionError


def first_of(sequence: Callable[[int], int], tried: set[int]) -> int:
    """What comes first in a sequence of 21 peers but for those that were tried; -1 for round robin."""
    return next((i for i in map(sequence, range(21)) if i not in tried), -1)


weights_of = st.lists(st.integers(1, 9), min_size=2, max_size=8)


@settings(max_examples=200, deadline=None)
@given(weights_of, st.binary(min_size=3, max_size=3) | st.binary(min_size=16, max_size=16))
def test_ip_hash_maps_as_nginx_does(weights: list[int], address: bytes) -> None:
    peers = weighted(*weights)
    hashed, value, tried = IpHashed(peers, address, Shares(peers)), 89, bytearray(len(weights))
    steps = 0
    while not all(tried):
        for byte in address:
            value = (value * 113 + byte) % 6271
        want, steps = at(weights, value % sum(weights)), steps + 1
        if tried[want]:
            if steps > 15:
                return
            continue
        assert hashed.get(tried, T) == want
        tried[want] = 1


@settings(max_examples=200, deadline=None)
@given(weights_of, st.binary(min_size=1, max_size=40))
def test_hash_maps_as_cache_memcached_does(weights: list[int], key: bytes) -> None:
    peers = weighted(*weights)
    hashed, value, tried = KeyHashed(peers, key, Shares(peers)), 0, bytearray(len(weights))
    for rehash in range(15):
        value += (zlib.crc32((b"%d" % rehash if rehash else b"") + key) >> 16) & 0x7FFF
        want = at(weights, value % sum(weights))
        if not tried[want]:
            assert hashed.get(tried, T) == want
            tried[want] = 1
            if all(tried):
                return


def points(server: str, weight: int) -> list[int]:
    """The points of a server as Cache::Memcached::Fast and nginx have them."""
    host, _, port = server.rpartition(":")
    if server.startswith("unix:"):
        host, port = server[5:], ""
    elif not port.isdigit():
        host, port = server, ""
    out, previous = [], bytes(4)
    for _ in range(160 * weight):
        point = zlib.crc32(host.encode() + b"\0" + port.encode() + previous)
        out.append(point)
        previous = point.to_bytes(4, "little")
    return out


@pytest.mark.parametrize("server", ["127.0.0.1:8081", "backend.example", "unix:/tmp/a.sock", "[::1]:80", "[::1]"])
def test_points_of_a_server_are_ketama_s(server: str) -> None:
    peers = peers_of([PeerSpec(server, "a", 3), PeerSpec("other:1", "b")])
    assert Ring(peers).points_of(0) == sorted(points(server, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=6), st.lists(st.binary(min_size=1, max_size=20), max_size=20))
def test_a_ring_maps_as_nginx_does(weights: list[int], keys: list[bytes]) -> None:
    servers = [f"10.0.0.{n}:80" for n in range(len(weights))]
    peers = peers_of([PeerSpec(s, s, weight) for s, weight in zip(servers, weights, strict=True)])
    ring = sorted((p, i) for i, s in enumerate(servers) for p in points(s, weights[i]))
    mine = Ring(peers)
    for key in keys:
        start = next((n for n, (point, _) in enumerate(ring) if point >= zlib.crc32(key)), len(ring))
        tried = bytearray(len(weights))
        hashed = RingHashed(peers, key, mine)
        want = ring[start % len(ring)][1]
        assert hashed.get(tried, T) == want
        tried[want] = 1
        want = first_of(lambda n, start=start: ring[(start + n) % len(ring)][1], {want})  # type: ignore[misc]
        if want >= 0:
            assert hashed.get(tried, T) == want


def test_a_ring_is_there_before_the_first_request() -> None:
    assert ConsistentHash(weighted(1, 2), Template("", []))._ring.number == 480


def test_a_changed_weight_changes_the_ring_and_the_shares() -> None:
    peers = weighted(1, 1)
    shares, ring = Shares(peers), Ring(peers)
    assert len(ring.points_of(0)) == 160
    peers.set_weight(0, 9)
    assert len(ring.points_of(0)) == 1440
    picks = Counter(KeyHashed(peers, b"%d" % n, shares).get(None, T) for n in range(2000))
    assert 0.87 < picks[0] / 2000 < 0.93


def test_peers_of_one_server_share_its_points_and_take_turns() -> None:
    peers = peers_of([PeerSpec("name:80", "10.0.0.1:80"), PeerSpec("name:80", "10.0.0.2:80"), PeerSpec("b:80", "b")])
    ring = Ring(peers)
    assert ring.points_of(0) == ring.points_of(1) == sorted(points("name:80", 1))
    key = next(b"%d" % n for n in range(100) if RingHashed(peers, b"%d" % n, ring).get(None, T) < 2)
    picks = [RingHashed(peers, key, ring).get(None, T) for _ in range(4)]
    assert sorted(picks) == [0, 0, 1, 1]


def test_without_a_key_hashes_take_turns() -> None:
    peers = weighted(1, 1)
    shares, ring = Shares(peers), Ring(peers)
    assert [KeyHashed(peers, b"", shares).get(None, T) for _ in range(4)] == [0, 1, 0, 1]
    assert [RingHashed(peers, b"", ring).get(None, T) for _ in range(4)] == [0, 1, 0, 1]


def test_what_a_hash_cannot_use_goes_to_the_next_in_its_sequence() -> None:
    peers = weighted(1, 1, 1, max_conns=1)
    shares, ring = Shares(peers), Ring(peers)
    for make in (lambda: KeyHashed(peers, b"key", shares), lambda: RingHashed(peers, b"key", ring)):
        want, tried = [], bytearray(3)
        for _ in range(3):
            want.append(make().get(tried, T))
            tried[want[-1]] = 1
            peers.free(want[-1], OK, T)
        assert [make().get(None, T) for _ in range(4)] == [*want, -1], "full ones are passed over"
        for i in want:
            peers.free(i, OK, T)
        peers.set_down(want[0], True)
        assert make().get(None, T) == want[1], "one that is down too"
        peers.free(want[1], OK, T)
        peers.set_down(want[0], False)


def test_a_try_that_was_none_is_had_again() -> None:
    peers = weighted(1, 1, 1, 1)
    shares, ring = Shares(peers), Ring(peers)
    for hashed in (KeyHashed(peers, b"k", shares), IpHashed(peers, b"abc", shares), RingHashed(peers, b"k", ring)):
        first = hashed.get(None, T)
        peers.free(first, OK, T)
        assert hashed.get(bytearray(4), T) == first, "nothing is marked as tried"


# By lot


@pytest.mark.parametrize("two", [False, True])
def test_shares_of_random_are_those_of_the_weights(two: bool) -> None:
    peers = weighted(5, 3, 2, 2)
    method = Random(peers, two)
    picks: Counter[int] = Counter()
    for _ in range(60_000):
        i = method.get(None, T)
        picks[i] += 1
        peers.free(i, OK, T)
    if not two:
        assert all(abs(picks[i] / 60_000 - weight / 12) < 0.01 for i, weight in enumerate((5, 3, 2, 2)))
        return
    # Without load the second of the two serves, as on nginx: drawn by weight from those that the first is not.
    share = {
        i: sum(w / 12 * own / (12 - w) for j, w in enumerate((5, 3, 2, 2)) if j != i)
        for i, own in enumerate((5, 3, 2, 2))
    }
    assert all(abs(picks[i] / 60_000 - share[i]) < 0.01 for i in share)


def test_of_two_the_one_with_fewer_connections_for_its_weight_serves() -> None:
    peers = weighted(1, 4)
    for _ in range(3):
        assert peers.take(1, None, T)
    assert peers.take(0, None, T)
    assert Random(peers, True).get(None, T) == 1, "3/4 is less than 1"


def test_random_leaves_out_what_cannot_be_used() -> None:
    peers = weighted(1, 1, 1, 1)
    peers.set_down(0, True)
    peers.set_drain(1, True)
    tried = bytearray(b"\0\0\1\0")
    for two in (False, True):
        assert {Random(peers, two).get(tried, T) for _ in range(20)} == {3}
    assert Random(peers).get(bytearray(b"\0\0\1\1"), T) == -1


def test_peak_ewma_goes_where_the_expected_work_is_less() -> None:
    peers = weighted(1, 1)
    method = Random(peers, True, "peak")
    peers.note_peak(0, 100.0, True, T)
    peers.note_peak(1, 10.0, True, T)
    picks = [method.get(None, T) for _ in range(11)]
    assert picks[:9] == [1] * 9, "nine more requests make the fast one as bad"
    assert sorted(picks[9:]) == [0, 1]


def test_a_peak_counts_at_once_and_fades_in_ten_seconds() -> None:
    peers, now = weighted(1, 1), now_ms()
    peers.note_peak(0, 10.0, True, now - 10_001)
    peers.note_peak(0, 500.0, True, now - 10_000)
    peers.note_peak(0, 10.0, True, now)
    # e^-1 of the peak is left, the rest is the new value
    assert peers.snapshot()[0].peak_ms == pytest.approx(500 * 0.3679 + 10 * 0.6321, rel=0.01)
    peers.note_peak(0, 1.0, False, now)
    assert peers.snapshot()[0].peak_ms > 185, "a fast failure does not make a peer fast"
    peers.note_peak(0, 900.0, False, now)
    assert peers.snapshot()[0].peak_ms == pytest.approx(900, rel=0.01), "a slow one makes it slow"


def test_an_unknown_peer_gets_one_request_until_it_is_known() -> None:
    peers = weighted(1, 1)
    peers.note_peak(0, 1000.0, True, T)
    method = Random(peers, True, "peak")
    assert [method.get(None, T) for _ in range(4)] == [1, 0, 0, 0]
