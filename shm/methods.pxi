# Balancing methods that look at every peer: the common frame, least_conn and least_time.
#
# Rules: a method gives `choose`, which is called under the group's lock (or, when `own` is given, without it and then
# writes nothing shared); all else is `Peers.next_peer`'s: limits, backups, the lock, counting. A method whose choice
# needs no order among processes gives `find` instead and takes no lock.

from libc.limits cimport INT_MAX

cdef extern from *:
    """
    /* a/b against c/d, without loss: -1, 0 or 1 */
    static inline int hg_compare(int64_t a, int64_t b, int64_t c, int64_t d) {
        __int128 left, right;
        if (b == d)
            return (a > c) - (a < c);
        left = (__int128) a * d, right = (__int128) c * b;
        return (left > right) - (left < right);
    }
    """
    int compare "hg_compare"(int64_t a, int64_t b, int64_t c, int64_t d) noexcept nogil
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    AHEAD = 8   # peers; their times lie far apart in memory


cdef class Method:
    """A way to choose among the peers of one upstream, the same for all its requests unless a subclass says otherwise."""

    cdef readonly Peers peers

    def __cinit__(self, Peers peers, *args):
        self.peers = peers

    def get(self, bytearray tried=None, int64_t now=-1, int hint=-1, int spare=-1) -> int:
        """As `Peers.pick`, by this method."""
        return self.find(self.peers.marks(tried), now, hint, spare, NULL)

    def trapped_get(self, int n, int signal, bytearray tried=None, int64_t now=-1) -> int:
        """For tests: `get`, with a signal to this process itself at step `n` (from 0)."""
        cdef Trap trap
        trap.left = n
        trap.signal = signal
        return self.find(self.peers.marks(tried), now, -1, -1, &trap)

    cdef int find(self, const char *tried, int64_t now, int hint, int spare, Trap *trap) except -2:
        return self.peers.next_peer(self, tried, now, hint, spare, trap)

    cdef int choose(self, int start, int end, int wanted, int64_t *own, const char *tried, int64_t now,
                    Trap *trap) noexcept:
        return choose(self.peers.base, self.peers.hot, own, start, end, wanted, tried, now, trap)


COSTS = ("conns", "header", "last_byte", "header inflight", "last_byte inflight", "peak")


cdef class Least(Method):
    """The peer that costs least for its weight; round robin among those that cost the same.

    `by` is one of COSTS: nginx's least_conn, or its least_time, for which `Peers.begin`, `end`, `note_header` and
    `note_whole` tell of times.
    """

    cdef int by
    cdef int *equals    # the peers that cost the same

    def __cinit__(self, Peers peers, str by="conns"):
        self.by = COSTS.index(by)
        self.equals = <int *> calloc(peers.count, sizeof(int))
        if self.equals == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.equals)

    cdef int choose(self, int start, int end, int wanted, int64_t *own, const char *tried, int64_t now,
                    Trap *trap) noexcept:
        cdef Peers peers = self.peers
        cdef Hot *hot
        cdef int64_t cost, weight, least = 0, of = 1
        cdef int i, order, number = 0
        if wanted >= 0:
            return wanted
        for i in range(start, end):
            hot = peers.hot[i]
            if self.by != BY_CONNS and i + AHEAD < end:
                prefetch(&peers.cold(i + AHEAD).header_ms)
            if (tried != NULL and tried[i]) or not usable(hot, AWAY, now):
                continue
            cost = peers.cost(i, self.by, now, own == NULL)
            weight = max(1, grown(peers.base, hot, hot.weight, now))
            order = compare(cost, weight, least, of) if number else -1
            if order > 0:
                continue
            if order < 0:
                least = cost
                of = weight
                number = 0
            self.equals[number] = i
            number += 1
        step(trap)
        if number < 2:
            return self.equals[0] if number else -1
        return self.among_equals(number, own, now, trap)

    cdef int among_equals(self, int number, int64_t *own, int64_t now, Trap *trap) noexcept:
        cdef Peers peers = self.peers
        cdef int64_t total = 0, most = 0, current
        cdef int i, k, best = -1
        for k in range(number):
            i = self.equals[k]
            current = gain(peers.base, peers.hot[i], NULL if own == NULL else &own[i], now, &total, trap)
            if best < 0 or current > most:
                best = i
                most = current
        step(trap)
        if own == NULL:
            peers.hot[best].current -= total
        else:
            own[best] -= total
        return best
