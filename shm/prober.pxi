# Who checks the health of a group's peers, and what becomes of a check's result.
#
# Rules: one worker at a time holds the group's lease, a word with its slot and the time of the last renewal. A lease
# that was not renewed for a while is anybody's (its holder was stopped), one whose holder died is given back with the
# holder's slot.

cdef enum:
    LEASE_MS = 3000     # a lease that was not renewed for so long is void


cdef class Health:
    """The health checks of one upstream, as this worker takes part in them."""

    cdef readonly Peers peers

    def __cinit__(self, Peers peers):
        self.peers = peers

    def lead(self, int64_t now=-1) -> bool:
        """Takes or renews the lease; whether this worker is the one that checks. To be called once a second or so."""
        cdef uint64_t word = load(&self.peers.group.prober), holder = word >> 48
        cdef int64_t renewed = <int64_t> (word & ((<uint64_t> 1 << 48) - 1))
        self.peers.check_bound()
        if now < 0:
            now = clock_ms()
        if holder and holder != <uint64_t> self.peers.slot + 1 and now - renewed < LEASE_MS:
            return False
        return swap(&self.peers.group.prober, word, (<uint64_t> self.peers.slot + 1) << 48 | <uint64_t> now)

    def leave(self) -> None:
        """Gives the lease back, if this worker has it."""
        cdef uint64_t word = load(&self.peers.group.prober)
        if word >> 48 == <uint64_t> self.peers.slot + 1:
            swap(&self.peers.group.prober, word, 0)

    def holder(self) -> int:
        """The worker slot that has the lease, -1 for none."""
        return <int> (load(&self.peers.group.prober) >> 48) - 1

    def note(self, int i, uint32_t check, bint passed, uint32_t fails=1, uint32_t passes=1, int64_t now=-1) -> int:
        """The result of `check` on peer `i`, which is down after `fails` failures in a row and up after `passes`.

        Returns -1 when that has made it fail, 1 when it passes again (or a mandatory one for the first time), else 0;
        0 and nothing is noted when the configuration in force has no such check, or the lock cannot be had.
        """
        cdef Peers peers = self.peers
        cdef Hot *hot
        cdef Cold *cold
        cdef Check *of = NULL
        cdef int k, change = 0
        cdef uint32_t before
        peers.check_index(i)
        if now < 0:
            now = clock_ms()
        hot, cold = peers.hot[i], peers.cold(i)
        if not peers.lock():
            return 0
        step(armed)
        for k in range(CHECKS):
            if cold.checks[k].id == check:
                of = &cold.checks[k]
        if check and of != NULL:
            of.checked = now
            of.passes = of.passes + 1 if passed else 0
            of.fails = 0 if passed else of.fails + 1
            step(armed)
            if passed and of.state == PENDING or of.state == DOWN_STATE and passed and of.passes >= passes:
                of.state = UP
                change = 1
            elif passed and of.state == UNKNOWN:
                of.state = UP
            elif not passed and of.state != DOWN_STATE and of.fails >= fails:
                of.state = DOWN_STATE
                change = -1
            before = load32(&hot.flags) & UNHEALTHY
            step(armed)
            show_health(hot, cold)
            step(armed)
            if before and not load32(&hot.flags) & UNHEALTHY:
                peers.back(i, now)
        peers.unlock(True)
        return change
