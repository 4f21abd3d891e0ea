"""The robust lock of lock.pxi, for use from Python.

Rules: what stands under `with lock:` neither awaits nor logs nor does I/O, and leaves what the lock guards valid at
every step, or gives a `repair` that makes it so.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer, PyBuffer_Release

include "lock.pxi"


cdef class Lock:
    """The lock in the 64 bytes of `buffer` at `offset`, made there when `create` is given.

    `with lock:` holds it. Raises TimeoutError when another process keeps it for more than 5 ms, and then at once
    for as long as nobody gets it. `repair` is called, under the lock, when its last holder died.
    The lock is not reentrant: a process that takes it twice gets the TimeoutError too.
    """

    cdef Py_buffer view
    cdef LockLine *line
    cdef uint64_t stuck
    cdef object repair

    def __cinit__(self, buffer, Py_ssize_t offset, *, bint create=False, repair=None):
        cdef int rc
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
        if offset < 0 or offset % 8 or offset + <Py_ssize_t> sizeof(LockLine) > self.view.len:
            raise ValueError(f"no lock can stand at offset {offset}")
        self.line = <LockLine *> (<char *> self.view.buf + offset)
        self.repair = repair
        if create:
            rc = lock_init(self.line)
            if rc:
                raise OSError(rc, "pthread_mutex_init() failed")

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def __enter__(self) -> None:
        cdef int got = lock_take(self.line, &self.stuck)
        if got == BUSY:
            raise TimeoutError("another process keeps the lock")
        if got == ORPHAN:
            # A repair that raises leaves the lock unusable for all, rather than its data broken for all.
            try:
                if self.repair is not None:
                    self.repair()
                lock_repaired(self.line)
            except BaseException:
                lock_free(self.line)
                raise

    def __exit__(self, *exc: object) -> None:
        lock_free(self.line)
