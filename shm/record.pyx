# cython: boundscheck=False, wraparound=False, cdivision=True
"""The tables of a zone's segment: who has which entry, and the workers' slots.

Rules: `record.pxi` is the only place that knows fields and offsets, `conns.pxi` the only one that changes connection
counts. Entries are found by a 16-byte key and are given out by the master alone, under the zone's lock. The words
that count connections are never reset, not even when an entry changes hands, because tags refer to them.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer, PyBuffer_Release
from libc.string cimport memcpy, memset

include "record.pxi"
include "conns.pxi"

from headgate.shm.lock import Lock
from headgate.shm.state import SlotState

cdef uint64_t MAGIC = 0x4554414744414548  # b"HEADGATE"

assert sizeof(Header) <= PAGE and sizeof(Group) == 128 and sizeof(Slot) == 64
assert sizeof(Hot) == 64 and sizeof(Cold) == 448


def segment_size(int slots) -> int:
    """Bytes of virtual memory that a zone's segment spans; pages that are never written cost nothing."""
    if not 1 <= slots <= MAX_SLOTS:
        raise ValueError(f"a zone has 1 to {MAX_SLOTS} worker slots, not {slots}")
    return <size_t> rows_at(NULL, slots)


def needed_size(int groups, int records) -> int:
    """Bytes of a `zone` directive's size that so many upstreams and peers take, in whole pages.

    The workers' slots come on top of it: their number is no matter of the configuration's author.
    """
    cdef size_t size = PAGE + groups * sizeof(Group) + records * (sizeof(Hot) + sizeof(Cold))
    return (size + PAGE - 1) // PAGE * PAGE


def capacity() -> tuple[int, int]:
    """Groups and records that a zone can hold, all generations together."""
    return GROUPS, RECORDS


def table_spans(int groups, int records) -> list[tuple[int, int]]:
    """Offset and length of what the header and so many groups and records take."""
    return [
        (0, PAGE + groups * sizeof(Group)),
        (<size_t> hot_at(NULL, 0), records * sizeof(Hot)),
        (<size_t> cold_at(NULL, 0), records * sizeof(Cold)),
    ]


cdef class Records:
    """The tables in `buffer`; formatted when `slots` is given, else checked.

    Raises ValueError when the buffer is no zone of this layout.
    """

    cdef Py_buffer view
    cdef char *base
    cdef Header *header
    cdef readonly object lock

    def __cinit__(self, buffer, int slots=0):
        cdef Py_ssize_t size = segment_size(slots) if slots else <Py_ssize_t> sizeof(Header)
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
        self.base = <char *> self.view.buf
        self.header = header_at(self.base)
        if self.view.len < size:
            raise ValueError("the segment is too short for a zone")
        if slots:
            memset(self.base, 0, sizeof(Header))
            self.header.layout = LAYOUT
            self.header.slots = slots
            self.header.magic = MAGIC
        elif self.header.magic != MAGIC or self.header.layout != LAYOUT:
            raise ValueError("the segment holds no zone of this layout")
        self.lock = Lock(buffer, <size_t> &header_at(NULL).lock, create=slots > 0)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    @property
    def generation(self) -> int:
        """The generation that was committed last; 0 before the first."""
        return load(&self.header.generation)

    @generation.setter
    def generation(self, uint64_t value):
        store(&self.header.generation, value)

    @property
    def used(self) -> tuple[int, int]:
        """Groups and records that were ever in use: beyond them, nothing was touched."""
        return self.header.groups_used, self.header.records_used

    def groups(self) -> dict[bytes, int]:
        """Key to index of the groups in use."""
        return {key_bytes(&group_at(self.base, i).key): i
                for i in range(self.header.groups_used) if is_used(&group_at(self.base, i).key)}

    def records(self) -> dict[bytes, int]:
        """Key to index of the peers' records in use."""
        return {key_bytes(&cold_at(self.base, i).key): i
                for i in range(self.header.records_used) if is_used(&cold_at(self.base, i).key)}

    def add_groups(self, list keys) -> list[int]:
        """Indexes of new groups; IndexError, and nothing is added, when the table is full."""
        cdef uint32_t i
        cdef int rc
        free = [i for i in range(self.header.groups_used) if not is_used(&group_at(self.base, i).key)]
        found = choose(free, len(keys), self.header.groups_used, GROUPS)
        for i, key in zip(found, keys):
            memset(group_at(self.base, i), 0, sizeof(Group))
            rc = lock_init(&group_at(self.base, i).lock)
            if rc:
                raise OSError(rc, "pthread_mutex_init() failed")
            set_key(&group_at(self.base, i).key, key)
            self.header.groups_used = max(self.header.groups_used, i + 1)
        return found

    def add_records(self, list keys) -> list[int]:
        """Indexes of new records; IndexError, and nothing is added, when the table is full."""
        cdef uint32_t i
        free = [i for i in range(self.header.records_used) if not is_used(&cold_at(self.base, i).key)]
        found = choose(free, len(keys), self.header.records_used, RECORDS)
        for i, key in zip(found, keys):
            memset(cold_at(self.base, i), 0, sizeof(Cold))
            self.clear_hot(i)
            set_key(&cold_at(self.base, i).key, key)
            self.header.records_used = max(self.header.records_used, i + 1)
        return found

    cdef void clear_hot(self, uint32_t i):
        cdef Hot *hot = hot_at(self.base, i)
        hot.current = hot.effective = hot.weight = hot.checked = hot.fail_timeout = 0
        hot.max_conns = hot.fails = hot.max_fails = hot.flags = 0

    def drop_group(self, uint32_t i) -> None:
        """Frees a group that no worker uses."""
        memset(&group_at(self.base, i).key, 0, sizeof(Key))

    def drop_record(self, uint32_t i) -> bool:
        """Frees a record that no generation uses; False, and it stays, while connections are held on it."""
        if count_of(load(&hot_at(self.base, i).conns)):
            return False
        memset(&cold_at(self.base, i).key, 0, sizeof(Key))
        return True

    def conns(self, uint32_t i) -> int:
        """Connections on a record, all workers together."""
        return count_of(load(&hot_at(self.base, i).conns))

    def held(self, uint32_t slot, uint32_t i) -> int:
        """Connections on a record that the worker of `slot` holds."""
        settle(self.base, i, load(&hot_at(self.base, i).conns))
        return count_of(load(held_at(self.base, slot, i)))

    def claim_slot(self, int64_t pid, int64_t now) -> int:
        """Index of the first free slot, now the worker's; IndexError when there is none."""
        cdef uint32_t i
        cdef Slot *slot
        for i in range(self.header.slots):
            slot = slot_at(self.base, i)
            if slot.pid == 0:
                slot.started = slot.heartbeat = now
                slot.generation = self.header.generation
                self.header.slots_used = max(self.header.slots_used, i + 1)
                store_time(&slot.pid, pid if pid else -1)
                return i
        raise IndexError("no free worker slot")

    def claimed(self) -> list[int]:
        """Indexes of the slots that are claimed."""
        cdef uint32_t i
        return [i for i in range(self.header.slots_used) if slot_at(self.base, i).pid]

    def slot_spans(self, uint32_t i) -> list[tuple[int, int]]:
        """Offset and length of what the worker of slot `i` writes to."""
        cdef SlotRows *rows = rows_at(NULL, i)
        cdef size_t records = max(1, self.header.records_used) * sizeof(uint64_t)
        self.check_slot(i)
        return [
            (<size_t> slot_at(NULL, i), sizeof(Slot)),
            (<size_t> &rows.held, records),
            (<size_t> &rows.flight, records),
            (<size_t> &rows.waiting, max(1, self.header.groups_used) * sizeof(Waiting)),
        ]

    def own_slot(self, uint32_t i, int64_t pid) -> None:
        """Names the process of a claimed slot."""
        self.check_slot(i)
        store_time(&slot_at(self.base, i).pid, pid)

    def beat(self, uint32_t i, int64_t now) -> None:
        """The worker of slot `i` is alive at `now`."""
        self.check_slot(i)
        store_time(&slot_at(self.base, i).heartbeat, now)

    def release_slot(self, uint32_t i) -> int:
        """Gives back all connections that the worker of slot `i` held and frees the slot; returns their number.

        To be called when its process is gone. Exact also when the caller is killed in the middle and another goes on.
        """
        cdef uint32_t record, group
        cdef int given = 0
        cdef SlotRows *rows = rows_at(self.base, i)
        self.check_slot(i)
        for record in range(self.header.records_used):
            settle(self.base, record, load(&hot_at(self.base, record).conns))
            while change(self.base, record, i, True, 0, NULL):
                given += 1
            store(&rows.flight[record], 0)
        for group in range(self.header.groups_used):
            store(&rows.waiting[group].first, 0)
            store(&rows.waiting[group].count, 0)
            store(&rows.waiting[group].retries, 0)
            if load(&group_at(self.base, group).prober) >> 48 == i + 1:
                store(&group_at(self.base, group).prober, 0)
        store_time(&slot_at(self.base, i).pid, 0)
        return given

    def slots(self) -> list[SlotState]:
        """The slots in use."""
        cdef uint32_t i
        cdef Slot *slot
        found = []
        for i in range(self.header.slots_used):
            slot = slot_at(self.base, i)
            if slot.pid:
                held = sum(self.held(i, record) for record in range(self.header.records_used))
                found.append(SlotState(i, max(slot.pid, 0), slot.started, slot.heartbeat, slot.generation, held))
        return found

    cdef int check_slot(self, uint32_t i) except -1:
        if i >= self.header.slots or slot_at(self.base, i).pid == 0:
            raise ValueError(f"worker slot {i} is not claimed")
        return 0


cdef list choose(list free, Py_ssize_t n, uint32_t used, uint32_t end):
    # Entries that were used before come first: their pages exist.
    found = [*free[:n], *range(used, used + max(0, n - len(free)))]
    if max(found, default=0) >= end:
        raise IndexError("the table is full")
    return found


cdef inline bint is_used(Key *key) noexcept:
    return key.first != 0 or key.second != 0


cdef bytes key_bytes(Key *key):
    return (<char *> key)[:sizeof(Key)]


cdef int set_key(Key *key, bytes value) except -1:
    if len(value) != sizeof(Key) or not any(value):
        raise ValueError(f"a key is {sizeof(Key)} bytes, not all of them zero")
    memcpy(key, <const char *> value, sizeof(Key))
    return 0
