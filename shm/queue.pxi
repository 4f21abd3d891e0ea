# Whose turn it is when requests of several workers wait for a peer of one upstream.
#
# Rules: a waiting request has a ticket, drawn from the group's counter; a worker publishes the oldest ticket that waits
# in it, and how many do, in words that it alone writes. Tickets are drawn and published under the group's lock, so that
# no more wait than may, and nobody overtakes a ticket that was drawn but not seen yet. What a worker that died had
# published is cleared with its slot, so no death leaves anything behind.


cdef class Queue:
    """The place of this worker's waiting requests among those of all workers."""

    cdef readonly Peers peers

    def __cinit__(self, Peers peers):
        self.peers = peers

    cdef Waiting *row(self, int slot) noexcept:
        return &rows_at(self.peers.base, slot).waiting[self.peers.group - group_at(self.peers.base, 0)]

    def enter(self, uint64_t limit) -> int:
        """One more request waits in this worker: its ticket, later than all before; 0 when `limit` wait already."""
        cdef Waiting *row
        cdef uint64_t ticket = 0
        cdef bint locked
        self.peers.check_bound()
        row = self.row(self.peers.slot)
        locked = self.peers.lock()
        step(armed)
        if self.sum() < limit:
            ticket = add(&self.peers.group.ticket, 1)
            step(armed)
            store(&row.count, row.count + 1)
            step(armed)
            if row.first == 0:
                store(&row.first, ticket)
            step(armed)
        self.peers.unlock(locked)
        return ticket

    def publish(self, uint64_t first, uint64_t count) -> None:
        """The oldest ticket that waits in this worker, 0 for none, and how many do."""
        cdef Waiting *row
        self.peers.check_bound()
        row = self.row(self.peers.slot)
        store(&row.count, count)
        store(&row.first, first)

    def waiting(self) -> int:
        """How many requests wait, in all workers together."""
        return self.sum()

    cdef uint64_t sum(self) noexcept:
        cdef uint64_t count = 0
        cdef uint32_t slot
        for slot in range(header_at(self.peers.base).slots_used):
            if load_time(&slot_at(self.peers.base, slot).pid):
                count += load(&self.row(slot).count)
        return count

    def oldest(self, uint64_t after=0) -> int:
        """The oldest ticket of all but those up to `after`, 0 when nobody else waits."""
        cdef uint64_t first, oldest = 0
        cdef uint32_t slot
        for slot in range(header_at(self.peers.base).slots_used):
            if load_time(&slot_at(self.peers.base, slot).pid):
                first = load(&self.row(slot).first)
                if first > after and (oldest == 0 or first < oldest):
                    oldest = first
        return oldest
