# cython: boundscheck=False, wraparound=False, cdivision=True
"""Sessions that stick to a peer: a table from a session's digest to a peer's name, in a segment of its own.

Rules: all is done under one robust lock. An entry counts as soon as its `last` is set and until that is cleared, so
whoever takes the lock from a dead holder can make the chains and the order of use anew from the entries alone. When
the lock cannot be had, a session is not found and not learned: the request is balanced as if it had none. What has not
been used for longer than its timeout is gone; when the table is full, the one not used for longest makes room.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer, PyBuffer_Release
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset

include "lock.pxi"
include "trap.pxi"

from headgate.shm.segment import Segment

cdef enum:
    KEY = 16            # an MD5 digest
    NAME = 32           # bytes of a peer's name at most
    PAGE = 4096
    NONE = 0xFFFFFFFF   # no entry

cdef struct Entry:
    # 96 bytes
    char[KEY] key
    int64_t last        # when it was last used, ms; 0: free
    uint32_t next       # of its chain, or of the free ones
    uint32_t older
    uint32_t newer
    uint32_t size       # of name
    char[NAME] name
    uint64_t[3] spare

cdef struct Head:
    # One page.
    LockLine lock
    uint32_t oldest
    uint32_t newest
    uint32_t free
    uint32_t used       # entries that were ever used: what lies beyond was never touched
    uint32_t count

assert sizeof(Entry) == 96 and sizeof(Head) <= PAGE


cdef class Sessions:
    """As many sessions as `size` bytes hold. Raises OSError when the system refuses the memory."""

    cdef readonly int capacity
    cdef readonly object segment
    cdef Py_buffer view
    cdef Head *head
    cdef uint32_t *chains
    cdef Entry *entries
    cdef uint64_t stuck

    def __cinit__(self, Py_ssize_t size):
        cdef int rc
        if size < 2 * PAGE:
            raise ValueError(f"{size} bytes are too few for a table of sessions")
        self.capacity = (size - PAGE) // (sizeof(Entry) + sizeof(uint32_t))
        self.segment = Segment.create(size)
        self.segment.reserve(0, size)
        PyObject_GetBuffer(self.segment.map, &self.view, PyBUF_WRITABLE)
        self.head = <Head *> self.view.buf
        self.entries = <Entry *> (<char *> self.view.buf + PAGE)
        self.chains = <uint32_t *> (self.entries + self.capacity)
        rc = lock_init(&self.head.lock)
        if rc:
            raise OSError(rc, "pthread_mutex_init() failed")
        self.rebuild()

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def __len__(self) -> int:
        return self.head.count

    def find(self, bytes key, int64_t now, int64_t timeout) -> bytes | None:
        """The name of the peer that a session (16 bytes) sticks to; times in ms of `now_ms()`."""
        cdef uint32_t i
        check(key, b"")
        if not self.lock():
            return None
        i = self.look_up(key)
        if i != NONE and now - self.entries[i].last >= timeout:
            self.remove(i, NULL)
            i = NONE
        name = None if i == NONE else self.entries[i].name[: self.entries[i].size]
        lock_free(&self.head.lock)
        return name

    def learn(self, bytes key, bytes name, bint create, int64_t now, int64_t timeout) -> bool:
        """A request of the session was served by the peer of this name (32 bytes at most).

        Unless `create`, that matters to a session that is known only. True when another one had to make room.
        """
        check(key, name)
        return self.note(key, name, len(name), create, now, timeout, NULL)

    def trapped_learn(self, int n, int signal, bytes key, bytes name, int64_t now, int64_t timeout) -> bool:
        """For tests: `learn`, with a signal to this process itself at step `n` (from 0)."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        check(key, name)
        return self.note(key, name, len(name), True, now, timeout, &trap)

    cdef bint note(self, const char *key, const char *name, uint32_t size, bint create, int64_t now, int64_t timeout,
                   Trap *trap) noexcept:
        cdef uint32_t i
        cdef bint crowded
        if not self.lock():
            return False
        step(trap)
        while self.head.oldest != NONE and now - self.entries[self.head.oldest].last >= timeout:
            self.remove(self.head.oldest, trap)
        i = self.look_up(key)
        crowded = i == NONE and create and self.head.free == NONE and self.head.used == <uint32_t> self.capacity
        if crowded:
            self.remove(self.head.oldest, trap)
        if i != NONE:
            self.unlink(i)
        elif create:
            i = self.add(key, trap)
        if i != NONE:
            step(trap)
            self.entries[i].size = size
            memcpy(self.entries[i].name, name, size)
            step(trap)
            self.entries[i].last = max(1, now)
            step(trap)
            self.link(i)
        step(trap)
        lock_free(&self.head.lock)
        return crowded

    # Under the lock

    cdef bint lock(self) noexcept:
        cdef int got = lock_take(&self.head.lock, &self.stuck)
        if got == ORPHAN:
            self.rebuild()
            lock_repaired(&self.head.lock)
        return got != BUSY

    cdef void rebuild(self) noexcept:
        # All links from what the entries say.
        cdef uint32_t i, n = 0
        cdef Entry **order = <Entry **> malloc(max(1, self.head.used) * sizeof(Entry *))
        memset(self.chains, 0xFF, self.capacity * sizeof(uint32_t))
        self.head.oldest = self.head.newest = self.head.free = NONE
        self.head.count = 0
        for i in range(self.head.used):
            if self.entries[i].last:
                self.chain(i)
                if order != NULL:
                    order[n] = &self.entries[i]
                    n += 1
                else:
                    self.link(i)
            else:
                self.entries[i].next = self.head.free
                self.head.free = i
        if n:
            qsort(order, n, sizeof(Entry *), by_last)
        for i in range(n):
            self.link(<uint32_t> (order[i] - self.entries))
        free(order)

    cdef inline uint32_t *chain_of(self, const char *key) noexcept:
        return &self.chains[(<uint64_t *> key)[0] % <uint64_t> self.capacity]

    cdef uint32_t look_up(self, const char *key) noexcept:
        cdef uint32_t i = self.chain_of(key)[0]
        while i != NONE and memcmp(self.entries[i].key, key, KEY) != 0:
            i = self.entries[i].next
        return i

    cdef void chain(self, uint32_t i) noexcept:
        cdef uint32_t *first = self.chain_of(self.entries[i].key)
        self.entries[i].next = first[0]
        first[0] = i
        self.head.count += 1

    cdef uint32_t add(self, const char *key, Trap *trap) noexcept:
        # A free entry, which there is, in its chain; it counts when `last` is set.
        cdef uint32_t i = self.head.free
        if i != NONE:
            self.head.free = self.entries[i].next
        else:
            i = self.head.used
            self.entries[i].last = 0
            self.head.used += 1
        step(trap)
        memcpy(self.entries[i].key, key, KEY)
        step(trap)
        self.chain(i)
        return i

    cdef void remove(self, uint32_t i, Trap *trap) noexcept:
        cdef uint32_t *at = self.chain_of(self.entries[i].key)
        self.entries[i].last = 0
        step(trap)
        while at[0] != i:
            at = &self.entries[at[0]].next
        at[0] = self.entries[i].next
        step(trap)
        self.unlink(i)
        self.entries[i].next = self.head.free
        self.head.free = i
        self.head.count -= 1

    cdef void link(self, uint32_t i) noexcept:
        # The newest in the order of use.
        self.entries[i].older = self.head.newest
        self.entries[i].newer = NONE
        if self.head.newest != NONE:
            self.entries[self.head.newest].newer = i
        else:
            self.head.oldest = i
        self.head.newest = i

    cdef void unlink(self, uint32_t i) noexcept:
        cdef uint32_t older = self.entries[i].older, newer = self.entries[i].newer
        if older != NONE:
            self.entries[older].newer = newer
        else:
            self.head.oldest = newer
        if newer != NONE:
            self.entries[newer].older = older
        else:
            self.head.newest = older


cdef int by_last(const void *one, const void *two) noexcept nogil:
    cdef int64_t a = (<Entry **> one)[0].last, b = (<Entry **> two)[0].last
    return (a > b) - (a < b)


cdef int check(bytes key, bytes name) except -1:
    if len(key) != KEY or len(name) > NAME:
        raise ValueError(f"a session's key is {KEY} bytes, a peer's name {NAME} at most")
    return 0
