"""Picking compared, step by step, with a plain model of nginx's algorithm; and the exactness of its shares."""

from dataclasses import dataclass
from typing import Any

from headgate.shm.peers import FAILED, NEXT, OK, Peers
from headgate.shm.zone import GroupSpec, PeerSpec, Zone
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass
class ModelPeer:
    spec: PeerSpec
    effective: int
    current: int = 0
    conns: int = 0
    fails: int = 0
    accessed: int = 0
    checked: int = 0


class Model:
    """ngx_http_upstream_round_robin.c, in so many words."""

    def __init__(self, specs: list[PeerSpec]) -> None:
        self.peers = [ModelPeer(spec, spec.weight) for spec in specs]
        self.single = len(specs) == 1

    def pick(self, tried: bytearray, now: int) -> int:
        if self.single:
            peer = self.peers[0]
            if peer.spec.down or (peer.spec.max_conns and peer.conns >= peer.spec.max_conns):
                return -1
            peer.conns += 1
            return 0
        for backups in (False, True):
            if not backups and any(mark and peer.spec.backup for mark, peer in zip(tried, self.peers, strict=True)):
                continue
            best, total = -1, 0
            for i, peer in enumerate(self.peers):
                spec = peer.spec
                banned = spec.max_fails and peer.fails >= spec.max_fails and now - peer.checked <= spec.fail_timeout
                full = spec.max_conns and peer.conns >= spec.max_conns
                if spec.backup != backups or tried[i] or spec.down or banned or full:
                    continue
                peer.current += peer.effective
                total += peer.effective
                peer.effective += peer.effective < spec.weight
                if best < 0 or peer.current > self.peers[best].current:
                    best = i
            if best >= 0:
                peer = self.peers[best]
                peer.current -= total
                if now - peer.checked > peer.spec.fail_timeout:
                    peer.checked = now
                peer.conns += 1
                return best
        return -1

    def free(self, i: int, state: int, now: int) -> None:
        peer = self.peers[i]
        peer.conns -= 1
        if self.single:
            peer.fails = 0
        elif state & FAILED:
            peer.fails += 1
            peer.accessed = peer.checked = now
            if peer.spec.max_fails:
                peer.effective = max(0, peer.effective - peer.spec.weight // peer.spec.max_fails)
        elif peer.accessed < peer.checked:
            peer.fails = 0


def peers_of(specs: list[PeerSpec]) -> Peers:
    zone = Zone.create("z", None, [GroupSpec("u", specs)])
    zone.commit()
    zone.bind(zone.claim_slot(1))
    return zone.peers("u")


@st.composite
def groups(draw: Any) -> list[PeerSpec]:
    specs = [
        PeerSpec(
            str(n),
            f"{n}:80",
            weight=draw(st.integers(1, 20)),
            max_conns=draw(st.sampled_from([0, 0, 1, 3])),
            max_fails=draw(st.integers(0, 3)),
            fail_timeout=draw(st.sampled_from([0, 10, 1000])),
            backup=n > 0 and draw(st.booleans()),
            down=draw(st.integers(0, 9)) == 0,
        )
        for n in range(draw(st.integers(1, 6)))
    ]
    return sorted(specs, key=lambda spec: spec.backup)


@settings(max_examples=300, deadline=None)
@given(groups(), st.data())
def test_every_decision_is_nginx_s(specs: list[PeerSpec], data: st.DataObject) -> None:
    model, peers, now = Model(specs), peers_of(specs), 1_000_000
    out: list[int] = []
    for _ in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0, 1, 9, 11, 1001]))
        if bool(out) and data.draw(st.booleans()):
            i = out.pop(data.draw(st.integers(0, len(out) - 1)))
            end = data.draw(st.sampled_from([OK, NEXT, FAILED]))
            peers.free(i, end, now)
            model.free(i, end, now)
        else:
            tried = bytearray(data.draw(st.integers(0, 1)) for _ in specs)
            i = peers.pick(tried, now)
            assert i == model.pick(tried, now)
            if i >= 0:
                out.append(i)
        for state, own in zip(peers.snapshot(), model.peers, strict=True):
            assert (state.current_weight, state.effective_weight) == (own.current, own.effective)
            assert (state.conns, state.fails, state.checked) == (own.conns, own.fails, own.checked)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=8))
def test_in_every_round_each_peer_gets_exactly_its_weight(weights: list[int]) -> None:
    peers = peers_of([PeerSpec(str(n), str(n), weight) for n, weight in enumerate(weights)])
    for _ in range(3):
        picks = [peers.pick(None, 1_000_000) for _ in range(sum(weights))]
        assert [picks.count(i) for i in range(len(weights))] == weights
        assert all(peer.current_weight == 0 for peer in peers.snapshot())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.lists(st.integers(0, 4), max_size=30))
def test_after_failures_shares_are_exact_again_once_weights_recovered(weights: list[int], failures: list[int]) -> None:
    specs = [PeerSpec(str(n), str(n), weight, max_fails=2, fail_timeout=10) for n, weight in enumerate(weights)]
    peers, now = peers_of(specs), 1_000_000
    for n in failures:
        i = n % len(weights)
        if peers.take(i, None, now):
            peers.free(i, FAILED, now)
    now += 11
    while any(peer.fails or peer.effective_weight < peer.weight for peer in peers.snapshot()):
        for i in range(len(weights)):
            if peers.take(i, None, now):
                peers.free(i, OK, now)
        peers.free(peers.pick(None, now), OK, now)
        now += 11
    picks = [peers.pick(None, now) for _ in range(sum(weights) * 2)]
    assert [picks.count(i) for i in range(len(weights))] == [2 * weight for weight in weights]
