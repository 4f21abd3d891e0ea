# Balancing methods that draw by lot: random, random two, and peak_ewma, which is two choices by latency.
#
# Rules: a draw, and the look at what was drawn, needs no lock, for `claim` is exact without one. Shares of weights are
# added up in this process's own memory, anew when the zone says that a weight has changed. What 20 draws cannot serve
# is served by round robin, as nginx does it.

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *, size_t, unsigned int)

cdef extern from *:
    """
    static inline uint64_t hg_splitmix(uint64_t *seed) {
        uint64_t z = *seed += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        return z ^ z >> 31;
    }
    """
    uint64_t splitmix "hg_splitmix"(uint64_t *) noexcept nogil

cdef enum:
    DRAWS = 20

cdef class Shares:
    """The primaries side by side, each as wide as its weight."""

    cdef readonly Peers peers
    cdef int64_t *ends
    cdef uint64_t version

    def __cinit__(self, Peers peers):
        self.peers = peers
        self.ends = <int64_t *> calloc(peers.primaries, sizeof(int64_t))
        if self.ends == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.ends)

    cdef int64_t total(self) noexcept:
        # The sum of all weights, as they are now.
        cdef uint64_t version = load(&self.peers.group.version)
        cdef int64_t sum = 0
        cdef int i
        if version != self.version:
            for i in range(self.peers.primaries):
                sum += self.peers.hot[i].weight
                self.ends[i] = sum
            self.version = version
        return self.ends[self.peers.primaries - 1]

    cdef int at(self, int64_t place) noexcept:
        # The peer whose share has this place.
        cdef int low = 0, high = self.peers.primaries - 1, middle
        while low < high:
            middle = (low + high) // 2
            if place < self.ends[middle]:
                high = middle
            else:
                low = middle + 1
        return low


cdef class Random(Method):
    """nginx's random: by lot, as often as its weight says; with `two`, the better of two that were drawn.

    `by` says how two are compared, see COSTS; by "peak" all are drawn alike, for then the comparison counts weights.
    """

    cdef Shares shares
    cdef readonly bint two
    cdef int by
    cdef uint64_t seed
    cdef int owner  # the worker slot that `seed` was made for, and one

    def __cinit__(self, Peers peers, bint two=False, str by="conns"):
        self.shares = Shares(peers)
        self.two = two
        self.by = COSTS.index(by)

    cdef uint64_t draw(self) noexcept:
        # A forked process draws numbers of its own.
        if self.owner != self.peers.slot + 1:
            self.owner = self.peers.slot + 1
            getrandom(&self.seed, sizeof(self.seed), 0)
        return splitmix(&self.seed)

    cdef int find(self, const char *tried, int64_t now, int hint, int spare, Trap *trap) except -2:
        cdef Peers peers = self.peers
        cdef int i, draws, first = -1
        peers.check_bound()
        if now < 0:
            now = clock_ms()
        if peers.primaries < 2 or peers.spent(tried):
            return peers.next_peer(None, tried, now, hint, spare, trap)
        i = peers.wanted(hint, 0, peers.primaries, tried, now)
        if i >= 0 and peers.claim(i, now, trap):
            return i
        for draws in range(DRAWS + 1):
            i = self.drawn()
            if i == first or not peers.is_eligible(i, tried, now):
                continue
            if self.two and first < 0:
                first = i
                continue
            if first >= 0 and self.worse(i, first, now):
                i = first
            if peers.claim(i, now, trap):
                return i
            first = -1
        return peers.next_peer(None, tried, now, hint, spare, trap)

    cdef int drawn(self) noexcept:
        if self.by == BY_PEAK:
            return self.draw() % <uint64_t> self.peers.primaries
        return self.shares.at(self.draw() % <uint64_t> self.shares.total())

    cdef bint worse(self, int i, int j, int64_t now) noexcept:
        # Whether peer `i` has more to do for its weight than `j`.
        cdef Peers peers = self.peers
        return compare(peers.cost(i, self.by, now, False), self.weight(i, now),
                       peers.cost(j, self.by, now, False), self.weight(j, now)) > 0

    cdef int64_t weight(self, int i, int64_t now) noexcept:
        cdef Hot *hot = self.peers.hot[i]
        return max(1, grown(self.peers.base, hot, hot.weight, now))
