"""The main and events directives: processes, users, limits, logs.

`lock_file`, `accept_mutex`, `multi_accept` and `pcre_jit` are read and checked but change nothing that a
client or an operator can see, as on nginx on Linux: no lock file is needed, workers share the listening
sockets without a mutex and accept all that waits, patterns are compiled by PCRE's JIT where it has one.
"""

import grp
import os
import pwd
from typing import TYPE_CHECKING, NamedTuple

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, block, directive
from headgate.conf.errors import ConfError
from headgate.masterd.logfile import LEVELS, Level, LogTarget

if TYPE_CHECKING:
    from headgate.conf.build import Scope

DEFAULT_PID = "headgate.pid"  # under the prefix
DEFAULT_USER = "nobody"
MAX_CPUS = 1024  # CPU_SETSIZE


class User(NamedTuple):
    """Who the workers become."""

    name: str
    uid: int
    gid: int


class EnvVar(NamedTuple):
    """A variable that workers keep: with the `value` given, or (None) with the one that it has."""

    name: str
    value: str | None


class Affinity(NamedTuple):
    """CPUs of each worker; `auto` binds one worker to one CPU of the only mask."""

    auto: bool
    masks: list[frozenset[int]]

    def cpus(self, worker: int) -> frozenset[int]:
        """The CPUs of this worker, counted from 0; empty: any."""
        if not self.auto:
            return self.masks[min(worker, len(self.masks) - 1)]
        allowed = sorted(self.masks[0])
        return frozenset(allowed[worker % len(allowed)] for _ in range(bool(allowed)))


def error_log(call: Call) -> LogTarget:
    """`error_log FILE|stderr [LEVEL]`, in main, http, server and location alike."""
    where, *levels = call.args
    for kind in ("syslog:", "memory:"):
        if where.startswith(kind):
            raise call.error_at(f'"error_log {kind}" is known to nginx but not implemented by headgate')
    for word in levels:
        if word not in LEVELS:
            raise call.error_at(f'invalid log level "{word}"')
    if len(levels) > 1:
        raise call.error_at(f'duplicate log level "{levels[1]}"')
    path = "" if where == "stderr" else call.path(where)
    return LogTarget(call.scope.config.logs.get(path), LEVELS[levels[0]] if levels else Level.ERROR)


def _processes(call: Call) -> int:
    text = call.args[0]
    if text == "auto":
        return os.cpu_count() or 1
    if not (text.isascii() and text.isdigit()):
        raise call.error("invalid value")
    return int(text)


def _connections(call: Call) -> int:
    text = call.args[0]
    if not (text.isascii() and text.isdigit()):
        raise call.error_at(f'invalid number "{text}"')
    return int(text)


def _priority(call: Call) -> int:
    text = call.args[0]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise call.error("invalid number")
    return -int(digits) if text[0] == "-" else int(digits)


def _user(call: Call) -> User | None:
    if os.geteuid() != 0:
        call.warn(
            'the "user" directive makes sense only if the master process runs with super-user privileges, ignored'
        )
        return None
    name, group = call.args[0], call.args[-1]
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise call.error_at(f'getpwnam("{name}") failed') from None
    try:
        return User(name, uid, grp.getgrnam(group).gr_gid)
    except KeyError:
        raise call.error_at(f'getgrnam("{group}") failed') from None


def _env(call: Call) -> EnvVar:
    name, assigned, value = call.args[0].partition("=")
    return EnvVar(name, value if assigned else None)


def _affinity(call: Call) -> Affinity:
    auto = call.args[0] == "auto"
    words = call.args[1:] if auto else call.args
    if auto and len(words) > 1:
        raise call.error_at('invalid number of arguments in "worker_cpu_affinity" directive')
    masks = [_mask(call, word) for word in words]
    return Affinity(auto, masks or [frozenset(range(os.cpu_count() or 1))])


def _mask(call: Call, word: str) -> frozenset[int]:
    """`0101`: the last digit is CPU 0."""
    if len(word) > MAX_CPUS:
        raise call.error_at(f'"worker_cpu_affinity" supports up to {MAX_CPUS} CPUs only')
    digits = word.replace(" ", "")[::-1]
    for digit in digits:
        if digit not in "01":
            raise call.error_at(f'invalid character "{digit}" in "worker_cpu_affinity"')
    return frozenset(cpu for cpu, digit in enumerate(digits) if digit == "1")


class CoreConf(Conf, level=Ctx.MAIN):
    """The main context. Paths are absolute once `finish` has run."""

    daemon: bool = directive("daemon", Ctx.MAIN, "flag", slots.flag, default=False)
    master_process: bool = directive("master_process", Ctx.MAIN, "flag", slots.flag, default=True)
    pid: str = directive("pid", Ctx.MAIN, "1", lambda call: call.path(call.args[0]), default="")
    lock_file: str = directive("lock_file", Ctx.MAIN, "1", slots.string, default="")
    error_log: list[LogTarget] = directive("error_log", Ctx.MAIN, "1+", error_log, many=True)
    worker_processes: int = directive("worker_processes", Ctx.MAIN, "1", _processes, default=1)
    worker_priority: int = directive("worker_priority", Ctx.MAIN, "1", _priority, default=0)
    worker_cpu_affinity: Affinity | None = directive("worker_cpu_affinity", Ctx.MAIN, "1+", _affinity)
    worker_rlimit_nofile: int | None = directive("worker_rlimit_nofile", Ctx.MAIN, "1", slots.number)
    worker_rlimit_core: int | None = directive("worker_rlimit_core", Ctx.MAIN, "1", slots.offset)
    worker_shutdown_timeout: float = directive("worker_shutdown_timeout", Ctx.MAIN, "1", slots.msec, default=0.0)
    #: Seconds that an idle client connection of a worker that leaves has for one more request; 0 as nginx.
    worker_idle_grace: float = directive("worker_idle_grace", Ctx.MAIN, "1", slots.msec, default=3.0)
    working_directory: str = directive("working_directory", Ctx.MAIN, "1", slots.string, default="")
    user: User | None = directive("user", Ctx.MAIN, "1|2", _user)
    env: list[EnvVar] = directive("env", Ctx.MAIN, "1", _env, many=True)
    pcre_jit: bool = directive("pcre_jit", Ctx.MAIN, "flag", slots.flag, default=True)

    def finish(self, scope: "Scope") -> None:
        if not self.pid:
            self.pid = os.path.join(scope.config.prefix, DEFAULT_PID)
        if self.user is None and os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(DEFAULT_USER)
            except KeyError:
                raise ConfError(f'getpwnam("{DEFAULT_USER}") failed') from None
            self.user = User(DEFAULT_USER, entry.pw_uid, entry.pw_gid)
        if not any(name == "TZ" for name, _ in self.env):
            self.env.append(EnvVar("TZ", None))
        affinity = self.worker_cpu_affinity
        if affinity and not affinity.auto and len(affinity.masks) not in (1, self.worker_processes):
            scope.config.warnings.append(
                'the number of "worker_processes" is not equal to the number of "worker_cpu_affinity" masks, '
                "using last mask for remaining worker processes"
            )


def _use(call: Call) -> str:
    if call.args[0] != "epoll":
        raise call.error_at(f'invalid event type "{call.args[0]}"')
    return call.args[0]


class EventsConf(Conf, level=Ctx.EVENTS):
    """The events context."""

    worker_connections: int = directive("worker_connections", Ctx.EVENTS, "1", _connections, default=512)
    use: str = directive("use", Ctx.EVENTS, "1", _use, default="epoll")
    multi_accept: bool = directive("multi_accept", Ctx.EVENTS, "flag", slots.flag, default=False)
    accept_mutex: bool = directive("accept_mutex", Ctx.EVENTS, "flag", slots.flag, default=False)


@block("events", Ctx.MAIN, "0")
def events(call: Call) -> None:
    """The events block, once."""
    config = call.scope.config
    if config.events is not None:
        raise call.error("is duplicate")
    config.events = call.build(Ctx.EVENTS).merged(EventsConf)
