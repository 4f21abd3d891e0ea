# A process-shared robust mutex, taken with a bounded wait.
#
# Rules: a holder that dies leaves the lock to the next taker, which is told so (ORPHAN), repairs what the lock
# guards and goes on. A holder that is stopped costs each other process one wait of 5 ms: who has waited in vain only
# tries, until the lock has been taken once more by anybody. Nothing waits, logs or does I/O while holding one.

from libc.stdint cimport uint64_t

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_mutexattr_t:
        pass
    int PTHREAD_PROCESS_SHARED
    int PTHREAD_MUTEX_ROBUST
    int pthread_mutexattr_init(pthread_mutexattr_t *)
    int pthread_mutexattr_setpshared(pthread_mutexattr_t *, int)
    int pthread_mutexattr_setrobust(pthread_mutexattr_t *, int)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *)
    int pthread_mutex_init(pthread_mutex_t *, const pthread_mutexattr_t *)
    int pthread_mutex_trylock(pthread_mutex_t *)
    int pthread_mutex_clocklock(pthread_mutex_t *, int, const timespec *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_consistent(pthread_mutex_t *)

cdef extern from "<errno.h>" nogil:
    int EBUSY, EOWNERDEAD, ETIMEDOUT

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define hg_pause() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define hg_pause() __asm__ volatile("yield")
    #else
    #define hg_pause() __asm__ volatile("" ::: "memory")
    #endif
    """
    void hg_pause() noexcept nogil

cdef enum:
    BUSY = 0     # not taken: the wait is over, or the lock is beyond repair
    TAKEN = 1
    ORPHAN = 2   # taken from a dead holder: repair, then lock_repaired()

cdef enum:
    WAIT_NS = 5_000_000
    SPINS = 64   # about as long as a critical section over a few peers

cdef struct LockState:
    pthread_mutex_t mutex
    uint64_t turns  # how often it was taken, and one

cdef union LockLine:
    LockState state
    char[64] line

cdef inline int lock_init(LockLine *lock) noexcept nogil:
    # Returns an errno, 0 when all is well.
    cdef pthread_mutexattr_t attr
    cdef int rc
    rc = pthread_mutexattr_init(&attr)
    if rc == 0:
        rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED)
        if rc == 0:
            rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST)
        if rc == 0:
            rc = pthread_mutex_init(&lock.state.mutex, &attr)
            lock.state.turns = 1
        pthread_mutexattr_destroy(&attr)
    return rc

cdef inline int lock_take(LockLine *lock, uint64_t *stuck) noexcept nogil:
    # `stuck` is the caller's own memory: the turn of the lock for which it has waited in vain, or 0.
    cdef pthread_mutex_t *mutex = &lock.state.mutex
    cdef timespec until
    cdef int spins = SPINS, rc = pthread_mutex_trylock(mutex)
    while rc == EBUSY and spins:
        hg_pause()
        rc = pthread_mutex_trylock(mutex)
        spins -= 1
    if rc == EBUSY and lock.state.turns != stuck[0]:
        clock_gettime(CLOCK_MONOTONIC, &until)
        until.tv_nsec += WAIT_NS
        if until.tv_nsec >= 1_000_000_000:
            until.tv_nsec -= 1_000_000_000
            until.tv_sec += 1
        rc = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until)
        if rc == ETIMEDOUT:
            stuck[0] = lock.state.turns
    if rc != 0 and rc != EOWNERDEAD:
        return BUSY
    lock.state.turns += 1
    return TAKEN if rc == 0 else ORPHAN

cdef inline void lock_repaired(LockLine *lock) noexcept nogil:
    pthread_mutex_consistent(&lock.state.mutex)

cdef inline void lock_free(LockLine *lock) noexcept nogil:
    pthread_mutex_unlock(&lock.state.mutex)
