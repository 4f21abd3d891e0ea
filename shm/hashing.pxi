# Balancing methods that map a key to a peer: ip_hash, hash, and hash consistent (ketama).
#
# Rules: the numbers are nginx's, bit by bit, so that a mixed fleet agrees: hash's also Cache::Memcached's, the points
# of the ring also Cache::Memcached::Fast's. Looking a key up needs no lock. A request's place in the sequence of a key
# is kept from one try to the next; after 20 that cannot be used, round robin serves, as on nginx.

from libc.stdint cimport uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport qsort

cdef enum:
    REHASHES = 20
    POINTS = 160    # for each unit of weight

cdef uint32_t ONES = 0xFFFFFFFF
cdef uint32_t[256] CRC

cdef void fill_crc() noexcept:
    cdef uint32_t n, value
    for n in range(256):
        value = n
        for _ in range(8):
            value = value >> 1 ^ (<uint32_t> 0xEDB88320 if value & 1 else <uint32_t> 0)
        CRC[n] = value

fill_crc()

cdef inline uint32_t crc_more(uint32_t crc, const char *data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        crc = CRC[(crc ^ <uint8_t> data[i]) & 0xFF] ^ crc >> 8
    return crc

cdef inline uint32_t crc_of(const char *data, Py_ssize_t size) noexcept nogil:
    return ~crc_more(ONES, data, size)

cdef struct Point:
    uint32_t hash
    int first   # of the peers of the server whose point it is

cdef int by_hash(const void *one, const void *two) noexcept nogil:
    cdef uint32_t a = (<Point *> one).hash, b = (<Point *> two).hash
    return (a > b) - (a < b)


cdef class Ring:
    """The points of all primaries' servers, in order; a server that stands for several peers has one set of them."""

    cdef readonly Peers peers
    cdef Point *points
    cdef readonly Py_ssize_t number     # of points, once they are made
    cdef uint64_t version
    cdef int *first     # of each peer: the first peer of the same server
    cdef int *next      # of each peer: the next one of the same server, or -1
    cdef uint32_t *start

    def __cinit__(self, Peers peers):
        cdef int i, j
        self.peers = peers
        self.first = <int *> calloc(peers.primaries, sizeof(int))
        self.next = <int *> calloc(peers.primaries, sizeof(int))
        self.start = <uint32_t *> calloc(peers.primaries, sizeof(uint32_t))
        if self.first == NULL or self.next == NULL or self.start == NULL:
            raise MemoryError()
        last = {}
        for i in range(peers.primaries):
            server = peers.specs[i].server
            self.next[i] = -1
            self.first[i] = i
            if server in last:
                j = last[server]
                self.next[j] = i
                self.first[i] = self.first[j]
            last[server] = i
            self.start[i] = server_crc(server.encode("utf-8", "surrogateescape"))

    def __dealloc__(self):
        free(self.first)
        free(self.next)
        free(self.start)
        free(self.points)

    def points_of(self, int i) -> list[int]:
        """The points of peer `i`'s server on the ring, in order."""
        cdef Py_ssize_t k
        self.peers.check_index(i)
        self.refresh()
        return [self.points[k].hash for k in range(self.number) if self.points[k].first == self.first[i]]

    def make(self) -> None:
        """Makes the points now, rather than for the first request: some 0.3 us each."""
        self.refresh()

    cdef int refresh(self) except -1:
        # Makes the points anew when a weight has changed.
        cdef uint64_t version = load(&self.peers.group.version)
        cdef Py_ssize_t total = 0, n = 0, k, kept
        cdef int64_t j
        cdef int i
        cdef uint32_t hash
        cdef uint8_t[4] previous
        if version == self.version:
            return 0
        for i in range(self.peers.primaries):
            total += self.peers.hot[i].weight * POINTS
        free(self.points)
        self.points = <Point *> calloc(total, sizeof(Point))
        if self.points == NULL:
            raise MemoryError()
        for i in range(self.peers.primaries):
            previous[0] = previous[1] = previous[2] = previous[3] = 0
            for j in range(self.peers.hot[i].weight * POINTS):
                if n == total:
                    break  # a weight has grown since: the version has changed too
                hash = ~crc_more(self.start[i], <char *> previous, 4)
                self.points[n].hash = hash
                self.points[n].first = self.first[i]
                n += 1
                previous[0] = hash & 0xFF
                previous[1] = hash >> 8 & 0xFF
                previous[2] = hash >> 16 & 0xFF
                previous[3] = hash >> 24
        qsort(self.points, n, sizeof(Point), by_hash)
        kept = 0
        for k in range(1, n):
            if self.points[k].hash != self.points[kept].hash:
                kept += 1
                self.points[kept] = self.points[k]
        self.number = kept + 1
        self.version = version
        return 0

    cdef uint32_t find(self, uint32_t hash) noexcept:
        # The first point that is not before the hash.
        cdef Py_ssize_t low = 0, high = self.number, middle
        while low < high:
            middle = (low + high) // 2
            if hash > self.points[middle].hash:
                low = middle + 1
            else:
                high = middle
        return low


cdef uint32_t server_crc(bytes server):
    # crc32(HOST \0 PORT ...), unfinished: what comes after is the point before.
    host, colon, port = server.rpartition(b":")
    if server[:5].lower() == b"unix:":
        host, port = server[5:], b""
    elif not colon or not (port.isdigit() or not port):
        host, port = server, b""
    text = host + b"\0" + port
    return crc_more(ONES, text, len(text))


cdef class Hashed(Method):
    """One request's tries: the base of the three methods."""

    cdef const char *data
    cdef Py_ssize_t size
    cdef bytes key
    cdef uint32_t hash
    cdef int tries
    cdef int last   # what served the try before, or -1

    def __cinit__(self, Peers peers, bytes key, *args):
        self.last = -1
        self.key = key
        self.data = key
        self.size = len(key)

    cdef int next_place(self) except -2:
        # The next peer of the sequence.
        return -1

    cdef int find(self, const char *tried, int64_t now, int hint, int spare, Trap *trap) except -2:
        cdef Peers peers = self.peers
        cdef int i
        peers.check_bound()
        if now < 0:
            now = clock_ms()
        if peers.primaries >= 2 and self.size and not peers.spent(tried):
            i = peers.wanted(hint, 0, peers.primaries, tried, now)
            if i >= 0 and peers.claim(i, now, trap):
                return i
            # A try whose connection was found closed is none: it may be had again.
            if self.last >= 0 and peers.is_eligible(self.last, tried, now) and peers.claim(self.last, now, trap):
                return self.last
            while self.tries <= REHASHES:
                i = self.next_place()
                step(trap)
                if peers.is_eligible(i, tried, now) and peers.claim(i, now, trap):
                    self.last = i
                    return i
                self.tries += 1
        return peers.next_peer(None, tried, now, hint, spare, trap)


cdef class IpHashed(Hashed):
    """A request under ip_hash: `key` is what counts of the client's address, 3 or 16 bytes."""

    cdef Shares shares

    def __cinit__(self, Peers peers, bytes key, Shares shares):
        self.shares = shares
        self.hash = 89

    cdef int next_place(self) except -2:
        cdef Py_ssize_t i
        for i in range(self.size):
            self.hash = (self.hash * 113 + <uint8_t> self.data[i]) % 6271
        return self.shares.at(self.hash % self.shares.total())


cdef class KeyHashed(Hashed):
    """A request under hash: ((crc32([REHASH] KEY) >> 16) & 0x7fff) + PREVIOUS, as Cache::Memcached has it."""

    cdef Shares shares
    cdef int rehash

    def __cinit__(self, Peers peers, bytes key, Shares shares):
        self.shares = shares

    cdef int next_place(self) except -2:
        cdef char[16] digits
        cdef uint32_t crc = ONES
        if self.rehash:
            crc = crc_more(crc, digits, snprintf(digits, sizeof(digits), "%d", self.rehash))
        self.rehash += 1
        self.hash += (~crc_more(crc, self.data, self.size)) >> 16 & 0x7FFF
        return self.shares.at(self.hash % self.shares.total())


cdef class RingHashed(Method):
    """A request under hash consistent: from the point after its key's on, the first server that can be used."""

    cdef Ring ring
    cdef bytes key
    cdef Py_ssize_t place   # -1: not looked up yet
    cdef int tries

    def __cinit__(self, Peers peers, bytes key, Ring ring):
        self.ring = ring
        self.key = key
        self.place = -1

    cdef int find(self, const char *tried, int64_t now, int hint, int spare, Trap *trap) except -2:
        cdef Peers peers = self.peers
        cdef Ring ring = self.ring
        cdef int i
        peers.check_bound()
        if now < 0:
            now = clock_ms()
        if not peers.single and len(self.key) and not peers.spent(tried):
            i = peers.wanted(hint, 0, peers.primaries, tried, now)
            if i >= 0 and peers.claim(i, now, trap):
                return i
            ring.refresh()
            if self.place < 0:
                self.place = ring.find(crc_of(self.key, len(self.key)))
            while self.tries <= REHASHES:
                i = self.of_server(ring.points[self.place % ring.number].first, tried, now, trap)
                if i >= 0:
                    return i
                self.place += 1
                self.tries += 1
        return peers.next_peer(None, tried, now, hint, spare, trap)

    cdef int of_server(self, int first, const char *tried, int64_t now, Trap *trap) noexcept:
        # One of the server's peers, taken: by round robin if there are several. -1 when none can be used.
        cdef Peers peers = self.peers
        cdef Hot *hot = peers.hot[first]
        cdef int64_t total, most, current
        cdef int i, best
        cdef bint locked
        if self.ring.next[first] < 0 and hot.effective >= hot.weight:
            return first if peers.is_eligible(first, tried, now) and peers.claim(first, now, trap) else -1
        locked = peers.lock()
        step(trap)
        while True:
            best = -1
            total = most = 0
            i = first
            while i >= 0:
                if peers.is_eligible(i, tried, now):
                    current = gain(peers.base, peers.hot[i], NULL if locked else &peers.own[i], now, &total, trap)
                    if best < 0 or current > most:
                        best = i
                        most = current
                i = self.ring.next[i]
            if best < 0:
                break
            if locked:
                peers.hot[best].current -= total
            else:
                peers.own[best] -= total
            step(trap)
            if peers.claim(best, now, trap):
                break
        peers.unlock(locked)
        return best
