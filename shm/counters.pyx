# cython: boundscheck=False, wraparound=False
"""The counters of the workers' client side, in shared memory, for status pages.

Rules: a worker writes its own row (one cache line) and nobody else's, so no lock and no atomics are needed; sums are
taken by whoever asks. A row's totals outlive its worker: they stay in the row, and its next owner adds to them.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer, PyBuffer_Release
from libc.stdint cimport int64_t

from headgate.shm.segment import Segment
from headgate.shm.state import CounterState


cdef struct Row:
    int64_t pid         # 0: free, -1: claimed for a process that is not forked yet
    int64_t accepted    # totals
    int64_t handled
    int64_t requests
    int64_t active      # at this moment
    int64_t reading
    int64_t writing
    int64_t waiting


cdef struct Head:
    int64_t used        # rows that were ever claimed: what lies beyond was never touched
    int64_t[7] spare


assert sizeof(Row) == 64 and sizeof(Head) == 64


cdef class CounterRow:
    """One worker's counters; plain attributes, of which nginx's stub_status explains the meaning.

    `accepted`, `handled` and `requests` only grow; `active`, `reading`, `writing` and `waiting` say what is now.
    """

    cdef Py_buffer view
    cdef Row *row

    def __cinit__(self, buffer, int slot):
        PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
        if not 0 <= slot < (<Head *> self.view.buf).used:
            raise ValueError(f"row {slot} of the counters is not claimed")
        self.row = <Row *> (<Head *> self.view.buf + 1) + slot

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    @property
    def accepted(self) -> int:
        return self.row.accepted

    @accepted.setter
    def accepted(self, int64_t value):
        self.row.accepted = value

    @property
    def handled(self) -> int:
        return self.row.handled

    @handled.setter
    def handled(self, int64_t value):
        self.row.handled = value

    @property
    def requests(self) -> int:
        return self.row.requests

    @requests.setter
    def requests(self, int64_t value):
        self.row.requests = value

    @property
    def active(self) -> int:
        return self.row.active

    @active.setter
    def active(self, int64_t value):
        self.row.active = value

    @property
    def reading(self) -> int:
        return self.row.reading

    @reading.setter
    def reading(self, int64_t value):
        self.row.reading = value

    @property
    def writing(self) -> int:
        return self.row.writing

    @writing.setter
    def writing(self, int64_t value):
        self.row.writing = value

    @property
    def waiting(self) -> int:
        return self.row.waiting

    @waiting.setter
    def waiting(self, int64_t value):
        self.row.waiting = value


cdef class Counters:
    """The rows of `slots` workers, old and new generations together, in a segment of their own.

    Raises OSError when the system refuses the memory.
    """

    cdef readonly int slots
    cdef readonly object segment
    cdef Py_buffer view
    cdef Head *head
    cdef Row *rows

    def __cinit__(self, int slots=1024):
        if slots < 1:
            raise ValueError(f"there must be a row for a worker, not {slots}")
        self.slots = slots
        self.segment = Segment.create(sizeof(Head) + slots * sizeof(Row))
        PyObject_GetBuffer(self.segment.map, &self.view, PyBUF_WRITABLE)
        self.head = <Head *> self.view.buf
        self.rows = <Row *> (self.head + 1)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def claim(self, int64_t pid=0) -> int:
        """Index of the first free row, now the worker's; IndexError when there is none."""
        cdef int i
        for i in range(self.slots):
            if self.rows[i].pid == 0:
                self.rows[i].pid = pid if pid else -1
                self.head.used = max(self.head.used, i + 1)
                return i
        raise IndexError("no free row of counters")

    def release(self, int slot) -> None:
        """Frees the row of a worker that is gone; what it was doing is over, its totals stay."""
        if not 0 <= slot < self.head.used:
            raise ValueError(f"row {slot} of the counters is not claimed")
        cdef Row *row = &self.rows[slot]
        row.active = row.reading = row.writing = row.waiting = 0
        row.pid = 0

    def row(self, int slot) -> CounterRow:
        """The row of a worker, for itself to write to."""
        return CounterRow(self.segment.map, slot)

    def sum(self) -> CounterState:
        """All workers together, those that are gone included."""
        cdef int i
        cdef Row all
        cdef Row *row
        all.accepted = all.handled = all.requests = all.active = all.reading = all.writing = all.waiting = 0
        for i in range(self.head.used):
            row = &self.rows[i]
            all.accepted += row.accepted
            all.handled += row.handled
            all.requests += row.requests
            all.active += row.active
            all.reading += row.reading
            all.writing += row.writing
            all.waiting += row.waiting
        return CounterState(all.accepted, all.handled, all.requests, all.active, all.reading, all.writing, all.waiting)
