"""[14] The access log: `access_log`, `log_format`; and `error_log` of the http block and inside it.

A location holds the logs in force in `access_logs`; each writes one line a request, or puts it into the
buffer of its file. Buffers are written when full, when `flush` has passed, on a reopen and at the end.
"""

import asyncio
import errno
import gzip
import os
import stat
from typing import TYPE_CHECKING

from headgate.conf import core, slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, command, directive
from headgate.conf.template import Template, Variables
from headgate.masterd.logfile import ErrorLog, Level, LogFile, LogTarget, failed
from headgate.worker.http import log_cache
from headgate.worker.http.log_cache import LogCache
from headgate.worker.http.log_format import COMBINED, COMBINED_PARTS, ESCAPES, LogFormat, split

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.conf import HttpConf, Location
    from headgate.worker.http.request import Request

DEFAULT_PATH = "logs/access.log"


class Buffer:
    """Lines that wait to be written to a file. `size` in bytes, `flush` in seconds (0: only when full).

    `level` is gzip's, 0 for none: what is written at once is one member of the file.
    """

    __slots__ = ("_lines", "_timer", "file", "flush_after", "level", "size", "used")

    def __init__(self, file: LogFile, size: int, flush: float, level: int) -> None:
        self.file = file
        self.size = size
        self.flush_after = flush
        self.level = level
        self.used = 0
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        file.flushers.append(self.flush)

    def add(self, line: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Keep a line; what has no room is written first."""
        if self.used + len(line) > self.size:
            self.flush()
            if len(line) > self.size:
                self._write(line)
                return
        if not self._lines and self.flush_after:
            self._timer = loop.call_later(self.flush_after, self.flush)
        self._lines.append(line)
        self.used += len(line)

    def flush(self) -> None:
        """Write what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._write(b"".join(self._lines))
            self._lines.clear()
            self.used = 0

    def _write(self, data: bytes) -> None:
        self.file.write(gzip.compress(data, self.level) if self.level else data)


class AccessLog:
    """One `access_log`. `path` is set where the file depends on the request, else `file`."""

    __slots__ = ("buffer", "condition", "file", "format", "path")

    def __init__(self, file: LogFile | None, path: Template | None, fmt: LogFormat) -> None:
        self.file = file
        self.path = path
        self.format = fmt
        self.condition: Template | None = None
        self.buffer: Buffer | None = None  # of the file, set when all of the configuration is read

    def write(self, r: "Request") -> None:
        """Log a request that has ended."""
        if r.parent is not None and not r.location.get(LogConf).subrequests:
            return
        if self.condition is not None and self.condition.get(r) in (b"", b"0"):
            return
        line = self.format.line(r)
        if self.buffer is not None:
            self.buffer.add(line, r.conn.worker.loop)
        elif self.file is not None:
            self.file.write(line)
        else:
            self._write_by_name(r, line)

    def _write_by_name(self, r: "Request", line: bytes) -> None:
        """To a file that the request names: only if its root exists, so that no client can make up files."""
        from headgate.worker.http import static

        assert self.path is not None
        root, path = static.document_root(r), self.path.get(r).partition(b"\0")[0]
        try:
            if not stat.S_ISDIR(os.stat(root).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, root)
        except OSError as error:
            r.log(Level.ERROR, failed(f'testing "{os.fsdecode(root)}" existence', error))
            return
        cache = r.location.get(LogConf).cache
        try:
            if cache is not None:
                cache.write(path, line)
            else:
                file = log_cache.open_log(path)
                file.write(line)
                file.close()
        except OSError as error:
            r.log(Level.CRIT, failed(f'open() "{os.fsdecode(path)}"', error))


# -- access_log and log_format -------------------------------------------------------------------


def _format(http: "HttpConf", variables: Variables, name: str) -> LogFormat | None:
    """A format by its name, in any case; the predefined one is compiled when it is first used."""
    if name.lower() == COMBINED and COMBINED not in http.log_formats:
        http.log_formats[COMBINED] = LogFormat(variables, COMBINED_PARTS)
    return next((found for key, found in http.log_formats.items() if key.lower() == name.lower()), None)


@command("log_format", Ctx.HTTP, "2+")
def log_format(call: Call) -> None:
    """`log_format NAME [escape=default|json|none] TEXT...`."""
    name, *words = call.args
    formats = call.scope.node.log_formats
    if name == COMBINED or name in formats:
        raise call.error_at(f'duplicate "log_format" name "{name}"')
    escape = "default"
    if words[0].startswith("escape="):
        escape = words.pop(0)[7:]
        if escape not in ESCAPES:
            raise call.error_at(f'unknown log format escaping "{escape}"')
    variables = call.scope.variables
    assert variables is not None
    parts = [part for word in words for part in split(word, call.error_at)]
    formats[name] = LogFormat(variables, parts, escape)


def _access_log(call: Call) -> AccessLog | None:
    """`PATH [FORMAT [buffer=SIZE] [gzip[=LEVEL]] [flush=TIME] [if=TEXT]]`, or None for `off`."""
    where = call.args[0]
    if where == "off":
        if len(call.args) > 1:
            raise call.error_at(f'invalid parameter "{call.args[1]}"')
        return None
    if where.startswith("syslog:"):
        raise call.error_at('"access_log syslog:" is known to nginx but not implemented by headgate')
    http: HttpConf = call.scope.above(Ctx.HTTP).node
    path = call.path(where)
    name = call.args[1] if len(call.args) > 1 else COMBINED
    variables = call.scope.variables
    assert variables is not None
    fmt = _format(http, variables, name)
    if fmt is None:
        raise call.error_at(f'unknown log format "{name}"')
    file = None if "$" in where else call.scope.config.logs.get(path)
    log = AccessLog(file, call.template(path) if file is None else None, fmt)
    _options(call, http, log)
    return log


def _options(call: Call, http: "HttpConf", log: AccessLog) -> None:
    size, flush, level = 0, 0.0, 0
    for word in call.args[2:]:
        name, mark, value = word.partition("=")
        if mark and name == "buffer":
            size = slots.parse_size(value) or 0
            if not size:
                raise call.error_at(f'invalid buffer size "{value}"')
        elif mark and name == "flush":
            flush = slots.parse_time(value) or 0.0
            if not flush:
                raise call.error_at(f'invalid flush time "{value}"')
        elif mark and name == "if":
            log.condition = call.template(value)
        elif name == "gzip":
            size = size or 65536
            if mark and (not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 9):
                raise call.error_at(f'invalid compression level "{value}"')
            level = int(value or 1)
        else:
            raise call.error_at(f'invalid parameter "{word}"')
    where = call.args[0]
    if flush and not size:
        raise call.error_at(f'no buffer is defined for access_log "{where}"')
    if size:
        if log.file is None:
            raise call.error_at("buffered logs cannot have variables in name")
        buffer = http.log_buffers.get(log.file)
        if buffer is None:
            http.log_buffers[log.file] = Buffer(log.file, size, flush, level)
        elif (buffer.size, buffer.flush_after, buffer.level) != (size, flush, level):
            raise call.error_at(f'access_log "{where}" already defined with conflicting parameters')


class LogConf(Conf, level=Ctx.LOCATION):
    """The access logs of a location. Where none is set at all it is logs/access.log in the combined format."""

    logs: list[AccessLog | None] = directive(
        "access_log", HSL | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT, "1+", _access_log, many=True
    )
    subrequests: bool = directive("log_subrequest", HSL, "flag", slots.flag, default=False)
    cache: LogCache | None = directive("open_log_file_cache", HSL, "1|2|3|4", log_cache.parse, default=None)
    scope: "Scope"
    in_force: tuple[AccessLog, ...] | None

    def finish(self, scope: "Scope") -> None:
        self.scope = scope
        self.in_force = self._with_buffers([log for log in self.logs if log is not None]) if self.logs else None
        if None in self.logs:
            self.in_force = ()

    def attach(self, node: "Location") -> None:
        if self.in_force is None:
            config, variables = self.scope.config, self.scope.variables
            assert variables is not None
            fmt = _format(config.http, variables, COMBINED)
            assert fmt is not None
            file = config.logs.get(os.path.join(config.prefix, DEFAULT_PATH))
            self.in_force = self._with_buffers([AccessLog(file, None, fmt)])
        node.access_logs = self.in_force

    def _with_buffers(self, logs: list[AccessLog]) -> tuple[AccessLog, ...]:
        """A buffer belongs to its file, whichever directive gave it."""
        buffers = self.scope.config.http.log_buffers
        for log in logs:
            log.buffer = buffers.get(log.file)
        return tuple(logs)


class ErrorLogConf(Conf, level=Ctx.LOCATION):
    """The error logs set in the http block or inside it; elsewhere that of the main context is in force."""

    targets: list[LogTarget] = directive("error_log", HSL, "1+", core.error_log, many=True)
    log: ErrorLog | None

    def finish(self, scope: "Scope") -> None:
        self.log = ErrorLog(self.targets) if self.targets else None

    def attach(self, node: "Location") -> None:
        if self.log is not None:
            node.error_log = self.log
