# Connection counts that stay exact whoever is killed or stopped, and wherever.
#
# A peer's `conns` must equal the sum of the workers' `held` at all times, and a worker may die between any two
# instructions. So the change that counts is one compare-and-swap of `conns`, which also carries a tag: who changed
# it, which way, and the number of that change. The same worker's `held` follows, and carries the number of the
# last change that it contains. Whoever finds a tag that `held` does not contain yet applies it, once, before
# changing `conns` again. No lock is needed, and there is nothing to repair.
#
#   conns: count 32 | number 20 | down 1 | slot 11        held: count 32 | number 32
#
# Rule: a slot is used by one process at a time (the master once that process is gone).

from libc.stdint cimport int64_t, uint32_t, uint64_t

include "trap.pxi"

cdef extern from *:
    """
    #define hg_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define hg_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define hg_add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_RELAXED)
    #define hg_or(p, v) __atomic_or_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define hg_and(p, v) __atomic_and_fetch((p), (v), __ATOMIC_SEQ_CST)
    #define hg_cas(p, old, new) __sync_bool_compare_and_swap((p), (old), (new))
    """
    uint64_t load "hg_load"(uint64_t *) noexcept nogil
    int64_t load_time "hg_load"(int64_t *) noexcept nogil
    uint32_t load32 "hg_load"(uint32_t *) noexcept nogil
    void store "hg_store"(uint64_t *, uint64_t) noexcept nogil
    void store32 "hg_store"(uint32_t *, uint32_t) noexcept nogil
    void store_time "hg_store"(int64_t *, int64_t) noexcept nogil
    uint64_t add "hg_add"(uint64_t *, uint64_t) noexcept nogil
    uint32_t add32 "hg_add"(uint32_t *, uint32_t) noexcept nogil
    uint32_t set_bits "hg_or"(uint32_t *, uint32_t) noexcept nogil
    uint32_t clear_bits "hg_and"(uint32_t *, uint32_t) noexcept nogil
    bint swap "hg_cas"(uint64_t *, uint64_t, uint64_t) noexcept nogil
    bint swap_time "hg_cas"(int64_t *, int64_t, int64_t) noexcept nogil

cdef enum:
    NUMBER = 0xFFFFF

cdef inline uint32_t count_of(uint64_t word) noexcept nogil:
    return <uint32_t> word

cdef inline void settle(char *base, uint32_t record, uint64_t word) noexcept nogil:
    # Brings `held` up to the change that the tag of `conns` names.
    cdef uint64_t *row = held_at(base, <uint32_t> (word >> 53), record)
    cdef uint64_t held = load(row)
    cdef uint32_t number = <uint32_t> (held >> 32) + 1
    cdef uint32_t count = count_of(held)
    if (number & NUMBER) == ((word >> 32) & NUMBER):
        count = count - 1 if word >> 52 & 1 else count + 1
        swap(row, held, <uint64_t> number << 32 | count)

cdef inline bint change(char *base, uint32_t record, uint32_t slot, bint down, uint32_t limit, Trap *trap) noexcept nogil:
    # One more connection (`down` 0), or one less; False when `limit` (0: none) is reached or none is held.
    cdef uint64_t *conns = &hot_at(base, record).conns
    cdef uint64_t *row = held_at(base, slot, record)
    cdef uint64_t word, held, tag
    cdef uint32_t number, count
    while True:
        word = load(conns)
        settle(base, record, word)
        held = load(row)
        number = <uint32_t> (held >> 32) + 1
        if down:
            if count_of(held) == 0:
                return False
            count = count_of(word) - 1
        else:
            if limit and count_of(word) >= limit:
                return False
            count = count_of(word) + 1
        tag = <uint64_t> slot << 53 | <uint64_t> down << 52 | <uint64_t> (number & NUMBER) << 32
        step(trap)
        if swap(conns, word, tag | count):
            step(trap)
            settle(base, record, tag | count)
            step(trap)
            return True
