# The records of one upstream as a process sees them: binding to a slot, the group's lock, configuration and status.

cdef class PeerTable:
    """What `Peers` is made of, but for picking."""

    cdef readonly str upstream
    cdef readonly int count
    cdef readonly int primaries
    cdef readonly bint single         # one primary, no backup: it is never given up, and tried once a request
    cdef readonly int slot            # -1 until bound
    cdef readonly unsigned long unlocked  # decisions of this process made without the lock
    cdef readonly unsigned long takes, frees  # connections that this process has taken and given back
    cdef readonly int taken           # the peer it took the last one of
    cdef Py_buffer view
    cdef char *base
    cdef Group *group
    cdef Hot **hot
    cdef uint32_t *record
    cdef int64_t *own                 # running values for picking without the lock
    cdef uint64_t stuck
    cdef readonly tuple specs

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

    cdef inline Cold *cold(self, int i) noexcept nogil:
        return cold_at(self.base, self.record[i])

    cdef inline int check_index(self, int i) except -1:
        if not 0 <= i < self.count:
            raise IndexError(f'upstream "{self.upstream}" has no peer {i}')
        return 0

    cdef inline int check_bound(self) except -1:
        if self.slot < 0:
            raise RuntimeError(f'the peers of upstream "{self.upstream}" are not bound to a worker slot')
        return 0

    # Configuration

    def commit(self) -> None:
        """Writes the configured parameters into the records; the zone does it when the cycle is taken."""
        cdef int i
        cdef Hot *hot
        cdef bint locked = self.lock()
        try:
            for i, spec in enumerate(self.specs):
                hot = self.hot[i]
                if load32(&hot.flags) & DOWN and not spec.down:
                    self.back(i, clock_ms())
                self.weigh(i, spec.weight)
                hot.max_conns = min(spec.max_conns, 0xFFFFFFFF)
                hot.max_fails = min(spec.max_fails, 0xFFFFFFFF)
                hot.fail_timeout = spec.fail_timeout
                self.cold(i).slow_start = spec.slow_start
                self.set_flag(i, DOWN, spec.down)
                self.set_flag(i, DRAINING, spec.drain)
                arrange(hot, self.cold(i), spec.checks)
                if not spec.ejection:
                    forget_ejection(hot, self.cold(i))
            self.bound_running(0, self.primaries)
            self.bound_running(self.primaries, self.count)
        finally:
            self.unlock(locked)
        add(&self.group.version, 1)

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
        add(&self.group.version, 1)

    def set_down(self, int i, bint down) -> None:
        """Takes the peer out, or back in (slowly, with slow_start), until the next commit."""
        self.check_index(i)
        if not down and load32(&self.hot[i].flags) & DOWN:
            self.back(i, clock_ms())
        self.set_flag(i, DOWN, down)

    def set_drain(self, int i, bint drain) -> None:
        """Keeps new requests away from the peer but for sticky ones, or no longer; a reload keeps it so."""
        self.set_flag(i, DRAIN, drain)

    cdef int set_flag(self, int i, uint32_t flag, bint on) except -1:
        self.check_index(i)
        if on:
            set_bits(&self.hot[i].flags, flag)
        else:
            clear_bits(&self.hot[i].flags, ~flag)
        return 0

    cdef void back(self, int i, int64_t now) noexcept nogil:
        # The peer is available again: with slow_start, its weight grows from nothing.
        cdef Cold *cold = self.cold(i)
        if cold.slow_start and not self.single:
            store_time(&cold.slow_started, now)
            set_bits(&self.hot[i].flags, RAMPING)

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
            total += self.hot[i].weight << UNIT
        for i in range(start, end):
            self.hot[i].current = max(-total, min(total, self.hot[i].current))

    # Response times

    def begin(self, int i, int64_t now) -> None:
        """A request to the peer is under way, from `now` on: for least_time with `inflight`."""
        self.check_index(i)
        self.check_bound()
        fly(&rows_at(self.base, self.slot).flight[self.record[i]], now, 1)

    def end(self, int i, int64_t began) -> None:
        """What `begin` told of at the moment `began` is over."""
        self.check_index(i)
        self.check_bound()
        fly(&rows_at(self.base, self.slot).flight[self.record[i]], began, -1)

    def note_header(self, int i, uint64_t ms) -> None:
        """The time to a response's head goes into the average of least_time."""
        self.check_index(i)
        note_average(&self.cold(i).header_ms, ms)

    def note_whole(self, int i, uint64_t ms) -> None:
        """The time of a whole response goes into the average of least_time."""
        self.check_index(i)
        note_average(&self.cold(i).response_ms, ms)

    def note_peak(self, int i, double ms, bint lower=True, int64_t now=-1) -> None:
        """A response's time goes into the average of peak_ewma; unless `lower`, only if it is longer than that."""
        self.check_index(i)
        note_peak(&self.cold(i).peak, ms, lower, clock_ms() if now < 0 else now)

    cdef inline int64_t cost(self, int i, int by, int64_t now, bint shared) noexcept nogil:
        # What the peer has to do: connections, or us times those that there would be with one more.
        cdef uint64_t conns = count_of(load(&self.hot[i].conns))
        cdef double ms
        if by == BY_CONNS:
            return conns
        if by != BY_PEAK:
            return self.expected(i, by, conns, now, shared) * (1 + conns)
        ms = peak_at(load(&self.cold(i).peak), now)
        if ms == 0 and conns:
            # Nothing is known of it yet and its first request is out: the others go elsewhere.
            return (<int64_t> 1 << 46) + conns
        return <int64_t> (ms * 1000 * (1 + conns))

    cdef inline int64_t expected(self, int i, int by, uint64_t conns, int64_t now, bint shared) noexcept nogil:
        # ngx_http_upstream_least_time_eta: the ms that one request should take.
        cdef Hot *hot = self.hot[i]
        cdef Cold *cold = self.cold(i)
        cdef int64_t passed, flying
        cdef int64_t ms = load(&cold.response_ms if by == BY_LAST_BYTE or by == BY_LAST_BYTE_INFLIGHT else &cold.header_ms)
        if ms:
            passed = now - load_time(&hot.checked)
            if passed > hot.fail_timeout:
                # Once in fail_timeout half of it is forgotten, so that a slow peer gets another chance.
                ms = ms >> passed // (hot.fail_timeout + 1000) if passed < 62 * (hot.fail_timeout + 1000) else 0
        if conns and by >= BY_HEADER_INFLIGHT:
            flying = flight_time(self.base, self.record[i], now)
            if flying >= 0:
                flying = averaged(cold.flight_ms, flying)
                if shared:
                    cold.flight_ms = flying
                ms = max(ms, flying)
        # Times in steps of 20 ms: peers that are about as fast take turns. From 5 s on all are as bad.
        return 5000 if ms > 5000 else ms + 20 - ms % 20

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
        cold = self.cold(i)
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
        cdef Cold *cold = self.cold(i)
        cdef uint32_t flags = load32(&hot.flags)
        spec = self.specs[i]
        responses = tuple([load(&cold.responses[k]) for k in range(5)])
        return PeerState(
            server=spec.server,
            address=spec.address,
            backup=spec.backup,
            down=bool(flags & DOWN),
            drain=bool(flags & (DRAIN | DRAINING)),
            weight=hot.weight,
            effective_weight=hot.effective,
            current_weight=hot.current >> UNIT,
            conns=count_of(load(&hot.conns)),
            max_conns=hot.max_conns,
            fails=load32(&hot.fails),
            max_fails=hot.max_fails,
            fail_timeout=hot.fail_timeout,
            accessed=cold.accessed,
            checked=hot.checked,
            slow_start=cold.slow_start,
            slow_started=cold.slow_started if flags & RAMPING else 0,
            requests=load(&cold.requests),
            failed=load(&cold.failed),
            responses=responses,
            last_ms=load(&cold.last_ms),
            average_ms=load(&cold.total_ms) / max(1, sum(responses)),
            header_ms=load(&cold.header_ms),
            response_ms=load(&cold.response_ms),
            peak_ms=peak_at(load(&cold.peak), clock_ms()),
            bytes_in=load(&cold.bytes_in),
            bytes_out=load(&cold.bytes_out),
            health=health_of(flags, cold),
            ejected=bool(flags & EJECTED),
            ejected_until=cold.ejected_until,
            ejections=cold.ejected,
        )
