"""Log files and nginx's error log lines.

Rules: a path is opened once a cycle (`LogFiles`), in append mode, so that any number of processes may
write to it whole lines at a time; writing never raises and never waits; a level is compared before a
text is made (`ErrorLog.enabled`, or `log.level >= Level.DEBUG` on hot paths).
"""

import contextlib
import enum
import os
import stat
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

MAX_LINE = 2048  # bytes, the line feed included; nginx's NGX_MAX_ERROR_STR
STDERR = 2


class Level(enum.IntEnum):
    """Severities, the smaller the graver."""

    EMERG = 1
    ALERT = 2
    CRIT = 3
    ERROR = 4
    WARN = 5
    NOTICE = 6
    INFO = 7
    DEBUG = 8


_NAMES = ["", *(level.name.lower() for level in Level)]
LEVELS = {level.name.lower(): level for level in Level}
_ESCAPES = {code: f"\\x{code:02X}" for code in (*range(32), 127)}  # a line stays one line


class LogFile:
    """One file that lines are appended to; `fd` changes when the log is reopened.

    `flushers` are called before a reopen and before the end: a writer that buffers puts its own there.
    """

    __slots__ = ("fd", "flushers", "path")

    def __init__(self, path: str, fd: int = -1) -> None:
        self.path = path
        self.fd = fd
        self.flushers: list[Callable[[], None]] = []

    def write(self, data: bytes) -> None:
        """Append; what cannot be written now (full disk, full pipe) is lost."""
        with contextlib.suppress(OSError):
            os.write(self.fd, data)

    def open(self) -> None:
        """Open, or open anew: the name may lead to another file now. Raises OSError, the old one stays."""
        # O_NONBLOCK: neither opening nor writing a FIFO may stop a process
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o644)
        self.close()
        self.fd = fd

    def flush(self) -> None:
        for flush in self.flushers:
            flush()

    def close(self) -> None:
        if self.fd > STDERR:
            os.close(self.fd)
        self.fd = -1


class LogFiles:
    """The log files of one configuration by absolute path; "" is standard error."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files: dict[str, LogFile] = {}

    def __iter__(self) -> Iterator[LogFile]:
        return iter(self._files.values())

    def get(self, path: str) -> LogFile:
        """The file of this path; it is opened with all others by `open()`."""
        if path not in self._files:
            self._files[path] = LogFile(path, STDERR if not path else -1)
        return self._files[path]

    def open(self) -> None:
        """Open all. Raises OSError with the file name; the caller closes."""
        for file in self:
            if file.path:
                file.open()

    def reopen(self, log: "ErrorLog", user: int | None = None) -> None:
        """Open all anew; one that fails stays as it was and is reported.

        `user`: the master gives the files to the workers' user, who reopen them without privileges.
        """
        for file in self:
            file.flush()
            if not file.path:
                continue
            try:
                file.open()
                if user is not None:
                    give(file.path, user, stat.S_IRUSR | stat.S_IWUSR)
            except OSError as error:
                log.emit(Level.EMERG, failed(f'open() "{file.path}"', error))

    def close(self) -> None:
        """Flush and close all; the descriptors of standard error stay."""
        for file in self:
            file.flush()
            file.close()


class LogTarget(NamedTuple):
    """Where the lines of a level and graver ones go: one `error_log` directive."""

    file: LogFile
    level: Level


class ErrorLog:
    """One or more targets; `level` is the highest of theirs.

    Until `console` is cleared (the start is over), a warning or worse also goes to standard error.
    """

    __slots__ = ("level", "targets")
    console = False

    def __init__(self, targets: Iterable[LogTarget]) -> None:
        self.targets = tuple(sorted(targets, key=lambda target: -target.level))
        self.level = int(self.targets[0].level) if self.targets else 0

    def enabled(self, level: int) -> bool:
        """Whether a line of this level would be written anywhere."""
        return level <= self.level

    def emit(self, level: int, message: str, connection: int = 0) -> None:
        """Write `2026/11/20 12:50:43 [error] 123#123: *5 message`; `connection` 0 leaves out its number.

        Bytes off the wire come in a `message` as os.fsdecode() makes them; control characters are escaped.
        """
        if level > self.level:
            return
        number = f"*{connection} " if connection else ""
        text = message if message.isprintable() else message.translate(_ESCAPES)
        line = f"{_clock.text()} [{_NAMES[level]}] {_process.text}: {number}{text}"
        data = line.encode("utf-8", "surrogateescape")[: MAX_LINE - 1] + b"\n"
        shown = False
        for file, limit in self.targets:
            if level > limit:
                break
            file.write(data)
            shown = shown or file.fd == STDERR
        if ErrorLog.console and level <= Level.WARN and not shown:
            say(f"[{_NAMES[level]}] {text}")

    def emit_error(self, level: int, message: str, error: BaseException, connection: int = 0) -> None:
        """`emit`, then the traceback of `error`, each line of it on its own."""
        self.emit(level, message, connection)
        for block in traceback.format_exception(error):
            for line in block.splitlines():
                self.emit(level, line, connection)

    def first_file(self) -> LogFile | None:
        """The file that takes most, for what writes to standard error by itself."""
        return next((target.file for target in self.targets if target.file.path), None)


class _Clock:
    """Local time as the error log writes it, formatted once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._text = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(now))
        return self._text


class _Process:
    """`pid#tid` of this process."""

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        pid = os.getpid()
        self.text = f"{pid}#{pid}"


_clock = _Clock()
_process = _Process()
os.register_at_fork(after_in_child=_process.refresh)


def say(message: str) -> None:
    """A line on standard error, as the command line writes it."""
    with contextlib.suppress(OSError):
        os.write(STDERR, f"headgate: {message}\n".encode("utf-8", "surrogateescape"))


def failed(what: str, error: OSError) -> str:
    """`what failed (2: No such file or directory)`."""
    return f"{what} failed ({error.errno}: {os.strerror(error.errno or 0)})"


def give(path: str, user: int, mode: int) -> None:
    """Make `path` belong to `user` and allow its owner `mode`. Raises OSError."""
    info = os.stat(path)
    if info.st_uid != user:
        os.chown(path, user, -1)
    if info.st_mode & mode != mode:
        os.chmod(path, stat.S_IMODE(info.st_mode) | mode)
