"""capabilities(7) of a worker that gives up the super-user's rights but binds foreign addresses."""

import ctypes
import os
import struct

_PR_SET_KEEPCAPS = 8
_VERSION_3 = 0x20080522  # two words a set
_CAP_NET_RAW = 13
_libc = ctypes.CDLL(None, use_errno=True)


def keep() -> None:
    """The next change of the user leaves the permitted capabilities as they are. Raises OSError."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))


def net_raw_only() -> None:
    """Have CAP_NET_RAW and no other capability. Raises OSError."""
    mask = 1 << _CAP_NET_RAW
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(struct.pack("=6I", mask, mask, 0, 0, 0, 0), 24)
    _check(_libc.capset(header, data))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
