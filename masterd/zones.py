"""The shared zones of a cycle, and the slot that each worker has in each of them.

Rules: a zone that the old cycle has too keeps its memory and all state; only the master claims and gives back
slots; what a past cycle alone used is freed when its last worker is gone. A table is a zone that needs no slots,
such as one of sticky sessions: it is kept when the new cycle has it for the same use and with the same size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from headgate.shm.zone import GroupSpec, Zone, ZoneTooSmall

Slots = dict[str, int]  # zone name -> slot


class ZoneError(Exception):
    """A zone cannot be had; the text is what goes to the log as [emerg]."""


@dataclass(slots=True)
class ZoneSpec:
    """A zone as configured: `size` in bytes, or None for an automatic one, and the upstreams in it."""

    size: int | None
    groups: Sequence[GroupSpec] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table as configured. `make` raises OSError when the system refuses the memory."""

    kind: str
    owner: str  # the upstream that it is for
    size: int
    make: Callable[[int], object]
    place: tuple[str, int]


class Zones:
    """The zones and tables of one cycle by name."""

    __slots__ = ("_first", "_tables", "_zones")

    def __init__(self) -> None:
        self._zones: dict[str, Zone] = {}
        self._tables: dict[str, tuple[TableSpec, object]] = {}
        self._first: dict[str, Zone] = {}  # the zone that once made the memory: the same for all that share it

    def __getitem__(self, name: str) -> Zone:
        return self._zones[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._zones)

    def table(self, name: str) -> object:
        """The table of this name."""
        return self._tables[name][1]

    def open(
        self, specs: Mapping[str, ZoneSpec], old: "Zones | None", tables: Mapping[str, TableSpec] = MappingProxyType({})
    ) -> None:
        """Make the zones, not in use before `commit`. Raises ZoneError, everything taken back."""
        try:
            for name, table in tables.items():
                self._tables[name] = table, self._find_or_make(name, table, old)
            for name, spec in specs.items():
                previous = old._zones.get(name) if old else None
                zone = self._zones[name] = Zone.create(name, spec.size, spec.groups, previous)
                self._first[name] = old._first[name] if old and previous else zone
        except (ZoneTooSmall, OSError) as error:
            self.abandon()
            raise ZoneError(str(error)) from None

    @staticmethod
    def _find_or_make(name: str, spec: TableSpec, old: "Zones | None") -> object:
        before, table = old._tables.get(name, (None, None)) if old else (None, None)
        if before is None or (before.kind, before.size) != (spec.kind, spec.size):
            return spec.make(spec.size)
        if before.owner != spec.owner:
            raise ZoneError(
                f'{spec.kind} zone "{name}" is used in upstream "{spec.owner}" while previously it was used in '
                f'upstream "{before.owner}"'
            )
        return table

    def commit(self) -> None:
        """This cycle is the one that serves."""
        for zone in self._zones.values():
            zone.commit()

    def abandon(self) -> None:
        """Take back what was never committed."""
        for zone in self._zones.values():
            zone.abandon()
        self._zones.clear()

    def retire(self, past: "Zones") -> None:
        """Free what only `past` used, whose last worker is gone."""
        for name, zone in past._zones.items():
            if self._first.get(name) is past._first[name] and zone is not self._zones[name]:
                self._zones[name].retire(zone.generation)

    def claim(self, kept: Mapping[str, int] = MappingProxyType({})) -> Slots:
        """Slots for a worker that is about to be forked, or the further ones of a process that has `kept`.

        Raises IndexError when all are taken, OSError when there is no memory.
        """
        slots: Slots = {}
        try:
            for name, zone in self._zones.items():
                slots[name] = kept[name] if name in kept else zone.claim_slot()
        except (IndexError, OSError):
            self.release({name: slot for name, slot in slots.items() if name not in kept})
            raise
        return slots

    def own(self, slots: Slots, pid: int) -> None:
        """The process that the slots were claimed for."""
        for name, slot in slots.items():
            self._zones[name].own_slot(slot, pid)

    def bind(self, slots: Slots) -> None:
        """In the worker: count in these slots from now on."""
        for name, slot in slots.items():
            self._zones[name].bind(slot)

    def heartbeat(self, slots: Slots) -> None:
        for name, slot in slots.items():
            self._zones[name].heartbeat(slot)

    def release(self, slots: Slots) -> int:
        """Give back what a dead worker held, exactly, and its slots; returns the number of connections."""
        return sum(self._zones[name].release_slot(slot) for name, slot in slots.items())
