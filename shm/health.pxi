# What active checks have found of a peer, as its record holds it.
#
# Rules: a check's state is a word that changes under the group's lock; the flags of eligibility follow from the states
# of all checks of the peer: one that fails is enough. Checks are known by an id of what was configured, so a reload
# keeps the state of those that stay, and what a worker of the past finds out about others is nothing.

from libc.string cimport memset

cdef enum:
    # Check.state
    UNKNOWN = 0     # not checked yet, and used
    UP = 1
    DOWN_STATE = 2
    PENDING = 3     # mandatory, and not passed yet

cdef void show_health(Hot *hot, Cold *cold) noexcept nogil:
    # The flags that the states stand for; set before others are cleared, so that the peer is never wrongly eligible.
    cdef uint32_t flags = 0
    cdef int k
    for k in range(CHECKS):
        if cold.checks[k].id:
            if cold.checks[k].state == DOWN_STATE:
                flags |= UNHEALTHY
            elif cold.checks[k].state == PENDING:
                flags |= CHECKING
    set_bits(&hot.flags, flags)
    clear_bits(&hot.flags, ~((UNHEALTHY | CHECKING) & ~flags))

cdef int arrange(Hot *hot, Cold *cold, tuple checks) except -1:
    # The checks of a configuration that is taken: known ones keep what they have found. A mandatory one that is not
    # persistent must be passed anew.
    cdef Check[CHECKS] new
    cdef int k, old
    if len(checks) > CHECKS:
        raise ValueError(f"a peer has at most {CHECKS} health checks, not {len(checks)}")
    memset(new, 0, sizeof(new))
    for k, (number, mandatory, persistent) in enumerate(checks):
        new[k].id = number
        for old in range(CHECKS):
            if cold.checks[old].id == new[k].id:
                new[k] = cold.checks[old]
        if mandatory and (new[k].state == UNKNOWN or (new[k].state == UP and not persistent)):
            new[k].state = PENDING
        elif not mandatory and new[k].state == PENDING:
            new[k].state = UNKNOWN
    for k in range(CHECKS):
        cold.checks[k] = new[k]
    show_health(hot, cold)
    return 0

cdef str health_of(uint32_t flags, Cold *cold):
    cdef int k
    cdef bint any = False, up = True
    for k in range(CHECKS):
        if cold.checks[k].id:
            any = True
            up = up and cold.checks[k].state == UP
    if not any:
        return ""
    if flags & UNHEALTHY:
        return "down"
    if flags & CHECKING:
        return "checking"
    return "up" if up else "unknown"

cdef inline void forget_ejection(Hot *hot, Cold *cold) noexcept nogil:
    cold.ejected_until = 0
    cold.ejections = 0
    store(&cold.consecutive, 0)
    clear_bits(&hot.flags, ~<uint32_t> EJECTED)
