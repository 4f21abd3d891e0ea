"""Signals of the master: each sets a bit, the loop acts on it.

The signals stay blocked, so no handler ever runs: the kernel keeps the bit, `wait` collects it. A signal
that comes while the master forks or reads a configuration waits there, and none is lost.
"""

import enum
import signal
from collections.abc import Callable

#: A worker that gets it leaves as with SIGQUIT, but gives idle clients time for one more request:
#: another generation or another master goes on listening, so a client loses nothing by coming back.
RETIRE = signal.SIGUSR2

_SI_USER = 0  # si_code of kill(2); a terminal's SIGWINCH comes from the kernel


class Event(enum.Flag):
    """What the master has been told since it last looked."""

    NONE = 0
    REAP = enum.auto()
    TERMINATE = enum.auto()
    QUIT = enum.auto()
    RELOAD = enum.auto()
    REOPEN = enum.auto()
    NOACCEPT = enum.auto()
    READY = enum.auto()


_EVENTS = {
    signal.SIGCHLD: (Event.REAP, ""),
    signal.SIGTERM: (Event.TERMINATE, ", exiting"),
    signal.SIGINT: (Event.TERMINATE, ", exiting"),
    signal.SIGQUIT: (Event.QUIT, ", shutting down"),
    signal.SIGHUP: (Event.RELOAD, ", reconfiguring"),
    signal.SIGUSR1: (Event.REOPEN, ", reopening logs"),
    signal.SIGUSR2: (Event.NONE, ", ignoring"),
    signal.SIGWINCH: (Event.NOACCEPT, ", stop accepting connections"),
    signal.SIGIO: (Event.READY, ""),
}

#: -s NAME
NAMED = {"stop": signal.SIGTERM, "quit": signal.SIGQUIT, "reopen": signal.SIGUSR1, "reload": signal.SIGHUP}


def block() -> None:
    """From now on signals are kept for `wait`; a child inherits that until it calls `unblock`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _EVENTS)


def unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _EVENTS)


def wait(timeout: float | None, heard: Callable[[str], None]) -> Event:
    """Wait for a signal, at most `timeout` seconds, and collect all that are pending.

    `heard` gets the line for the log of each.
    """
    found = Event.NONE
    info = signal.sigtimedwait(_EVENTS, timeout) if timeout is not None else signal.sigwaitinfo(_EVENTS)
    while info is not None:
        number = signal.Signals(info.si_signo)
        event, action = _EVENTS[number]
        if number == signal.SIGWINCH and info.si_code != _SI_USER:
            event, action = Event.NONE, ", ignoring"  # somebody resized the terminal
        sender = f" from {info.si_pid}" if info.si_pid else ""
        if number != signal.SIGIO:
            heard(f"signal {number} ({number.name}) received{sender}{action}")
        found |= event
        info = signal.sigtimedwait(_EVENTS, 0)
    return found
