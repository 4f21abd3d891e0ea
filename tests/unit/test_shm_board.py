"""Boards: what one process puts up all others read, whole, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal

import pytest
from headgate.shm.board import HALF, KEY, Board
from headgate.shm.zone import GroupSpec, PeerSpec, Zone, ZoneTooSmall


def test_nothing_at_first_and_then_the_last() -> None:
    board = Board()
    assert board.version == 0
    assert board.read() == (0, b"", [])
    keys = [bytes([i]) * KEY for i in range(3)]
    board.write(b"one", keys)
    assert board.read() == (1, b"one", keys)
    board.write(b"a longer text", [])
    board.write(b"", [])
    assert board.read() == (3, b"", [])


def test_what_is_too_long_leaves_the_old() -> None:
    board = Board()
    board.write(b"old", [])
    with pytest.raises(ValueError, match="too many"):
        board.write(b"x" * HALF, [])
    assert board.read() == (1, b"old", [])


def test_readers_see_whole_texts_while_a_writer_is_killed_at_any_point() -> None:
    board = Board()
    for _ in range(20):
        writer = os.fork()
        if not writer:
            number = board.version
            while True:
                number += 1
                board.write(b"%d " % number * 2000, [])
        last = started = board.version
        while board.version == started:
            os.sched_yield()
        for _ in range(400):
            version, text, _keys = board.read()
            assert not text or set(text.split()) == {b"%d" % version}
            assert version >= last
            last = version
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        version, text, _keys = board.read()
        assert not text or set(text.split()) == {b"%d" % version}


def specs(*addresses: str, weight: int = 1) -> list[PeerSpec]:
    return [PeerSpec("a.test:80", address, weight=weight, resolved=True) for address in addresses]


def zone(previous: Zone | None = None, size: int | None = None, *, peers: list[PeerSpec] | None = None) -> Zone:
    made = Zone.create("z", size, [GroupSpec("u", peers or [], board=True)], previous, slots=4)
    made.commit()
    return made


def test_peers_that_come_and_go_keep_their_state() -> None:
    one = zone()
    one.bind(one.claim_slot(os.getpid()))
    assert one.found("u", specs("1", "2")) is None
    one.publish("u", specs("1", "2"), b"12")
    peers = one.found("u", specs("1", "2"))
    assert peers is not None
    i = peers.pick()
    assert peers.free(i, 4) == 1  # failed, and so unavailable
    one.publish("u", specs("2", "1", "3"), b"213")
    again = one.found("u", specs("2", "1", "3"))
    assert again is not None
    assert {state.address: state.fails for state in again.snapshot()} == {"1": int(i == 0), "2": int(i == 1), "3": 0}


def test_records_of_those_that_left_are_used_again() -> None:
    one = zone(size=8 * 4096)
    one.bind(one.claim_slot(os.getpid()))
    for i in range(400):
        one.publish("u", specs(*(f"{i}.{j}" for j in range(10))), b"")
    with pytest.raises(ZoneTooSmall):
        one.publish("u", specs(*(str(j) for j in range(100))), b"too many")
    assert one.found("u", specs(*(f"399.{j}" for j in range(10)))) is not None


def test_a_record_with_connections_waits() -> None:
    one = zone()
    one.bind(one.claim_slot(os.getpid()))
    one.publish("u", specs("1"), b"")
    peers = one.found("u", specs("1"))
    assert peers is not None
    assert peers.pick() == 0
    one.publish("u", specs("2"), b"")
    assert one.found("u", specs("1")) is not None  # a request is still on it
    peers.free(0, 0)
    one.publish("u", specs("3"), b"")
    assert one.found("u", specs("1")) is None


def test_a_reload_keeps_what_the_board_names_and_drops_the_board_with_its_last_user() -> None:
    one = zone()
    one.bind(one.claim_slot(os.getpid()))
    one.publish("u", specs("1"), b"text")
    two = zone(one)
    two.retire(one.generation)
    two.bind(0)
    assert two.board("u").read()[1] == b"text"
    assert two.found("u", specs("1")) is not None
    three = Zone.create("z", None, [GroupSpec("u", [PeerSpec("b", "b")])], two)
    three.commit()
    three.retire(two.generation)
    with pytest.raises(KeyError):
        three.board("u")
    three.bind(0)
    assert three.found("u", specs("1")) is None
