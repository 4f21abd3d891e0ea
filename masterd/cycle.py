"""A cycle: one configuration with everything opened for it.

A new one is read and opened whole beside the old one and then replaces it (`commit`); when anything
fails, what it has opened is closed again, the old one has not been touched, and the error says why.
"""

import os
import resource
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from headgate.conf.build import Config, load
from headgate.conf.errors import ConfError
from headgate.masterd import pidfile
from headgate.masterd.listen import ListenError, Listeners
from headgate.masterd.logfile import STDERR, ErrorLog, Level, LogTarget, failed, give
from headgate.masterd.zones import ZoneError, Zones


class CycleError(Exception):
    """Why there is no new cycle; the text of the [emerg] line."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the command line fixes for every cycle. Paths are absolute, `error_log` "" is standard error."""

    conf: str
    prefix: str
    error_log: str
    globals_text: str = ""
    testing: bool = False


class Cycle:
    """One configuration in force: `config`, the error `log` of its main level, its `listeners` and `zones`."""

    __slots__ = ("config", "listeners", "log", "setup", "starter", "zones")

    def __init__(self, setup: Setup, config: Config, log: ErrorLog) -> None:
        self.setup = setup
        self.config = config
        self.log = log
        self.listeners = Listeners()
        self.zones = Zones()
        self.starter = -1  # `daemon on`: a pipe to the process that was started, which waits for the pid file

    @classmethod
    def read(cls, setup: Setup, log: ErrorLog) -> "Cycle":
        """Read the configuration; nothing is opened yet. `log` takes the warnings. Raises CycleError."""
        warnings: list[str] = []
        try:
            config = load(setup.conf, setup.prefix, setup.globals_text, warnings)
        except ConfError as error:
            raise CycleError(str(error)) from None
        finally:
            for warning in warnings:
                log.emit(Level.WARN, warning)
        targets = list(config.main.error_log)
        if not any(target.file.path for target in targets) and (setup.error_log or not targets):
            targets.append(LogTarget(config.logs.get(setup.error_log), Level.ERROR))
        return cls(setup, config, ErrorLog(targets))

    def open(self, old: "Cycle | Listeners", log: ErrorLog) -> None:
        """Open everything; `log` is told what goes wrong on the way. Raises CycleError, all closed again.

        `old` is the cycle to take sockets over from or, at the start, the sockets that systemd passed.
        """
        config, testing = self.config, self.setup.testing
        listens = config.http.listens if config.http else []
        connections = config.events.worker_connections
        if connections < len(listens) + 1:
            raise CycleError(f"{connections} worker_connections are not enough for {len(listens)} listening sockets")
        with ExitStack() as undo:
            _make_directories(config)
            undo.callback(config.logs.close)
            _open_logs(config)
            sockets, zones = (old.listeners, old.zones) if isinstance(old, Cycle) else (old, None)
            workers = config.main.worker_processes if config.main.master_process else 1
            try:
                http = config.http
                self.zones.open(http.zones if http else {}, zones, http.tables if http else {})
                undo.callback(self.zones.abandon)
                self.listeners.open(listens, workers, sockets, log, testing)
                undo.callback(self.listeners.abandon)
            except (ListenError, ZoneError) as error:
                raise CycleError(str(error)) from None
            self._check_pid_file(old)
            undo.pop_all()
        self._check_limit(log)

    def _check_pid_file(self, old: "Cycle | Listeners") -> None:
        path = self.config.main.pid
        try:
            if not isinstance(old, Cycle):
                pidfile.check(path)
            elif old.config.main.pid != path:
                pidfile.write(path)
        except OSError as error:
            raise CycleError(failed(f'open() "{path}"', error)) from None

    def _check_limit(self, log: ErrorLog) -> None:
        connections, own = self.config.events.worker_connections, self.config.main.worker_rlimit_nofile
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if own is None else own
        if connections > limit != resource.RLIM_INFINITY:
            log.emit(Level.WARN, f"{connections} worker_connections exceed open file resource limit: {limit}")

    def commit(self, old: "Cycle | Listeners") -> None:
        """Replace `old`: close and remove what only it has."""
        self.zones.commit()
        if not isinstance(old, Cycle):
            self.listeners.commit(old, self.log)
            return
        self.listeners.commit(old.listeners, self.log)
        if old.config.main.pid != self.config.main.pid:
            old.remove_pid_file()
        old.config.logs.close()

    def successor(self) -> "Cycle | None":
        """The cycle that has replaced this one, or None: this one goes on, its log says why."""
        self.log.emit(Level.NOTICE, "reconfiguring")
        try:
            new = Cycle.read(self.setup, self.log)
            new.open(self, self.log)
        except CycleError as error:
            self.log.emit(Level.EMERG, str(error))
            return None
        new.commit(self)
        new.redirect_stderr()
        return new

    def abandon(self) -> None:
        """Close what `open` opened, as after a test of the configuration."""
        self.listeners.abandon()
        self.zones.abandon()
        self.config.logs.close()

    def write_pid_file(self) -> None:
        """The last step of a start: whoever waits for the file finds everything there. Raises CycleError."""
        try:
            pidfile.write(self.config.main.pid)
        except OSError as error:
            raise CycleError(failed(f'open() "{self.config.main.pid}"', error)) from None
        self.leave_starter(b"1")

    def leave_starter(self, word: bytes = b"") -> None:
        """Tell the process that waits for the pid file `word`, and no more; without a word it goes on waiting."""
        if self.starter >= 0:
            with suppress(BrokenPipeError):  # it may have been killed meanwhile
                os.write(self.starter, word)
            os.close(self.starter)
            self.starter = -1

    def end(self) -> None:
        """The server has ended: leave nothing behind."""
        self.listeners.close(self.log)
        self.remove_pid_file()
        self.log.emit(Level.NOTICE, "exit")
        self.config.logs.close()

    def remove_pid_file(self) -> None:
        path = self.config.main.pid
        try:
            os.unlink(path)
        except OSError as error:
            self.log.emit(Level.ALERT, failed(f'unlink() "{path}"', error))

    def redirect_stderr(self) -> None:
        """What Python itself writes to standard error goes to the error log, unless that is standard error."""
        file = self.log.first_file()
        if file is not None and not any(target.file.fd == STDERR for target in self.log.targets):
            os.dup2(file.fd, STDERR)

    def reopen_logs(self, master: bool) -> None:
        """Open the log files anew by name; the master hands them to the workers' user first."""
        user = self.config.main.user
        self.config.logs.reopen(self.log, user.uid if master and user else None)
        self.redirect_stderr()


def _make_directories(config: Config) -> None:
    user = config.main.user
    for path in config.paths:
        action = f'mkdir() "{path}"'
        try:
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
            if user is not None:
                action = f'chown("{path}", {user.uid})'
                give(path, user.uid, stat.S_IRWXU)
        except OSError as error:
            raise CycleError(failed(action, error)) from None


def _open_logs(config: Config) -> None:
    try:
        config.logs.open()
    except OSError as error:
        raise CycleError(failed(f'open() "{error.filename}"', error)) from None
