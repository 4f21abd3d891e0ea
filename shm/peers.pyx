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

cdef enum:
    MAX_WEIGHT = 1 << 30  # no sum over a full zone of these leaves 64 bits


def now_ms() -> int:
    """Milliseconds of CLOCK_MONOTONIC_COARSE, the clock of every time in a zone; steps of 1 to 10 ms."""
    return clock_ms()


cdef class Peers:
    """One upstream's peers in the order of the configuration, primaries before backups; indexes are positions in it.

    Made by `Zone`. Before picking, each process binds it to its worker slot. Not for use by several threads at once
    outside the interpreter lock.
    """

    cdef readonly str upstream
    cdef readonly int count
    cdef readonly int primaries
    cdef readonly bint single         # one primary, no backup: it is never given up, and tried once a request
    cdef readonly int slot            # -1 until bound
    cdef readonly unsigned long unlocked  # decisions of this process made without the lock
    cdef Py_buffer view
    cdef char *base
    cdef Group *group
    cdef Hot **hot
    cdef uint32_t *record
    cdef int64_t *own                 # running values for picking without the lock
    cdef uint64_t stuck
    cdef tuple specs

    def __cinit__(self, buffer, str upstream, uint32_t group, list records, tuple specs):
        cdef int i
        self.upstream = upstream
        self.specs = specs
        self.count = len(specs)
        self.primaries = sum(not spec.backup for spec in specs)
        self.single = self.count == 1 and self.primaries == 1
        self.slot = -1
        if self.count == 0 or len(records) != self.count or any(spec.backup for spec in specs[: self.primaries]):
            raise ValueError(f'upstream "{upstream}" needs peers, primaries first, and a record for each')
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
        self.base = <char *> self.view.buf
        self.group = group_at(self.base, group)
        self.hot = <Hot **> calloc(self.count, sizeof(Hot *))
        self.record = <uint32_t *> calloc(self.count, sizeof(uint32_t))
        self.own = <int64_t *> calloc(self.count, sizeof(int64_t))
        if self.hot == NULL or self.record == NULL or self.own == NULL:
            raise MemoryError()
        for i in range(self.count):
            self.record[i] = records[i]
            self.hot[i] = hot_at(self.base, self.record[i])

    def __dealloc__(self):
        free(self.hot)
        free(self.record)
        free(self.own)
        PyBuffer_Release(&self.view)

    def __len__(self) -> int:
        return self.count

    def bind(self, int slot) -> None:
        """Accounts all that this process does from now on to its worker slot, claimed in the zone."""
        if not 0 <= slot < <int> header_at(self.base).slots or slot_at(self.base, slot).pid == 0:
            raise ValueError(f"worker slot {slot} is not claimed")
        if self.hot[0].weight == 0:
            raise RuntimeError(f'the zone of upstream "{self.upstream}" is not committed')
        self.slot = slot

    # Configuration

    def commit(self) -> None:
        """Writes the configured parameters into the records; the zone does it when the cycle is taken."""
        cdef int i
        cdef Hot *hot
        cdef Cold *cold
        cdef bint locked = self.lock()
        try:
            for i, spec in enumerate(self.specs):
                hot = self.hot[i]
                cold = cold_at(self.base, self.record[i])
                self.weigh(i, spec.weight)
                hot.max_conns = min(spec.max_conns, 0xFFFFFFFF)
                hot.max_fails = min(spec.max_fails, 0xFFFFFFFF)
                hot.fail_timeout = spec.fail_timeout
                cold.slow_start = spec.slow_start
                self.set_flag(i, DOWN, spec.down)
            self.bound_running(0, self.primaries)
            self.bound_running(self.primaries, self.count)
        finally:
            self.unlock(locked)

    def set_weight(self, int i, int64_t weight) -> None:
        """Changes the nominal weight (1 and more) until the next commit."""
        self.check_index(i)
        if weight < 1:
            raise ValueError(f"a weight is 1 or more, not {weight}")
        cdef bint locked = self.lock()
        self.weigh(i, weight)
        self.bound_running(0, self.primaries)
        self.bound_running(self.primaries, self.count)
        self.unlock(locked)

    def set_down(self, int i, bint down) -> None:
        """Takes the peer out, or back in, until the next commit."""
        self.set_flag(i, DOWN, down)

    def set_drain(self, int i, bint drain) -> None:
        """Keeps new requests away from the peer, or no longer; a reload keeps it so."""
        self.set_flag(i, DRAIN, drain)

    cdef int set_flag(self, int i, uint32_t flag, bint on) except -1:
        self.check_index(i)
        if on:
            set_bits(&self.hot[i].flags, flag)
        else:
            clear_bits(&self.hot[i].flags, ~flag)
        return 0

    cdef void weigh(self, int i, weight):
        # What a peer has lost by failures it has lost of the new weight too; one that has lost nothing has it whole.
        cdef Hot *hot = self.hot[i]
        cdef int64_t new = min(weight, MAX_WEIGHT)
        if hot.effective >= hot.weight or hot.effective > new:
            hot.effective = new
        hot.weight = new

    cdef void bound_running(self, int start, int end) noexcept nogil:
        # A running value belongs to the weights it grew from: one of old, larger weights would decide for too long.
        cdef int i
        cdef int64_t total = 0
        for i in range(start, end):
            total += self.hot[i].weight
        for i in range(start, end):
            self.hot[i].current = max(-total, min(total, self.hot[i].current))

    # Picking

    def tries(self) -> int:
        """Peers that are neither down nor draining, backups included: how often a request may try."""
        cdef int i, n = 0
        for i in range(self.count):
            n += load32(&self.hot[i].flags) == 0
        return n

    def eligible(self, int i, bytearray tried=None, int64_t now=-1) -> bool:
        """Whether peer `i` may be used by a request that has used the peers marked in `tried` (a byte each)."""
        self.check_index(i)
        return self.is_eligible(i, self.marks(tried), clock_ms() if now < 0 else now)

    def pick(self, bytearray tried=None, int64_t now=-1) -> int:
        """The peer whose turn it is, with a connection accounted to it; -1 when there is none.

        `tried` marks the peers that the request has used (a byte each, set by the caller), None being none; `now` is
        in ms of `now_ms()`, read when negative. A request that has gone over to the backups stays with them.
        Raises RuntimeError before `bind`.
        """
        return self.next_peer(self.marks(tried), now, NULL)

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
            return load32(&hot.flags) == 0 and has_room(hot)
        return (tried == NULL or tried[i] == 0) and usable(hot, now)

    cdef inline int next_peer(self, const char *tried, int64_t now, Trap *trap) except -2:
        cdef bint locked
        cdef int i, start = 0, best = -1
        cdef int64_t *running
        self.check_bound()
        if now < 0:
            now = clock_ms()
        if self.single:
            return 0 if self.is_eligible(0, NULL, now) and self.claim(0, now, trap) else -1
        if tried != NULL:
            for i in range(self.primaries, self.count):
                if tried[i]:
                    start = self.primaries
                    break
        locked = self.lock()
        running = NULL if locked else self.own
        step(trap)
        while True:
            best = -1
            if start == 0:
                best = choose(self.hot, running, 0, self.primaries, tried, now, trap)
            if best < 0 and self.count > self.primaries:
                best = choose(self.hot, running, self.primaries, self.count, tried, now, trap)
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
                store32(&hot.fails, 0)
            step(trap)
            self.unlock(locked)
        change(self.base, record, slot, True, 0, trap)
        return disabled

    # The lock

    cdef inline bint lock(self) noexcept nogil:
        cdef int i, got = lock_take(&self.group.lock, &self.stuck)
        if got == ORPHAN:
            for i in range(self.count):
                self.hot[i].current = 0
            lock_repaired(&self.group.lock)
        elif got == BUSY:
            self.unlocked += 1
            return False
        return True

    cdef inline void unlock(self, bint locked) noexcept nogil:
        if locked:
            lock_free(&self.group.lock)

    cdef inline int check_index(self, int i) except -1:
        if not 0 <= i < self.count:
            raise IndexError(f'upstream "{self.upstream}" has no peer {i}')
        return 0

    cdef inline int check_bound(self) except -1:
        if self.slot < 0:
            raise RuntimeError(f'the peers of upstream "{self.upstream}" are not bound to a worker slot')
        return 0

    cdef inline const char *marks(self, bytearray tried) except? NULL:
        if tried is None:
            return NULL
        if PyByteArray_GET_SIZE(tried) < self.count:
            raise ValueError(f"tried has {len(tried)} bytes for {self.count} peers")
        return PyByteArray_AS_STRING(tried)

    # Status

    def conns(self, int i) -> int:
        """Connections on the peer, all workers and generations together."""
        self.check_index(i)
        return count_of(load(&self.hot[i].conns))

    def note_response(self, int i, int status_class, uint64_t ms, uint64_t bytes_in, uint64_t bytes_out) -> None:
        """Counts a response of the peer: class 1 to 5 of its status, time, bytes from and to the peer."""
        cdef Cold *cold
        self.check_index(i)
        if not 1 <= status_class <= 5:
            raise ValueError(f"no such class of statuses: {status_class}")
        cold = cold_at(self.base, self.record[i])
        add(&cold.responses[status_class - 1], 1)
        store(&cold.last_ms, ms)
        add(&cold.total_ms, ms)
        add(&cold.bytes_in, bytes_in)
        add(&cold.bytes_out, bytes_out)

    def snapshot(self) -> list[PeerState]:
        """The state of every peer, in order; read without the lock, so between peers it may be a few changes apart."""
        cdef int i
        return [self.peer_state(i) for i in range(self.count)]

    cdef object peer_state(self, int i):
        cdef Hot *hot = self.hot[i]
        cdef Cold *cold = cold_at(self.base, self.record[i])
        cdef uint32_t flags = load32(&hot.flags)
        spec = self.specs[i]
        responses = tuple([load(&cold.responses[k]) for k in range(5)])
        return PeerState(
            server=spec.server,
            address=spec.address,
            backup=spec.backup,
            down=bool(flags & DOWN),
            drain=bool(flags & DRAIN),
            weight=hot.weight,
            effective_weight=hot.effective,
            current_weight=hot.current,
            conns=count_of(load(&hot.conns)),
            max_conns=hot.max_conns,
            fails=load32(&hot.fails),
            max_fails=hot.max_fails,
            fail_timeout=hot.fail_timeout,
            accessed=cold.accessed,
            checked=hot.checked,
            slow_start=cold.slow_start,
            slow_started=cold.slow_started,
            requests=load(&cold.requests),
            failed=load(&cold.failed),
            responses=responses,
            last_ms=load(&cold.last_ms),
            average_ms=load(&cold.total_ms) / max(1, sum(responses)),
            bytes_in=load(&cold.bytes_in),
            bytes_out=load(&cold.bytes_out),
        )

    # For tests: the same operations, ended or stopped by `signal` at their n-th step.

    def trapped_pick(self, int n, int signal, bytearray tried=None, int64_t now=-1) -> int:
        """`pick`, with a signal to this process itself at step `n` (from 0), inside the critical section or near it."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        return self.next_peer(self.marks(tried), now, &trap)

    def trapped_free(self, int n, int signal, int i, int state, int64_t now=-1) -> int:
        """`free`, with a signal to this process itself at step `n` (from 0), inside the critical section or near it."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        self.check_index(i)
        self.check_bound()
        return self.give_back(i, state, now, &trap)
