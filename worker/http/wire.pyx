# cython: boundscheck=False, wraparound=False
"""The inner loops of the HTTP/1 wire format: a usual head split, a head put together (sans-IO).

A head is usual when it begins the data, is complete, and is written as nearly all are: a known method, a path, HTTP/1.0
or 1.1, every line ended by CR LF, field names of letters, digits and "-", no control bytes in values, no folded lines.
Of every other head nothing is said here (None); httptools and the readers judge it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy

cdef enum:
    NAMES = 512      # the spellings of names that are kept; a power of two
    LONGEST = 64     # bytes of a name worth keeping

ctypedef const unsigned char *Text

cdef bytes _GET = b"GET", _HEAD = b"HEAD", _POST = b"POST"
cdef tuple _METHODS = (_GET, _HEAD, _POST, b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
cdef list _names = [b""] * NAMES

cdef unsigned char _in_name[256]
cdef unsigned char _in_value[256]
cdef unsigned char _in_target[256]


cdef void _fill_tables():
    cdef int c
    for c in range(256):
        _in_name[c] = c == 45 or 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122
        _in_value[c] = c == 9 or (c >= 32 and c != 127)
        _in_target[c] = 33 <= c <= 126


_fill_tables()


cdef inline bytes _text(Text start, Text end):
    return PyBytes_FromStringAndSize(<const char *> start, end - start)


cdef inline bytes _name(Text start, Text end):
    # The same few names come with every head: one object for each spelling saves making it, and its hash is known.
    cdef Py_ssize_t size = end - start
    cdef Py_ssize_t at = (size * 37 + start[0] * 11 + start[size // 2] * 5 + (end - 1)[0]) & (NAMES - 1)
    cdef bytes kept = <bytes> _names[at]
    if PyBytes_GET_SIZE(kept) == size and memcmp(PyBytes_AS_STRING(kept), start, size) == 0:
        return kept
    kept = _text(start, end)
    if size <= LONGEST:
        _names[at] = kept
    return kept


cdef inline bint _is_text(Text at, Text end):
    # No early way out, so that the compiler can look at many bytes at once.
    cdef bint bad = 0
    while at < end:
        bad |= (at[0] < 32 and at[0] != 9) or at[0] == 127
        at += 1
    return not bad


cdef list _fields(Text at, Text end, Text *after):
    # Field lines from `at` up to and with the empty line; `after` is what follows it. None: not usual, or not whole.
    cdef list out = []
    cdef Text start, stop, value, end_of_value
    while end - at >= 2:
        if at[0] == 13:
            if at[1] != 10:
                return None
            after[0] = at + 2
            return out
        start = at
        while at < end and _in_name[at[0]]:
            at += 1
        if at == end or at[0] != 58 or at == start:
            return None
        stop = at
        at += 1
        while at < end and (at[0] == 32 or at[0] == 9):
            at += 1
        value = at
        at = <Text> memchr(value, 13, end - value)
        if at == NULL or end - at < 2 or at[1] != 10 or not _is_text(value, at):
            return None
        end_of_value = at
        at += 2
        while end_of_value > value and ((end_of_value - 1)[0] == 32 or (end_of_value - 1)[0] == 9):
            end_of_value -= 1
        out.append((_name(start, stop), _text(value, end_of_value)))
    return None


cpdef tuple split_request(bytes data):
    """A usual request head at the start of `data` -> (bytes taken, method, target, version, fields), else None."""
    cdef Text at = <Text> PyBytes_AS_STRING(data), begin = at, end = at + PyBytes_GET_SIZE(data), start
    cdef bytes method, target
    cdef list fields
    cdef int version
    for method in _METHODS:
        size = PyBytes_GET_SIZE(method)
        if end - at > size and at[size] == 32 and memcmp(at, PyBytes_AS_STRING(method), size) == 0:
            break
    else:
        return None
    at += size + 1
    start = at
    if at == end or at[0] != 47:
        return None
    while at < end and _in_target[at[0]]:
        at += 1
    if end - at < 11 or memcmp(at, b" HTTP/1.", 8) != 0 or at[9] != 13 or at[10] != 10:
        return None
    if at[8] == 49:
        version = 11
    elif at[8] == 48:
        version = 10
    else:
        return None
    target = _text(start, at)
    fields = _fields(at + 11, end, &at)
    if fields is None:
        return None
    return at - begin, method, target, version, fields


cpdef tuple split_response(bytes data):
    """A usual response head -> (bytes taken, status, `200 OK` as it was written, version, fields), else None."""
    cdef Text at = <Text> PyBytes_AS_STRING(data), begin = at, end = at + PyBytes_GET_SIZE(data), start
    cdef list fields
    cdef bytes reason
    cdef int status, version
    if end - at < 15 or memcmp(at, b"HTTP/1.", 7) != 0 or at[8] != 32 or at[12] != 32:
        return None
    version = at[7] - 38  # "0" is 10, "1" is 11
    if version != 11 and version != 10:
        return None
    at += 9
    if not (49 <= at[0] <= 57 and 48 <= at[1] <= 57 and 48 <= at[2] <= 57):
        return None
    status = (at[0] - 48) * 100 + (at[1] - 48) * 10 + at[2] - 48
    start = at
    while at < end and _in_value[at[0]]:
        at += 1
    if end - at < 2 or at[0] != 13 or at[1] != 10:
        return None
    reason = _name(start, at)
    fields = _fields(at + 2, end, &at)
    if fields is None:
        return None
    return at - begin, status, reason, version, fields


cpdef int64_t decimal(bytes text):
    """A number of 1 to 18 digits; -1 for anything else."""
    cdef Text at = <Text> PyBytes_AS_STRING(text)
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(text)
    cdef int64_t number = 0
    if not 0 < size <= 18:
        return -1
    for i in range(size):
        if not 48 <= at[i] <= 57:
            return -1
        number = number * 10 + at[i] - 48
    return number


cpdef list without(list fields, set names):
    """The fields whose names, as they are spelled, are not in the set."""
    cdef list out = []
    cdef tuple field
    for field in fields:
        if field[0] not in names:
            out.append(field)
    return out


cpdef list select(list fields, dict kept):
    """The fields whose names `kept` says True of; None when it does not know one of them."""
    cdef list out = []
    cdef tuple field
    cdef PyObject *known
    for field in fields:
        known = PyDict_GetItem(kept, field[0])
        if known == NULL:
            return None
        if <object> known is True:
            out.append(field)
    return out


cpdef bytes join_head(bytes start, list lines, list fields):
    """A head: the start line, lines as they are, fields as `name: value`, and the empty line."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(start) + 4
    cdef bytes line, out
    cdef tuple field
    cdef char *at
    for line in lines:
        size += PyBytes_GET_SIZE(line) + 2
    for field in fields:
        size += PyBytes_GET_SIZE(<bytes?> field[0]) + PyBytes_GET_SIZE(<bytes?> field[1]) + 4
    out = PyBytes_FromStringAndSize(NULL, size)
    at = _put(PyBytes_AS_STRING(out), start)
    for line in lines:
        at = _put(_break(at), line)
    for field in fields:
        at = _put(_break(at), <bytes> field[0])
        at[0] = 58
        at[1] = 32
        at = _put(at + 2, <bytes> field[1])
    _break(_break(at))
    return out


cdef inline char *_put(char *at, bytes text):
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef inline char *_break(char *at):
    at[0] = 13
    at[1] = 10
    return at + 2
