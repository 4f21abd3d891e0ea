"""A worker's life after the fork: privileges, limits, signals, the event loop, and how it ends.

Signals: QUIT finishes what is in flight and closes idle connections at once; RETIRE does the same but
leaves idle clients `worker_idle_grace` for one more request; TERM and INT end at once; USR1 reopens the
logs. A worker whose master dies retires, so that a new master can bind.
"""

import asyncio
import contextlib
import ctypes
import encodings.idna  # noqa: F401 - uvloop wants it when it connects, and without privileges it may be out of reach
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import uvloop
from headgate.masterd import notify, signals
from headgate.masterd.cycle import Cycle, CycleError
from headgate.masterd.logfile import Level, failed
from headgate.masterd.workers import FATAL
from headgate.masterd.workers import Worker as Child
from headgate.masterd.zones import Slots
from headgate.worker import capabilities
from headgate.worker.http import server as http_server
from headgate.worker.http.listen import Listen

HEARTBEAT = 1.0  # seconds
FIRST_LOOK, LAST_LOOK = 0.01, 0.25  # seconds between looks whether the last request is done, growing

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_libc = ctypes.CDLL(None, use_errno=True)


class FatalError(Exception):
    """A worker cannot start, nor could another."""


def run(child: Child, pipe: int) -> NoReturn:
    """In the child of a fork: be a worker; a byte in `pipe` tells the master that it serves."""
    code, log = 1, child.cycle.log
    try:
        worker = Worker(child.cycle, child.index, child.slots)
        worker.become(child.master)
        worker.serve(lambda: _tell(pipe))
        log.emit(Level.NOTICE, "exit")
        code = 0
    except FatalError as error:
        log.emit(Level.EMERG, str(error))
        code = FATAL
    except BaseException as error:
        log.emit_error(Level.ALERT, "worker process failed", error)
    finally:
        # not sys.exit(): what the master had on its stack is none of ours
        child.cycle.config.logs.close()
        os._exit(code)


def _tell(pipe: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the master is gone, a signal says so
        os.write(pipe, b"1")
    os.close(pipe)


def run_single(cycle: Cycle) -> int:
    """`master_process off`: be the only process, until told to stop; returns the exit code."""
    worker = Worker(cycle, 0, cycle.zones.claim(), single=True)
    _set_environment(cycle)
    try:
        cycle.write_pid_file()
    except CycleError as error:
        cycle.log.emit(Level.EMERG, str(error))
        return 1
    worker.serve(lambda: notify.ready("single process"))
    worker.cycle.end()
    return 0


class Worker:
    """This process. `index` counts the workers of a cycle, `slots` are its rows in the shared zones."""

    def __init__(self, cycle: Cycle, index: int, slots: Slots, single: bool = False) -> None:
        self.cycle = cycle
        self.index = index
        self.slots = slots
        self.single = single
        self.leaving = False
        self.ended = False
        self.renew = False  # a reload waits for the loop to stand still
        self.listening: list[tuple[Listen, socket.socket]] = []  # what the server accepts on
        self.server: http_server.HttpWorker | None = None
        self.retired: list[tuple[Cycle, http_server.HttpWorker]] = []  # still finishing
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(self._on_exception)

    def become(self, master: int) -> None:
        """Take on the limits, the user and the CPUs that the configuration gives. Raises FatalError."""
        _set_environment(self.cycle)
        _set_limits(self.cycle)
        _drop_privileges(self.cycle)
        affinity = self.cycle.config.main.worker_cpu_affinity
        cpus = affinity.cpus(self.index) if affinity else frozenset[int]()
        if cpus:
            self._attempt(f"sched_setaffinity({sorted(cpus)})", lambda: os.sched_setaffinity(0, cpus))
        directory = self.cycle.config.main.working_directory
        if directory:
            try:
                os.chdir(directory)
            except OSError as error:
                raise FatalError(failed(f'chdir("{directory}")', error)) from None
        with contextlib.suppress(AttributeError):  # glibc's: a large read's memory is not mapped anew each time
            _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
            _libc.mallopt(_M_TRIM_THRESHOLD, 8 << 20)
        _libc.prctl(_PR_SET_NAME, b"headgate:worker", 0, 0, 0)
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # setuid() has cleared it, and the signal below
        _libc.prctl(_PR_SET_PDEATHSIG, int(signals.RETIRE), 0, 0, 0)
        if os.getppid() != master:
            os.kill(os.getpid(), signals.RETIRE)  # it died before we asked to be told

    def _attempt(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.cycle.log.emit(Level.ALERT, failed(what, error))

    def serve(self, ready: Callable[[], object]) -> None:
        """Run the event loop to the end of this worker; `ready` is called when it accepts."""
        asyncio.set_event_loop(self.loop)
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.terminate,
            signal.SIGINT: self.terminate,
            signal.SIGQUIT: lambda: self.quit(0.0),
            signals.RETIRE: lambda: self.quit(self.cycle.config.main.worker_idle_grace),
            signal.SIGUSR1: self.reopen,
            signal.SIGHUP: self.reload if self.single else lambda: None,
            signal.SIGWINCH: lambda: None,
        }
        for number, handler in handlers.items():
            self.loop.add_signal_handler(number, self._heard, number, handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._start_server()
        gc.collect()
        gc.freeze()
        self.loop.call_soon(signals.unblock)
        self.loop.call_soon(ready)
        self._beat()
        while not self.ended:
            self.loop.run_forever()
            if self.renew:
                self._renew()

    def _beat(self) -> None:
        self.cycle.zones.heartbeat(self.slots)
        self.loop.call_later(HEARTBEAT, self._beat)

    def _start_server(self) -> None:
        if self.single:
            self.cycle.zones.own(self.slots, os.getpid())
        self.cycle.zones.bind(self.slots)
        self.listening = self.cycle.listeners.for_worker(self.index)
        if self.single:  # the master's part here: the socket outlives the server, for the next cycle
            self.listening = [(options, sock.dup()) for options, sock in self.listening]
        if self.cycle.config.http is not None:
            self.server = http_server.start(self.cycle, self.loop, self)

    def _heard(self, number: signal.Signals, handler: Callable[[], None]) -> None:
        self.cycle.log.emit(Level.NOTICE, f"signal {int(number)} ({number.name}) received")
        handler()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message, error = context.get("message", "error in the event loop"), context.get("exception")
        if isinstance(error, BaseException):
            self.cycle.log.emit_error(Level.ALERT, message, error)
        else:
            self.cycle.log.emit(Level.ALERT, message)

    def _servers(self) -> list[http_server.HttpWorker]:
        retired = [server for _, server in self.retired]
        return [*retired, self.server] if self.server else retired

    def terminate(self) -> None:
        """End now: requests in flight are cut."""
        self.cycle.log.emit(Level.NOTICE, "exiting")
        self.leaving = True
        for server in self._servers():
            server.stop_accepting()
            server.shutdown()
        self._end()

    def quit(self, grace: float) -> None:
        """Accept no more, let requests finish, give idle clients `grace` seconds; then end.

        A second call may shorten the grace. After worker_shutdown_timeout what is left is cut.
        """
        if self.leaving:
            for server in self._servers():
                server.idle_close(grace)
            return
        self.leaving = True
        self.cycle.log.emit(Level.NOTICE, "gracefully shutting down")
        self._retire_server(grace)
        self._drain()

    def _retire_server(self, grace: float) -> None:
        if self.server is None:
            return
        self.server.stop_accepting()
        self.server.idle_close(grace)
        timeout = self.cycle.config.main.worker_shutdown_timeout
        if timeout:
            self.loop.call_later(timeout, self.server.shutdown)
        self.retired.append((self.cycle, self.server))
        self.server = None

    def _forget_finished(self) -> None:
        for cycle, server in [pair for pair in self.retired if not pair[1].active]:
            self.retired.remove((cycle, server))
            if cycle is not self.cycle:
                self.cycle.zones.retire(cycle.zones)

    def _drain(self, pause: float = FIRST_LOOK) -> None:
        self._forget_finished()
        if self.retired:
            self.loop.call_later(pause, self._drain, min(pause * 1.2, LAST_LOOK))
        else:
            self.cycle.log.emit(Level.NOTICE, "exiting")
            self._end()

    def _end(self) -> None:
        self.ended = True
        self.loop.stop()

    def reopen(self) -> None:
        self.cycle.log.emit(Level.NOTICE, "reopening logs")
        self.cycle.reopen_logs(master=False)

    def reload(self) -> None:
        """Without a master: start the new cycle beside the old one, which finishes."""
        self.renew = True
        self.loop.stop()

    def _renew(self) -> None:
        self.renew = False
        new = None if self.leaving else self.cycle.successor()
        if new is None:
            return
        self._retire_server(self.cycle.config.main.worker_idle_grace)
        self.cycle = new
        self._forget_finished()
        self.slots = new.zones.claim(self.slots)
        self._start_server()


def _set_environment(cycle: Cycle) -> None:
    """Only what `env` names stays, as on nginx."""
    kept = {name: os.environ.get(name) if value is None else value for name, value in cycle.config.main.env}
    os.environ.clear()
    os.environ.update({name: value for name, value in kept.items() if value is not None})


def _set_limits(cycle: Cycle) -> None:
    main, log = cycle.config.main, cycle.log
    if main.worker_priority:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, main.worker_priority)
        except OSError as error:
            log.emit(Level.ALERT, failed(f"setpriority({main.worker_priority})", error))
    limits = (("NOFILE", main.worker_rlimit_nofile), ("CORE", main.worker_rlimit_core))
    for name, limit in limits:
        if limit is None:
            continue
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
        except (OSError, ValueError) as error:  # ValueError: more than the hard limit
            log.emit(Level.ALERT, f"setrlimit(RLIMIT_{name}, {limit}) failed ({error})")


def _drop_privileges(cycle: Cycle) -> None:
    """Become the configured user, for good. Raises FatalError."""
    user = cycle.config.main.user
    if user is None or os.geteuid() != 0:
        return
    steps: list[tuple[str, Callable[[], None]]] = [
        (f"setgid({user.gid})", lambda: os.setgid(user.gid)),
        (f"initgroups({user.name}, {user.gid})", lambda: os.initgroups(user.name, user.gid)),
        (f"setuid({user.uid})", lambda: os.setuid(user.uid)),
    ]
    if cycle.config.transparent:  # of the super-user's rights this one stays
        steps.insert(2, ("prctl(PR_SET_KEEPCAPS, 1)", capabilities.keep))
        steps.append(("capset()", capabilities.net_raw_only))
    for what, step in steps:
        try:
            step()
        except OSError as error:
            raise FatalError(failed(what, error)) from None
