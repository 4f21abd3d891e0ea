"""`open_log_file_cache`: files that an access log's variables name stay open for a while.

Each process has its own: it fills after the fork. A file is looked at by name every `valid` seconds, and opened anew
when another has taken its place; what nobody has written to for `inactive` seconds, and the longest unused of more
than `max`, is closed.
"""

import contextlib
import os
import time
from dataclasses import dataclass, field

from headgate.conf import slots
from headgate.conf.directive import Call
from headgate.masterd.logfile import LogFile

FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC


def open_log(path: bytes) -> LogFile:
    """A file to append to, made when it is not there. Raises OSError."""
    return LogFile("", os.open(path, FLAGS, 0o644))


@dataclass(slots=True)
class _Entry:
    uses: int
    used: float
    checked: float = 0.0
    file: LogFile | None = None  # None until it was used `min_uses` times

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


@dataclass(slots=True)
class LogCache:
    """`most` files at a time; times in seconds."""

    most: int = 0
    inactive: float = 10.0
    min_uses: int = 1
    valid: float = 60.0
    entries: dict[bytes, _Entry] = field(default_factory=dict)  # the longest unused first

    def write(self, path: bytes, line: bytes) -> None:
        """Append a line. Raises OSError when the file cannot be opened."""
        now = time.monotonic()
        entry = self.entries.pop(path, None)  # gone when the file cannot be opened
        if entry is None:
            entry = _Entry(0, now)
        elif entry.file is not None and now - entry.checked >= self.valid:
            entry.checked = now
            if not _same(entry.file.fd, path):
                entry.close()
        file = entry.file or open_log(path)
        file.write(line)
        entry.uses += 1
        entry.used = now
        if entry.file is None and entry.uses >= self.min_uses:
            entry.file, entry.checked = file, now
        elif entry.file is None:
            file.close()
        self._expire(now)
        self.entries[path] = entry

    def _expire(self, now: float) -> None:
        for path, entry in list(self.entries.items()):
            if now - entry.used < self.inactive and len(self.entries) < self.most:
                break
            entry.close()
            del self.entries[path]


def _same(fd: int, path: bytes) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False


def parse(call: Call) -> LogCache | None:
    """`max=N [inactive=TIME] [min_uses=N] [valid=TIME]`, or `off`."""
    made = LogCache()
    for word in call.args:
        name, mark, value = word.partition("=")
        number = int(value) if value.isascii() and value.isdigit() else None
        seconds = slots.parse_time(value, msec=False)
        if mark and name == "max" and number is not None:
            made.most = number
        elif mark and name == "min_uses" and number is not None:
            made.min_uses = number
        elif mark and name == "inactive" and seconds is not None:
            made.inactive = seconds
        elif mark and name == "valid" and seconds is not None:
            made.valid = seconds
        elif word != "off":
            raise call.error_at(f'invalid "open_log_file_cache" parameter "{word}"')
    if "off" in call.args:
        return None
    if not made.most:
        raise call.error_at('"open_log_file_cache" must have "max" parameter')
    return made
