"""The values of a text's parts put together, for every request that needs the text."""


cdef class Joiner:
    """`parts` are bytes, and functions of the request that give bytes, or None for nothing."""

    cdef tuple parts
    cdef object only

    def __init__(self, tuple parts):
        self.parts = parts
        self.only = parts[0] if len(parts) == 1 else None

    def get(self, request) -> bytes:
        cdef list values
        if self.only is not None:
            value = self.only(request)
            return b"" if value is None else value
        values = []
        for part in self.parts:
            value = part if type(part) is bytes else part(request)
            if value is not None:
                values.append(value)
        return b"".join(values)
