# The one table of fields and offsets of a zone's segment.
#
# Rules: every field is aligned to its size and at most 8 bytes wide, so that no read tears. What picking reads of
# a peer is one cache line (Hot), and these lines lie side by side, so that a scan is a run through memory. A
# worker's own rows share no cache line with another worker's. A table's virtual size is generous and costs
# nothing: only pages that were written exist. Fields are added in spare words; any other change changes LAYOUT.
#
#   Header | Group x GROUPS | Hot x RECORDS | Cold x RECORDS | Slot x MAX_SLOTS | (held | flight | waiting) x slots
#
# held and flight are a word for each record, waiting three for each group. Times are milliseconds of CLOCK_MONOTONIC; 0 means never.

from libc.stdint cimport int64_t, uint32_t, uint64_t

include "lock.pxi"

cdef enum:
    LAYOUT = 3
    PAGE = 4096
    GROUPS = 4096
    RECORDS = 32768
    MAX_SLOTS = 2048  # as many as a conns word can name

cdef enum:
    # Hot.flags
    DOWN = 1
    DRAIN = 2       # told so at run time; a reload keeps it
    DRAINING = 4    # configured so
    UNHEALTHY = 8   # a health check says so
    CHECKING = 16   # a mandatory health check was not passed yet
    EJECTED = 32    # an outlier, while its ejection is in force
    AWAY = 0xFF     # any of these keeps new requests away
    LASTING = 7     # those of them that only a command changes
    RAMPING = 256   # its weight grows: slow_start

cdef struct Key:
    # A digest of the names; zero where the entry is free.
    uint64_t first
    uint64_t second

cdef struct Header:
    # One page.
    uint64_t magic
    uint32_t layout
    uint32_t slots
    uint64_t generation     # the one last committed
    uint32_t groups_used    # high-water marks: what lies beyond was never touched
    uint32_t records_used
    uint32_t slots_used
    uint32_t reserved
    uint64_t[3] spare
    LockLine lock           # guards the allocation of groups and records

cdef struct Group:
    # 128 bytes, one for each upstream.
    LockLine lock           # guards what its peers' records hold, but for conns, averages and counters
    Key key
    uint64_t version        # changes when a nominal weight does
    uint64_t ticket         # the last one that a queued request has drawn
    uint64_t prober         # who checks its peers' health: slot and 1 16 | when that was last renewed 48; 0: nobody
    int64_t swept           # when outliers were last looked for
    uint64_t overflows      # retries that the budget did not allow
    uint64_t[1] spare

cdef struct Hot:
    # 64 bytes, one for each peer.
    int64_t current         # smooth weighted round robin's running value, in 1,024ths
    int64_t effective       # weight, less what failures have cost
    int64_t weight          # 0: not committed yet
    int64_t checked         # start of the running fail_timeout window
    int64_t fail_timeout
    uint64_t conns          # a tagged count, see conns.pxi
    uint32_t max_conns      # 0: no limit
    uint32_t fails
    uint32_t max_fails      # 0: failures do not count
    uint32_t flags

cdef enum:
    CHECKS = 4  # health checks of one group

cdef struct Check:
    # What one health check has found of a peer.
    uint32_t id             # of its configuration; 0: no such check
    uint32_t state          # see health.pxi
    uint32_t fails          # in a row
    uint32_t passes
    int64_t checked         # last time

cdef struct Cold:
    # 448 bytes, one for each peer.
    Key key
    int64_t accessed        # last failure
    int64_t slow_start      # length
    int64_t slow_started    # 0: not under way
    int64_t flight_ms       # average time of the requests under way, as of the last pick
    uint64_t[2] spare
    uint64_t requests       # from here atomics, without the lock
    uint64_t failed
    uint64_t[5] responses   # 1xx to 5xx
    uint64_t last_ms
    uint64_t total_ms       # of all noted responses
    uint64_t bytes_in       # from the peer
    uint64_t bytes_out      # to the peer
    uint64_t header_ms      # exponential averages of nginx's least_time; 0: none yet
    uint64_t response_ms
    uint64_t peak           # peak_ewma: float of ms 32 | stamp 32, see timing.pxi
    uint64_t[2] spare_counters
    uint64_t consecutive    # failures in a row, for outlier ejection, see outliers.pxi
    uint64_t window_total   # responses since the last sweep, of these the good ones and their time
    uint64_t window_good
    uint64_t window_us
    int64_t ejected_until   # 0: not ejected
    uint64_t ejections      # by how many times the base time is multiplied
    uint64_t ejected        # how often in all
    Check[CHECKS] checks
    uint64_t[13] later

cdef struct Slot:
    # 64 bytes, one for each worker of any generation.
    int64_t pid             # 0: free, -1: claimed for a process that is not forked yet
    int64_t started
    int64_t heartbeat
    uint64_t generation     # the committed one when the slot was claimed
    uint64_t[4] spare

cdef inline Header *header_at(char *base) noexcept nogil:
    return <Header *> base

cdef inline Group *group_at(char *base, uint32_t index) noexcept nogil:
    return <Group *> (base + PAGE) + index

cdef inline Hot *hot_at(char *base, uint32_t index) noexcept nogil:
    return <Hot *> (base + PAGE + GROUPS * sizeof(Group)) + index

cdef inline Cold *cold_at(char *base, uint32_t index) noexcept nogil:
    return <Cold *> hot_at(base, RECORDS) + index

cdef inline Slot *slot_at(char *base, uint32_t index) noexcept nogil:
    return <Slot *> cold_at(base, RECORDS) + index

cdef struct Waiting:
    # What one worker has of one group: its queue, its retries.
    uint64_t first          # the oldest ticket; 0: nobody waits
    uint64_t count
    uint64_t retries        # requests that are at their second server, or a further one

cdef struct SlotRows:
    # What belongs to a slot alone.
    uint64_t[RECORDS] held      # connections, see conns.pxi
    uint64_t[RECORDS] flight    # requests whose end least_time waits for, see timing.pxi
    Waiting[GROUPS] waiting

cdef inline SlotRows *rows_at(char *base, uint32_t slot) noexcept nogil:
    return <SlotRows *> slot_at(base, MAX_SLOTS) + slot

cdef inline uint64_t *held_at(char *base, uint32_t slot, uint32_t record) noexcept nogil:
    return &rows_at(base, slot).held[record]
