"""`proxy_ssl_certificate_cache`: certificates and keys whose names have variables, kept for a while in each worker.

At most `max` of them; one not used for `inactive` seconds goes, one older than `valid` seconds is read again if its
file has changed. Keys that need a password are never kept.
"""

import os
import time

from headgate.worker.tls.context import Pem, read_pem


class _Item:
    __slots__ = ("accessed", "created", "pem", "stamp")

    def __init__(self, pem: Pem, stamp: tuple[int, int], now: float) -> None:
        self.pem = pem
        self.stamp = stamp
        self.created = self.accessed = now


class CertificateCache:
    """The files of one directive. Times in seconds."""

    __slots__ = ("_items", "inactive", "max", "valid")

    def __init__(self, max: int, inactive: float, valid: float) -> None:
        self.max = max
        self.inactive = inactive
        self.valid = valid
        self._items: dict[tuple[str, str], _Item] = {}  # the least recently used first

    def get(self, path: str, what: str, fresh: bool = False) -> Pem:
        """The file at `path`, as a "certificate" or a "certificate key"; `fresh`: not from memory. ContextError."""
        now = time.monotonic()
        key = (path, what)
        item = self._items.pop(key, None)
        if item is not None and not fresh:
            if now - item.created > self.valid:
                if item.stamp != _stamp(path):
                    item = None
                else:
                    item.created = now
            if item is not None:
                item.accessed = now
                self._items[key] = item
                return item.pem
        stamp = _stamp(path)
        pem = read_pem(path, what)
        if not pem.encrypted:
            self._make_room(now)
            self._items[key] = _Item(pem, stamp, now)
        return pem

    def _make_room(self, now: float) -> None:
        while len(self._items) >= self.max:
            del self._items[next(iter(self._items))]
        for key in [key for key, item in self._items.items() if now - item.accessed > self.inactive]:
            del self._items[key]


def _stamp(path: str) -> tuple[int, int]:
    """What changes when a file is replaced or written."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
