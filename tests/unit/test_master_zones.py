"""The shared zones of successive cycles, and workers' slots in them."""

import os

import pytest
from headgate.masterd.zones import ZoneError, Zones, ZoneSpec
from headgate.shm.zone import GroupSpec, PeerSpec


def spec(*addresses: str, size: int | None = None) -> ZoneSpec:
    return ZoneSpec(size, [GroupSpec("u", [PeerSpec(address, address) for address in addresses])])


def opened(specs: dict[str, ZoneSpec], old: Zones | None = None) -> Zones:
    zones = Zones()
    zones.open(specs, old)
    zones.commit()
    return zones


def test_state_is_carried_over_and_held_connections_are_given_back() -> None:
    first = opened({"z": spec("a", "b")})
    slots = first.claim()
    first.own(slots, os.getpid())
    first.bind(slots)
    peers = first["z"].peers("u")
    assert peers.pick() == 0
    second = opened({"z": spec("a", "c")}, first)
    assert second["z"].peers("u").conns(0) == 1, "the same record"
    assert second.release(slots) == 1
    assert second["z"].peers("u").conns(0) == 0
    second.retire(first)


def test_slots_differ_between_processes_and_are_used_again() -> None:
    zones = opened({"y": spec("a"), "z": spec("a")})
    one, two = zones.claim(), zones.claim()
    assert one["y"] != two["y"]
    assert one["z"] != two["z"]
    zones.release(one)
    assert zones.claim() == one


def test_a_process_keeps_its_slots_over_a_reload() -> None:
    first = opened({"y": spec("a"), "z": spec("a")})
    first.claim()
    slots = first.claim()
    second = opened({"z": spec("a"), "x": spec("a")}, first)
    after = second.claim(slots)
    assert set(after) == {"x", "z"}
    assert after["z"] == slots["z"]


def test_zone_that_went_and_came_back_is_another_one() -> None:
    first = opened({"z": spec("a")})
    second = opened({}, first)
    third = opened({"z": spec("a")}, second)
    fourth = opened({"z": spec("a")}, third)
    third_generation = third["z"].generation
    assert first["z"].generation == third_generation, "or this test shows nothing"
    fourth.retire(first)  # must not free what the third cycle's workers still use
    slots = third.claim()
    third.bind(slots)
    assert third["z"].peers("u").pick() == 0
    assert fourth["z"].peers("u").conns(0) == 1


def test_too_small_a_zone_is_refused_and_nothing_is_left() -> None:
    zones = Zones()
    with pytest.raises(ZoneError, match=r'zone "z" is too small: its size is 4096, \d+ needed'):
        zones.open({"y": spec("a"), "z": spec("a", size=4096)}, None)
    assert list(zones) == []
