"""Temporary files: the directories they lie in, and one file that takes what memory should not.

A `TempFile` is made when the first byte is written and has no name left by then unless it is to be kept: what a
killed worker leaves behind is freed by the kernel. A write that fails (a full disk) is logged once; whoever wrote
keeps the bytes and finds another way, for what is lost here would be a body cut short.
"""

import os
from itertools import count
from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.masterd.logfile import Level, failed

if TYPE_CHECKING:
    from headgate.conf.build import Config
    from headgate.worker.http.request import Request

PIECE = 32768  # bytes read at a time
_numbers = count(1)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class TempPath:
    """A directory for temporary files with nginx's levels: `path [1 [2 [3]]]`."""

    __slots__ = ("levels", "path")

    def __init__(self, path: str, levels: tuple[int, ...] = ()) -> None:
        self.path = path
        self.levels = levels

    @classmethod
    def default(cls, config: "Config", name: str) -> "TempPath":
        """The directory `name` under the prefix; the cycle makes it."""
        path = os.path.join(config.prefix, name)
        config.paths.append(path)
        return cls(path)

    def create(self, access: int = 0o600) -> tuple[int, str]:
        """A new empty file, open for reading and writing: (descriptor, name). Raises OSError."""
        while True:
            name = f"{os.getpid() % 100000:05d}{next(_numbers):05d}"
            folder, at = self.path, len(name)
            for level in self.levels:
                at -= level
                folder = os.path.join(folder, name[at : at + level])
            path = os.path.join(folder, name)
            try:
                return os.open(path, _FLAGS, access), path
            except FileExistsError:
                continue
            except FileNotFoundError:
                if not self.levels or not os.path.isdir(self.path):
                    raise
                os.makedirs(folder, 0o700, exist_ok=True)


def temp_path(call: Call) -> TempPath:
    """`path [level1 [level2 [level3]]]`; the master creates the directory."""
    levels = []
    for word in call.args[1:]:
        if word not in ("1", "2", "3"):
            raise call.error("invalid value")
        levels.append(int(word))
    path = call.path(call.args[0])
    call.scope.config.paths.append(path)
    return TempPath(path, tuple(levels))


class TempFile:
    """One file. `size` is what was written; `fd` is -1 until then; `broken` after a failure."""

    __slots__ = ("broken", "fd", "name", "path", "request", "size")

    def __init__(self, request: "Request", path: TempPath) -> None:
        self.request = request
        self.path = path
        self.fd = -1
        self.name = ""
        self.size = 0
        self.broken = False

    def open(self, warn: str = "", keep: bool = False, access: int = 0o600, level: Level = Level.WARN) -> bool:
        """Make the file; False (and a line in the log) when that cannot be. `warn` is logged with the name."""
        try:
            self.fd, self.name = self.path.create(access)
            if not keep:
                os.unlink(self.name)
        except OSError as error:
            self._failed(f'open() "{error.filename or self.path.path}"', error)
            return False
        if warn:
            self.request.log(level, f"{warn} {self.name}")
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Append; how many bytes could be: fewer than given only after a failure, which is logged."""
        view = memoryview(data)
        while view:
            try:
                done = os.pwrite(self.fd, view, self.size)
            except OSError as error:
                self._failed(f'pwrite() "{self.name}"', error)
                break
            self.size += done
            view = view[done:]
        return len(data) - len(view)

    def splice(self, pipe: int, size: int) -> int:
        """Append what a pipe holds; as `write`."""
        left = size
        while left:
            try:
                done = os.splice(pipe, self.fd, left, offset_dst=self.size)
            except OSError as error:
                self._failed(f'splice() "{self.name}"', error)
                break
            self.size += done
            left -= done
        return size - left

    def read(self, at: int, size: int = PIECE) -> bytes:
        """Bytes from `at` on. Raises OSError; fewer than there should be is one too."""
        data = os.pread(self.fd, min(size, self.size - at), at)
        if not data:
            raise OSError(0, f'"{self.name}" was truncated at {at}')
        return data

    def close(self) -> None:
        """Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def unlink(self) -> None:
        """Remove the name of a file that was kept so far."""
        try:
            os.unlink(self.name)
        except OSError as error:
            self.request.log(Level.CRIT, failed(f'unlink() "{self.name}"', error))

    def _failed(self, what: str, error: OSError) -> None:
        self.broken = True
        self.request.log(Level.CRIT, failed(what, error))
