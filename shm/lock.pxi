# A process-shared robust mutex, taken with a bounded wait.
#
# Rules: a holder that dies leaves the lock to the next taker, which is told so (ORPHAN), repairs what the lock
# guards and goes on. A holder that is stopped costs each other process one wait of 5 ms; from then on it only
# tries, until it gets the lock again. Nothing waits, logs or does I/O while holding one.

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

cdef union LockLine:
    pthread_mutex_t mutex
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
            rc = pthread_mutex_init(&lock.mutex, &attr)
        pthread_mutexattr_destroy(&attr)
    return rc

cdef inline int lock_take(LockLine *lock, bint *suspect) noexcept nogil:
    # `suspect` is the caller's own memory of a wait in vain.
    cdef timespec until
    cdef int spin, rc = pthread_mutex_trylock(&lock.mutex)
    if rc == EBUSY and not suspect[0]:
        for spin in range(SPINS):
            hg_pause()
            rc = pthread_mutex_trylock(&lock.mutex)
            if rc != EBUSY:
                break
        else:
            clock_gettime(CLOCK_MONOTONIC, &until)
            until.tv_nsec += WAIT_NS
            if until.tv_nsec >= 1_000_000_000:
                until.tv_nsec -= 1_000_000_000
                until.tv_sec += 1
            rc = pthread_mutex_clocklock(&lock.mutex, CLOCK_MONOTONIC, &until)
            suspect[0] = rc == ETIMEDOUT
    if rc == 0:
        suspect[0] = False
        return TAKEN
    if rc == EOWNERDEAD:
        suspect[0] = False
        return ORPHAN
    return BUSY

cdef inline void lock_repaired(LockLine *lock) noexcept nogil:
    pthread_mutex_consistent(&lock.mutex)

cdef inline void lock_free(LockLine *lock) noexcept nogil:
    pthread_mutex_unlock(&lock.mutex)
