"""Stepping a coroutine by hand: what it awaits to stop, and going on with it."""

from cpython.ref cimport Py_DECREF, PyObject

cdef extern from *:
    """
    static int hg_send(PyObject *coroutine, PyObject **result) {
        return PyIter_Send(coroutine, Py_None, result);  /* 1: it awaits `result`; 0: it has returned it; -1: error */
    }
    """
    int hg_send(object coroutine, PyObject **result) except -1

ENDED = object()


cdef class Suspension:
    """`await Suspension()` gives control back to whoever stepped the coroutine, once."""

    cdef bint over

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.over:
            raise StopIteration
        self.over = True


def step(coroutine):
    """Go on with a coroutine: None when it awaits a Suspension, the Future that it awaits, or ENDED.

    As `coroutine.send(None)`, but its end is no exception: making one costs more than the step.
    """
    cdef PyObject *result = NULL
    cdef bint awaits = hg_send(coroutine, &result)
    cdef object awaited = <object> result
    Py_DECREF(awaited)  # one reference came with it
    return awaited if awaits else ENDED
