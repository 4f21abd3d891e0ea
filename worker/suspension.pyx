"""A bare suspension point: `await Suspension()` gives control back to whoever stepped the coroutine, once."""


cdef class Suspension:
    cdef bint over

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.over:
            raise StopIteration
        self.over = True
