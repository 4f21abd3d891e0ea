"""A shared zone: the peers of its upstreams, in one segment for all workers of all generations.

Rules: records are keyed by (upstream, server, address), so a peer that a reload keeps has the same record, and old and
new workers count against the same one. Making a new generation changes nothing that is in use: `commit` writes its
configuration, `abandon` takes it back, `retire` frees what only a past one used. The segment is far larger than a zone
needs, and sparse; the size that the configuration gives is a limit that is checked and no more, so a reload that
changes it keeps the segment and all state.

An upstream whose names are resolved while the server runs has a board besides, on which the worker that resolves them
puts up what they stand for; the records of such peers are the workers' to add (`publish`), and whatever a board
names is in use.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headgate.shm.board import Board
from headgate.shm.peers import Peers, now_ms
from headgate.shm.record import Records, capacity, needed_size, segment_size, table_spans
from headgate.shm.segment import Segment
from headgate.shm.state import SlotState


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A peer as configured: the parameters of nginx's `server`, times in ms. Raises ValueError out of range."""

    server: str  # as written
    address: str  # one that it stands for
    weight: int = 1
    max_conns: int = 0
    max_fails: int = 1
    fail_timeout: int = 10_000
    backup: bool = False
    down: bool = False
    slow_start: int = 0
    drain: bool = False
    resolved: bool = False  # found while the server runs
    checks: tuple[tuple[int, bool, bool], ...] = ()  # of its health: id of 32 bits, mandatory, persistent
    ejection: bool = False  # it may be ejected as an outlier

    def __post_init__(self) -> None:
        for name, least in (("weight", 1), ("max_conns", 0), ("max_fails", 0), ("fail_timeout", 0), ("slow_start", 0)):
            if not least <= getattr(self, name) < 1 << 62:
                raise ValueError(f"{name} of a peer cannot be {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """An upstream's peers, in the order of the configuration."""

    upstream: str
    peers: Sequence[PeerSpec]
    board: bool = False  # further peers come and go while the server runs


class ZoneTooSmall(Exception):
    """The peers do not fit; the text names the zone, its size and the size it needs, in bytes."""

    def __init__(self, name: str, size: int, needed: int) -> None:
        super().__init__(f'zone "{name}" is too small: its size is {size}, {needed} needed')
        self.name = name
        self.size = size
        self.needed = needed


class _Store:
    """A zone's segment, and which of its entries each generation uses (only the master knows and needs that)."""

    def __init__(self, slots: int) -> None:
        self.segment = Segment.create(segment_size(slots))
        self.reserve(table_spans(0, 0))
        self.records = Records(self.segment.map, slots)
        self.latest = 0
        self.boards: dict[str, Board] = {}
        self._users: dict[int, tuple[set[int], set[int]]] = {}
        self._readers: dict[int, set[str]] = {}  # which upstreams of a generation have a board

    def add(self, name: str, groups: Mapping[bytes, Sequence[bytes]]) -> tuple[int, dict[bytes, int], dict[bytes, int]]:
        """A new generation's number, and the entries of its groups and peers by key; ZoneTooSmall, OSError."""
        records = self.records
        with records.lock:
            group_at, record_at = records.groups(), records.records()
            new_groups = [key for key in groups if key not in group_at]
            new_records = [key for keys in groups.values() for key in keys if key not in record_at]
            most = capacity()
            if len(group_at) + len(new_groups) > most[0] or len(record_at) + len(new_records) > most[1]:
                needed = needed_size(len(group_at) + len(new_groups), len(record_at) + len(new_records))
                raise ZoneTooSmall(name, needed_size(*most), needed)
            used = records.used
            self.reserve(table_spans(used[0] + len(new_groups), used[1] + len(new_records)))
            group_at.update(zip(new_groups, records.add_groups(new_groups), strict=True))
            record_at.update(zip(new_records, records.add_records(new_records), strict=True))
            for slot in records.claimed():
                self.reserve(records.slot_spans(slot))  # all look at what the others have under way
        self.latest += 1
        self._users[self.latest] = (
            {group_at[key] for key in groups},
            {record_at[key] for keys in groups.values() for key in keys},
        )
        return self.latest, group_at, record_at

    def drop(self, generation: int) -> None:
        """Frees what no other generation uses; a record with connections waits for a later call."""
        self._users.pop(generation, None)
        self._readers.pop(generation, None)
        for upstream in set(self.boards).difference(*self._readers.values()):
            del self.boards[upstream]
        records = self.records
        with records.lock:
            used = {i for groups, _ in self._users.values() for i in groups}
            group_at = records.groups()
            on_boards = {key for board in self.boards.values() for key in board.read()[2]}
            kept = {i for _, peers in self._users.values() for i in peers}
            kept.update(i for key, i in records.records().items() if key in on_boards)
            for i in set(group_at.values()) - used:
                records.drop_group(i)
            for i in set(records.records().values()) - kept:
                records.drop_record(i)

    def add_boards(self, generation: int, upstreams: set[str]) -> None:
        """The boards of a generation; OSError."""
        self._readers[generation] = upstreams
        for upstream in upstreams - set(self.boards):
            self.boards[upstream] = Board()

    def claim_slot(self, pid: int) -> int:
        slot = self.records.claim_slot(pid, now_ms())
        try:
            self.reserve(self.records.slot_spans(slot))
        except OSError:
            self.records.release_slot(slot)
            raise
        return slot

    def reserve(self, spans: Sequence[tuple[int, int]]) -> None:
        for offset, length in spans:
            if length:
                self.segment.reserve(offset, length)


class Zone:
    """One generation of a zone. Made in the master before it forks; workers inherit it and bind it to their slot."""

    def __init__(self, name: str, size: int | None, groups: Sequence[GroupSpec], store: _Store) -> None:
        keys = {group.upstream: _Keys.of(group) for group in groups}
        if len(keys) != len(groups):
            raise ValueError(f'an upstream is twice in zone "{name}"')
        self.name = name
        self.size = size
        self._store = store
        self._slot = -1
        self._leaving: set[bytes] = set()  # records that requests still hold, to be freed when they do no longer
        self.generation, group_at, record_at = store.add(name, {k.group: k.peers for k in keys.values()})
        self._group_at = {name: group_at[key.group] for name, key in keys.items()}
        try:
            store.add_boards(self.generation, {group.upstream for group in groups if group.board})
            self._peers = {
                group.upstream: Peers(
                    store.segment.map,
                    group.upstream,
                    group_at[keys[group.upstream].group],
                    [record_at[key] for key in keys[group.upstream].peers],
                    tuple(group.peers),
                )
                for group in groups
                if group.peers or not group.board
            }
        except BaseException:
            store.drop(self.generation)
            raise

    @classmethod
    def create(
        cls,
        name: str,
        size: int | None,
        groups: Sequence[GroupSpec],
        previous: "Zone | None" = None,
        slots: int = 1024,
    ) -> "Zone":
        """A zone for these upstreams, not in use before `commit`.

        `size` is the `zone` directive's, in bytes, or None where there is no limit. `previous` is the zone of the
        running generation, whose memory, peers' state and worker slots the new one shares; else there is room for
        `slots` workers, of old and new generations together. Raises ZoneTooSmall, and OSError when the system refuses
        the memory.
        """
        needed = needed_size(len(groups), sum(len(group.peers) for group in groups))
        if size is not None and needed > size:
            raise ZoneTooSmall(name, size, needed)
        return cls(name, size, groups, previous._store if previous is not None else _Store(slots))

    def peers(self, upstream: str) -> Peers:
        """The configured peers of an upstream of this zone; KeyError if there is no such."""
        return self._peers[upstream]

    # Peers that come and go, in a worker that is bound

    def board(self, upstream: str) -> Board:
        """Where the addresses of this upstream's names are put up."""
        return self._store.boards[upstream]

    def found(self, upstream: str, peers: Sequence[PeerSpec]) -> Peers | None:
        """An upstream's peers with those that its board names, primaries first; None when some are not there yet."""
        record_at = self._store.records.records()
        try:
            at = [record_at[key] for key in _Keys.of(GroupSpec(upstream, peers)).peers]
        except KeyError:
            return None
        made = Peers(self._store.segment.map, upstream, self._group_at[upstream], at, tuple(peers))
        made.bind(self._slot)
        return made

    def publish(self, upstream: str, peers: Sequence[PeerSpec], text: bytes) -> None:
        """Puts `text` up for a new list of an upstream's peers; records of those that left are freed.

        Raises ZoneTooSmall when they do not fit, ValueError when the text does not, OSError without memory, and
        TimeoutError when another process keeps the zone's lock; the old list stays then.
        """
        store, records, board = self._store, self._store.records, self._store.boards[upstream]
        keys = _Keys.of(GroupSpec(upstream, peers)).peers
        with records.lock:
            record_at = records.records()
            new = [key for key in keys if key not in record_at]
            needed = needed_size(len(records.groups()), len(record_at) + len(new))
            if (self.size is not None and needed > self.size) or len(record_at) + len(new) > capacity()[1]:
                raise ZoneTooSmall(self.name, self.size or needed_size(*capacity()), needed)
            used = records.used
            store.reserve(table_spans(used[0], used[1] + len(new)))
            record_at.update(zip(new, records.add_records(new), strict=True))
            for slot in records.claimed():
                store.reserve(records.slot_spans(slot))
            if peers:
                at = [record_at[key] for key in keys]
                Peers(store.segment.map, upstream, self._group_at[upstream], at, tuple(peers)).commit()
            before = set(board.read()[2])
            mine = [key for key, peer in zip(keys, peers, strict=True) if peer.resolved]
            board.write(text, mine)
            self._leaving |= before
            self._leaving -= set(mine)
            gone = {key for key in self._leaving if key not in record_at or records.drop_record(record_at[key])}
            self._leaving -= gone

    def __iter__(self) -> Iterator[Peers]:
        return iter(self._peers.values())

    # Generations: the master's business

    def commit(self) -> None:
        """Makes this generation the current one: its parameters are written to the records that it uses."""
        for peers in self:
            peers.commit()
        self._store.records.generation = self.generation

    def abandon(self) -> None:
        """Takes a generation back that was never committed: nothing has changed."""
        self._store.drop(self.generation)

    def retire(self, generation: int) -> None:
        """Frees what only this past generation used; call it when its last worker is gone."""
        if generation == self.generation:
            raise ValueError(f"generation {generation} is this one")
        self._store.drop(generation)

    # Workers' slots

    def claim_slot(self, pid: int = 0) -> int:
        """A slot for a worker; `pid` 0: it is not forked yet. IndexError when all are taken, OSError without memory."""
        return self._store.claim_slot(pid)

    def own_slot(self, slot: int, pid: int) -> None:
        """Names the process of a slot that was claimed before the fork."""
        self._store.records.own_slot(slot, pid)

    def bind(self, slot: int) -> None:
        """Binds all peers to the slot: for the worker, after the fork."""
        self._slot = slot
        for peers in self:
            peers.bind(slot)

    def heartbeat(self, slot: int) -> None:
        """Notes that the worker of `slot` is alive."""
        self._store.records.beat(slot, now_ms())

    def release_slot(self, slot: int) -> int:
        """Gives back the connections that a worker held when it died, exactly, and its slot; returns their number."""
        return self._store.records.release_slot(slot)

    def slots(self) -> list[SlotState]:
        """The slots in use."""
        return self._store.records.slots()


@dataclass(frozen=True, slots=True)
class _Keys:
    """The digests by which a group and its peers are found again in the segment."""

    group: bytes
    peers: list[bytes]

    @classmethod
    def of(cls, group: GroupSpec) -> "_Keys":
        # A server may be listed several times: its first, second ... entry are peers of their own.
        seen: Counter[tuple[str, str]] = Counter()
        peers = []
        for peer in group.peers:
            names = [peer.server, peer.address, str(seen[peer.server, peer.address])]
            peers.append(_digest(group.upstream, *names, *(["resolved"] if peer.resolved else [])))
            seen[peer.server, peer.address] += 1
        return cls(_digest(group.upstream), peers)


def _digest(*names: str) -> bytes:
    return hashlib.blake2b("\0".join(names).encode(), digest_size=16).digest()
