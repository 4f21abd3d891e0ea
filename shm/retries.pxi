# How many requests of a group may be at a further server at a time.
#
# Rules: a worker counts its retries in a word that it alone writes and that is cleared with its slot; whether there may
# be one more is decided under the group's lock, over the words of all workers.


cdef class Retries:
    """The retry budget of one upstream: `percent` of the active requests, but at least `least`."""

    cdef readonly Peers peers
    cdef readonly uint64_t percent
    cdef readonly uint64_t least

    def __cinit__(self, Peers peers, percent=20, least=3):
        self.peers = peers
        self.percent = percent
        self.least = least

    cdef uint64_t *word(self, uint32_t slot) noexcept:
        return &rows_at(self.peers.base, slot).waiting[self.peers.group - group_at(self.peers.base, 0)].retries

    def active(self) -> int:
        """Connections to the group's peers, all workers together."""
        cdef uint64_t sum = 0
        cdef int i
        for i in range(self.peers.count):
            sum += count_of(load(&self.peers.hot[i].conns))
        return sum

    def retries(self) -> int:
        """Requests that are being tried again, all workers together."""
        cdef uint64_t sum = 0
        cdef uint32_t slot
        for slot in range(header_at(self.peers.base).slots_used):
            if load_time(&slot_at(self.peers.base, slot).pid):
                sum += load(self.word(slot))
        return sum

    def overflows(self) -> int:
        """How many retries there was no room for, ever."""
        return load(&self.peers.group.overflows)

    def begin(self, bint held=False) -> bool:
        """Counts a request in that is to be tried again; False when there are as many as may be.

        `held`: its failed try still has its connection, so it is among the active ones.
        """
        cdef bint locked, more
        cdef uint64_t active
        self.peers.check_bound()
        locked = self.peers.lock()
        try:
            step(armed)
            active = self.active() + (not held)
            more = self.retries() < max(self.least, active * self.percent // 100)
            if more:
                add(self.word(self.peers.slot), 1)
            else:
                add(&self.peers.group.overflows, 1)
            step(armed)
        finally:
            self.peers.unlock(locked)
        return more

    def end(self) -> None:
        """What `begin` counted in is over."""
        self.peers.check_bound()
        add(self.word(self.peers.slot), <uint64_t> -1)
