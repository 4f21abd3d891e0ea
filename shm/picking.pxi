# Which peer may be used, whose turn it is, and taking it: ngx_http_upstream_get_peer() over an array of records.
#
# Rules: `usable` is the one rule of eligibility, for every balancer, but for `tried`, which is the request's own.
# `choose` is called under the group's lock, or with running values of the process's own; `claim` decides alone, by
# compare-and-swap, so it may be called without the lock.

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC_COARSE

cdef inline int64_t clock_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
    return <int64_t> now.tv_sec * 1000 + now.tv_nsec // 1_000_000

cdef inline bint has_room(Hot *hot) noexcept nogil:
    return hot.max_conns == 0 or count_of(load(&hot.conns)) < hot.max_conns

cdef inline bint banned(Hot *hot, int64_t now) noexcept nogil:
    return (hot.max_fails != 0 and load32(&hot.fails) >= hot.max_fails
            and now - load_time(&hot.checked) <= hot.fail_timeout)

cdef inline bint usable(Hot *hot, uint32_t away, int64_t now) noexcept nogil:
    # `away`: the flags that keep this request away, AWAY for all but a sticky one.
    return load32(&hot.flags) & away == 0 and not banned(hot, now) and has_room(hot)

cdef inline Cold *cold_of(char *base, Hot *hot) noexcept nogil:
    return cold_at(base, <uint32_t> (hot - hot_at(base, 0)))

cdef enum:
    UNIT = 10  # running values and weights are counted in 1,024ths, so that a growing weight can be less than 1

cdef inline int64_t grown(char *base, Hot *hot, int64_t weight, int64_t now) noexcept nogil:
    # Of a weight, in 1,024ths, what there is of it: all, or with slow_start the share of its time that is over.
    cdef Cold *cold
    cdef int64_t passed
    weight <<= UNIT
    if load32(&hot.flags) & RAMPING:
        cold = cold_of(base, hot)
        passed = max(0, now - load_time(&cold.slow_started))
        if passed < cold.slow_start:
            return <int64_t> (<double> weight * passed / cold.slow_start)
        clear_bits(&hot.flags, <uint32_t> ~RAMPING)
    return weight

cdef inline int64_t gain(char *base, Hot *hot, int64_t *own, int64_t now, int64_t *total, Trap *trap) noexcept nogil:
    # One peer's part in a turn, which adds to `total`; its running value then. `own` is NULL under the lock, else this
    # process's value, and nothing shared is written but that a slow start is over.
    cdef int64_t gained = grown(base, hot, hot.effective, now)
    total[0] += gained
    if own != NULL:
        own[0] += gained
        return own[0]
    hot.current += gained
    step(trap)
    if hot.effective < hot.weight:
        hot.effective += 1
    return hot.current

cdef inline int choose(char *base, Hot **peers, int64_t *own, int start, int end, int wanted, const char *tried, int64_t now,
                       Trap *trap) noexcept nogil:
    # Smooth weighted round robin: every eligible peer gains its effective weight, the richest, or the one that
    # stickiness wants, pays for all. Its index, or -1.
    cdef int i, best = -1
    cdef int64_t total = 0, most = 0, current
    cdef Hot *hot
    if wanted >= 0 and overdrawn(peers, own, start, end, wanted):
        return wanted
    for i in range(start, end):
        hot = peers[i]
        if (tried != NULL and tried[i]) or not usable(hot, AWAY, now):
            continue
        current = gain(base, hot, NULL if own == NULL else &own[i], now, &total, trap)
        if best < 0 or current > most:
            best = i
            most = current
    if wanted >= 0:
        best = wanted
    if best >= 0:
        step(trap)
        if own == NULL:
            peers[best].current -= total
        else:
            own[best] -= total
    return best

cdef bint overdrawn(Hot **peers, int64_t *own, int start, int end, int wanted) noexcept nogil:
    # A peer that sticky requests have used this much more than its turn does not go further down.
    cdef int i
    cdef int64_t others = -peers[wanted].weight
    for i in range(start, end):
        others += peers[i].weight
    return (peers[wanted].current if own == NULL else own[wanted]) <= -(others << UNIT)

cdef inline bint claim(char *base, uint32_t record, uint32_t slot, int64_t now, bint probing, Trap *trap) noexcept nogil:
    # A connection, and, when the window of `checked` is over, the next one: of several requests that find a failed
    # peer's window over, one wins it and probes the peer.
    cdef Hot *hot = hot_at(base, record)
    cdef int64_t checked
    cdef bint won = False
    if not change(base, record, slot, False, hot.max_conns, trap):
        return False
    if probing:
        checked = load_time(&hot.checked)
        if now - checked > hot.fail_timeout:
            won = swap_time(&hot.checked, checked, now)
        if not won and banned(hot, now):
            change(base, record, slot, True, 0, trap)
            return False
    return True
