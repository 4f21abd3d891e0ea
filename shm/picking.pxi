# Which peer may be used, whose turn it is, and taking it: ngx_http_upstream_get_peer() over an array of records.
#
# Rules: `usable` is the one rule of eligibility, but for `tried`, which is the request's own. `choose` is called under
# the group's lock, or with running values of the process's own; `claim` decides alone, by compare-and-swap, so it may
# be called without the lock.

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

cdef inline bint usable(Hot *hot, int64_t now) noexcept nogil:
    return load32(&hot.flags) == 0 and not banned(hot, now) and has_room(hot)

cdef inline int choose(Hot **peers, int64_t *own, int start, int end, const char *tried, int64_t now,
                       Trap *trap) noexcept nogil:
    # Smooth weighted round robin: every eligible peer gains its effective weight, the richest pays for all. Its index,
    # or -1. `own`: NULL under the lock, else the running values to work on, and nothing shared is written.
    cdef int i, best = -1
    cdef int64_t total = 0, most = 0, current
    cdef Hot *hot
    for i in range(start, end):
        hot = peers[i]
        if (tried != NULL and tried[i]) or not usable(hot, now):
            continue
        total += hot.effective
        if own == NULL:
            current = hot.current = hot.current + hot.effective
            step(trap)
            if hot.effective < hot.weight:
                hot.effective += 1
        else:
            current = own[i] = own[i] + hot.effective
        if best < 0 or current > most:
            best = i
            most = current
    if best >= 0:
        step(trap)
        if own == NULL:
            peers[best].current -= total
        else:
            own[best] -= total
    return best

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
