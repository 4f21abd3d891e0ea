# For tests: an operation that ends or stops its own process at its n-th step.

from posix.signal cimport kill
from posix.unistd cimport getpid

cdef struct Trap:
    int left
    int signal

cdef inline void step(Trap *trap) noexcept nogil:
    # Production code passes NULL, which the compiler folds away.
    if trap != NULL:
        if trap.left == 0:
            kill(getpid(), trap.signal)
        trap.left -= 1
