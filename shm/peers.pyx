# cython: boundscheck=False, wraparound=False, cdivision=True
"""The peers of one upstream: eligibility, picking, and what becomes of a try.

Rules: one function (`usable` of picking.pxi) says whether a peer may be used, for every balancer. Choosing, and what
a failure changes, happens under the group's lock; connection counts are exact without it (conns.pxi). When the lock
cannot be had within 5 ms the decision is made from what is seen, over running values of this process's own. Writes
are ordered so that a death at any point leaves a valid record; only the running values of round robin may be half way
then, and start anew. Nothing here waits longer than that, logs, or does I/O.

Behaviour is that of ngx_http_upstream_round_robin.c, with milliseconds for its seconds.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer, PyBuffer_Release
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdlib cimport calloc, free

include "record.pxi"
include "conns.pxi"
include "picking.pxi"

from headgate.shm.state import PeerState

OK = 0
NEXT = 2    # not this peer's failure, but another one is wanted
FAILED = 4

cdef enum:
    STATE_FAILED = 4
    MAX_WEIGHT = 1 << 30  # no sum over a full zone of these leaves 64 bits


def now_ms() -> int:
    """Milliseconds of CLOCK_MONOTONIC_COARSE, the clock of every time in a zone; steps of 1 to 10 ms."""
    return clock_ms()


cdef Trap trap
cdef Trap *armed = NULL


def arm(int n, int signal) -> None:
    """For tests: `signal` to this process itself at the n-th step (from 0) about health, outliers, retries or queues."""
    global armed
    trap.left = n
    trap.signal = signal
    armed = &trap


include "timing.pxi"
include "health.pxi"
include "table.pxi"

cdef class Method  # see methods.pxi


cdef class Peers(PeerTable):
    """One upstream's peers in the order of the configuration, primaries before backups; indexes are positions in it.

    Made by `Zone`. Before picking, each process binds it to its worker slot. Not for use by several threads at once
    outside the interpreter lock.
    """

    # Picking

    def tries(self) -> int:
        """Peers that nothing but failures keeps away, backups included: how often a request may try."""
        cdef int i, n = 0
        for i in range(self.count):
            n += load32(&self.hot[i].flags) & AWAY == 0
        return n

    def eligible(self, int i, bytearray tried=None, int64_t now=-1) -> bool:
        """Whether peer `i` may be used by a request that has used the peers marked in `tried` (a byte each)."""
        self.check_index(i)
        return self.is_eligible(i, self.marks(tried), clock_ms() if now < 0 else now)

    def waitable(self, bytearray tried=None) -> bool:
        """Whether a peer that cannot be used now may be later: one is neither down nor draining nor tried."""
        cdef int i
        cdef const char *marks = self.marks(tried)
        for i in range(self.count):
            if load32(&self.hot[i].flags) & LASTING == 0 and (marks == NULL or marks[i] == 0):
                return True
        return False

    def available(self, bytearray tried=None, int64_t now=-1) -> bool:
        """Whether there is a peer that can be used now."""
        cdef int i
        cdef const char *marks = self.marks(tried)
        if now < 0:
            now = clock_ms()
        for i in range(self.count):
            if self.is_eligible(i, marks, now):
                return True
        return False

    def pick(self, bytearray tried=None, int64_t now=-1, int hint=-1, int spare=-1) -> int:
        """The peer whose turn it is, with a connection accounted to it; -1 when there is none.

        `tried` marks the peers that the request has used (a byte each, set by the caller), None being none; `now` is
        in ms of `now_ms()`, read when negative. A request that has gone over to the backups stays with them. `hint`
        is the primary, `spare` the backup that stickiness wants: used out of turn if it is eligible or drains.
        Raises RuntimeError before `bind`.
        """
        return self.next_peer(None, self.marks(tried), now, hint, spare, NULL)

    def take(self, int i, bytearray tried=None, int64_t now=-1) -> bool:
        """Accounts a connection to peer `i` if it is eligible; False if it is not."""
        self.check_index(i)
        self.check_bound()
        if now < 0:
            now = clock_ms()
        return self.is_eligible(i, self.marks(tried), now) and self.claim(i, now, NULL)

    def free(self, int i, int state, int64_t now=-1) -> int:
        """Ends a try that `pick` or `take` began, in the state OK, NEXT or FAILED.

        Returns 1 when this failure has made the peer unavailable (`fails` reached `max_fails`), else 0. Raises
        ValueError when this worker holds no connection on the peer.
        """
        self.check_index(i)
        self.check_bound()
        return self.give_back(i, state, now, NULL)

    cdef inline bint is_eligible(self, int i, const char *tried, int64_t now) noexcept nogil:
        cdef Hot *hot = self.hot[i]
        if self.single:
            # There is no other: neither failures nor an earlier try keep a request away.
            return load32(&hot.flags) & AWAY == 0 and has_room(hot)
        return (tried == NULL or tried[i] == 0) and usable(hot, AWAY, now)

    cdef inline int wanted(self, int i, int start, int end, const char *tried, int64_t now) noexcept nogil:
        # The peer that stickiness wants, if it may be used; -1 otherwise.
        if start <= i < end and (tried == NULL or tried[i] == 0) and usable(self.hot[i], AWAY & ~(DRAIN | DRAINING), now):
            return i
        return -1

    cdef inline bint spent(self, const char *tried) noexcept nogil:
        # The request has gone over to the backups.
        cdef int i
        if tried != NULL:
            for i in range(self.primaries, self.count):
                if tried[i]:
                    return True
        return False

    cdef inline int turn(self, Method method, int64_t *own, int start, int end, int wanted, const char *tried, int64_t now,
                         Trap *trap) noexcept:
        wanted = self.wanted(wanted, start, end, tried, now)
        if method is None:
            return choose(self.base, self.hot, own, start, end, wanted, tried, now, trap)
        return method.choose(start, end, wanted, own, tried, now, trap)

    cdef inline int next_peer(self, Method method, const char *tried, int64_t now, int hint, int spare,
                              Trap *trap) except -2:
        # By round robin when `method` is None.
        cdef bint locked, primaries
        cdef int best
        cdef int64_t *own
        self.check_bound()
        if now < 0:
            now = clock_ms()
        if self.single:
            if not self.is_eligible(0, NULL, now) and self.wanted(hint, 0, 1, NULL, now) < 0:
                return -1
            return 0 if self.claim(0, now, trap) else -1
        primaries = not self.spent(tried)
        locked = self.lock()
        own = NULL if locked else self.own
        step(trap)
        while True:
            best = -1
            if primaries:
                best = self.turn(method, own, 0, self.primaries, hint, tried, now, trap)
            if best < 0 and self.count > self.primaries:
                best = self.turn(method, own, self.primaries, self.count, spare, tried, now, trap)
            # A claim fails only where another process was faster, without the lock.
            if best < 0 or self.claim(best, now, trap):
                break
        step(trap)
        self.unlock(locked)
        return best

    cdef inline bint claim(self, int i, int64_t now, Trap *trap) noexcept nogil:
        if not claim(self.base, self.record[i], self.slot, now, not self.single, trap):
            return False
        add(&cold_at(self.base, self.record[i]).requests, 1)
        self.takes += 1
        self.taken = i
        return True

    cdef inline int give_back(self, int i, int state, int64_t now, Trap *trap) except -1:
        cdef Hot *hot = self.hot[i]
        cdef Cold *cold = cold_at(self.base, self.record[i])
        cdef uint32_t record = self.record[i], slot = self.slot
        cdef bint locked, disabled = False
        cdef int64_t loss
        settle(self.base, record, load(&hot.conns))
        if count_of(load(held_at(self.base, slot, record))) == 0:
            raise ValueError(f'no connection to free on peer {i} of upstream "{self.upstream}"')
        if state & STATE_FAILED:
            add(&cold.failed, 1)
        if self.single:
            if load32(&hot.fails):
                store32(&hot.fails, 0)
        elif state & STATE_FAILED:
            if now < 0:
                now = clock_ms()
            locked = self.lock()
            step(trap)
            store_time(&cold.accessed, now)
            step(trap)
            store_time(&hot.checked, now)
            step(trap)
            if hot.max_fails:
                loss = hot.weight // hot.max_fails
                hot.effective = hot.effective - loss if hot.effective > loss else 0
            step(trap)
            disabled = add32(&hot.fails, 1) == hot.max_fails
            step(trap)
            self.unlock(locked)
        elif load32(&hot.fails):
            # Only a success after the window's check clears what came before it.
            locked = self.lock()
            step(trap)
            if load_time(&cold.accessed) < load_time(&hot.checked):
                if hot.max_fails and load32(&hot.fails) >= hot.max_fails:
                    self.back(i, clock_ms() if now < 0 else now)
                    step(trap)
                store32(&hot.fails, 0)
            step(trap)
            self.unlock(locked)
        change(self.base, record, slot, True, 0, trap)
        self.frees += 1
        return disabled

    cdef inline const char *marks(self, bytearray tried) except? NULL:
        if tried is None:
            return NULL
        if PyByteArray_GET_SIZE(tried) < self.count:
            raise ValueError(f"tried has {len(tried)} bytes for {self.count} peers")
        return PyByteArray_AS_STRING(tried)

    # For tests: the same operations, ended or stopped by `signal` at their n-th step.

    def trapped_pick(self, int n, int signal, bytearray tried=None, int64_t now=-1) -> int:
        """`pick`, with a signal to this process itself at step `n` (from 0), inside the critical section or near it."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        return self.next_peer(None, self.marks(tried), now, -1, -1, &trap)

    def trapped_free(self, int n, int signal, int i, int state, int64_t now=-1) -> int:
        """`free`, with a signal to this process itself at step `n` (from 0), inside the critical section or near it."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        self.check_index(i)
        self.check_bound()
        return self.give_back(i, state, now, &trap)


include "methods.pxi"
include "shares.pxi"
include "hashing.pxi"
include "queue.pxi"
include "prober.pxi"
include "outliers.pxi"
include "retries.pxi"
