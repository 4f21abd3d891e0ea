# What is known of a peer's response times.
#
# Rules: an average is one word, changed by compare-and-swap, so it needs no lock and no death leaves it half way. What
# a worker has under way at a peer is one word that it alone writes; who wants the sum adds the workers' words up.

from libc.math cimport exp

cdef extern from *:
    """
    #include <string.h>
    static inline uint32_t hg_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
    static inline float hg_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
    """
    uint32_t float_bits "hg_bits"(float) noexcept nogil
    float bits_float "hg_float"(uint32_t) noexcept nogil

cdef enum:
    DECAY_MS = 10_000       # Finagle's default decay time

cdef enum:
    # By what peers are compared: the places in COSTS.
    BY_CONNS = 0
    BY_HEADER = 1
    BY_LAST_BYTE = 2
    BY_HEADER_INFLIGHT = 3
    BY_LAST_BYTE_INFLIGHT = 4
    BY_PEAK = 5

cdef inline uint64_t averaged(uint64_t average, uint64_t ms) noexcept nogil:
    # ngx_http_upstream_response_time_avg
    return <uint64_t> (0.5 + (<double> ms * 0.05 + <double> average * 0.95)) if average else ms

cdef inline void note_average(uint64_t *word, uint64_t ms) noexcept nogil:
    cdef uint64_t old
    while True:
        old = load(word)
        if swap(word, old, averaged(old, ms)):
            return

# Under way: count 16 | sum of the moments they began 48. The sum is kept modulo 2^48, and so is the sum of the times
# passed, count x now - sum, which is small enough to be right all the same.

cdef enum:
    FLIGHT_SUM = 48

cdef inline uint64_t flight_mask() noexcept nogil:
    return (<uint64_t> 1 << FLIGHT_SUM) - 1

cdef inline void fly(uint64_t *row, int64_t began, int step) noexcept nogil:
    # One more request under way, or one less; `row` is this process's own.
    cdef uint64_t word = load(row), mask = flight_mask()
    store(row, ((word >> FLIGHT_SUM) + step) << FLIGHT_SUM | ((word + <uint64_t> (step * began)) & mask))

cdef inline int64_t flight_time(char *base, uint32_t record, int64_t now) noexcept nogil:
    # Average time in ms of all workers' requests under way at a peer, or -1 when there are none.
    cdef uint64_t word, count = 0, sum = 0
    cdef uint32_t slot
    for slot in range(header_at(base).slots_used):
        if load_time(&slot_at(base, slot).pid):
            word = load(&rows_at(base, slot).flight[record])
            count += word >> FLIGHT_SUM
            sum += word
    if count == 0:
        return -1
    return <int64_t> (((count * <uint64_t> now - sum) & flight_mask()) // count)

# Peak-sensitive average, as Finagle's PeakEwma has it: a higher value counts at once and whole, a lower one and the
# passing of time by an exponential weight.

cdef inline double faded(uint64_t word, int64_t now) noexcept nogil:
    # What is left at `now` of the weight of what was noted before.
    cdef uint32_t passed = <uint32_t> now - <uint32_t> word
    return 1 if passed >> 31 else exp(-<double> passed / DECAY_MS)  # another process may have a newer clock

cdef inline double peak_at(uint64_t word, int64_t now) noexcept nogil:
    # The average in ms as of `now`; 0 when nothing was ever noted.
    return bits_float(word >> 32) * faded(word, now) if word else 0

cdef inline void note_peak(uint64_t *word, double ms, bint lower, int64_t now) noexcept nogil:
    # `lower`: whether a value below the average counts too.
    cdef uint64_t old
    cdef double cost
    while True:
        old = load(word)
        cost = peak_at(old, now)
        if ms >= cost:
            cost = max(ms, 0.001)
        elif lower:
            cost += ms * (1 - faded(old, now))
        else:
            return
        if swap(word, old, <uint64_t> float_bits(<float> cost) << 32 | <uint32_t> now):
            return
