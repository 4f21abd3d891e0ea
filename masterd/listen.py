"""The listening sockets of a cycle: bound by the master, which owns them for good, served by the workers.

Rules: an address that the old cycle has keeps its socket, so no connection in a backlog is lost; what a
failed cycle has opened is closed again; with `reuseport` an address has one socket for each worker.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headgate.masterd.logfile import ErrorLog, Level, failed

if TYPE_CHECKING:
    from headgate.worker.http.listen import Listen

TRIES = 5
PAUSE = 0.5  # seconds between tries to bind an address in use
UNIX_MODE = 0o666
SYSTEMD_FIRST_FD = 3

Key = tuple[int, bytes, int]


class ListenError(Exception):
    """A socket cannot be had; the text is what goes to the log as [emerg]."""


class Listening:
    """One address with its socket or, with reuseport, its sockets in the order of the workers."""

    __slots__ = ("inherited", "key", "options", "sockets", "text")

    def __init__(self, key: Key, text: str, options: "Listen | None" = None) -> None:
        self.key = key
        self.text = text
        self.options = options  # None: passed by systemd, not (yet) matched with a directive
        self.sockets: list[socket.socket] = []
        self.inherited = options is None

    @property
    def path(self) -> str:
        """The file of a Unix socket that we made and have to remove, else ""."""
        return self.text.removeprefix("unix:") if self.key[0] == socket.AF_UNIX and not self.inherited else ""


class Listeners:
    """All addresses of one cycle."""

    __slots__ = ("_opened", "entries")

    def __init__(self) -> None:
        self.entries: dict[Key, Listening] = {}
        self._opened: list[tuple[Listening, socket.socket]] = []  # by this cycle, until it is committed

    @classmethod
    def from_systemd(cls, log: ErrorLog) -> "Listeners":
        """The sockets passed by systemd (sd_listen_fds(3)), to be matched as if an old cycle had them."""
        out = cls()
        pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
        os.environ.pop("LISTEN_FDNAMES", None)
        if pid != str(os.getpid()) or not count.isdigit():
            return out
        for fd in range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + int(count)):
            try:
                sock = socket.socket(fileno=fd)
                key, text = _key(sock.family, sock.getsockname()), _text(sock)
            except (OSError, ValueError) as error:
                log.emit(Level.CRIT, f"the inherited socket #{fd} cannot be used: {error}")
                continue
            sock.set_inheritable(False)
            sock.setblocking(False)
            out.entries.setdefault(key, Listening(key, text)).sockets.append(sock)
        return out

    def open(self, listens: "Iterable[Listen]", workers: int, old: "Listeners", log: ErrorLog, testing: bool) -> None:
        """Take over from `old` what is unchanged and bind the rest. Raises ListenError, everything closed again.

        `testing`: one socket for each address, and one that is in use is left out.
        """
        try:
            for options in listens:
                address = options.address
                key = _key(address.family, address.sockaddr)
                self.entries[key] = self._carry(Listening(key, address.text, options), workers, old)
            for left in range(TRIES - 1, -1, -1):
                busy = [entry for entry in self.entries.values() if not self._fill(entry, workers, log, testing)]
                if not busy or testing:
                    break
                if not left:
                    raise ListenError("still could not bind()")
                log.emit(Level.NOTICE, "try again to bind() after 500ms")
                time.sleep(PAUSE)
            if not testing:
                for entry in self.entries.values():
                    _configure(entry, old.entries.get(entry.key), log)
        except ListenError:
            self.abandon()
            raise

    def _carry(self, entry: Listening, workers: int, old: "Listeners") -> Listening:
        before = old.entries.get(entry.key)
        entry.inherited = False
        if before is not None:
            entry.sockets = before.sockets[: _wanted(entry, workers)]
            entry.inherited = before.inherited
        return entry

    def _fill(self, entry: Listening, workers: int, log: ErrorLog, testing: bool) -> bool:
        """Bind what is missing; False when the address is in use."""
        wanted = 1 if testing else _wanted(entry, workers)
        if entry.sockets and len(entry.sockets) < wanted:
            for sock in entry.sockets:  # or the kernel lets no second socket in beside one without the option
                _set(sock, entry, socket.SOL_SOCKET, "SO_REUSEPORT", 1, log)
        while len(entry.sockets) < wanted:
            new = _bind(entry, log, testing)
            if new is None:
                return False
            entry.sockets.append(new)
            self._opened.append((entry, new))
        return True

    def commit(self, old: "Listeners", log: ErrorLog) -> None:
        """From now on this cycle is the one that serves: close what only `old` has."""
        self._opened.clear()
        for before in old.entries.values():
            entry = self.entries.get(before.key)
            for sock in before.sockets:
                if entry is None or sock not in entry.sockets:
                    sock.close()
            if entry is None:
                if before.options is None:
                    log.emit(Level.WARN, f"inherited socket {before.text} is in no listen directive, closed")
                _unlink(before, log)

    def abandon(self) -> None:
        """Close what this cycle has opened; what it shares with the old one stays."""
        for entry, sock in self._opened:
            sock.close()
            if entry.path:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        self._opened.clear()

    def close(self, log: ErrorLog) -> None:
        """The server ends: close all, remove the files of Unix sockets."""
        for entry in self.entries.values():
            for sock in entry.sockets:
                sock.close()
            _unlink(entry, log)
        self.entries.clear()

    def for_worker(self, index: int) -> "list[tuple[Listen, socket.socket]]":
        """In a worker: its socket of each address; the others' are closed."""
        mine = []
        for entry in self.entries.values():
            sock = entry.sockets[index % len(entry.sockets)]
            for other in entry.sockets:
                if other is not sock:
                    other.close()
            assert entry.options is not None
            mine.append((entry.options, sock))
        return mine


def _wanted(entry: Listening, workers: int) -> int:
    assert entry.options is not None
    return max(workers, 1) if entry.options.reuseport else 1


def _key(family: int, sockaddr: Any) -> Key:
    if family == socket.AF_UNIX:
        return family, os.fsencode(sockaddr), 0
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError("unsupported protocol family")
    return family, socket.inet_pton(family, sockaddr[0]), sockaddr[1]


def _text(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _bind(entry: Listening, log: ErrorLog, testing: bool) -> socket.socket | None:
    """A socket that listens on the entry's address, or None when it is in use. Raises ListenError."""
    options, text = entry.options, entry.text
    assert options is not None
    address = options.address
    action = f"socket() {text}"
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(failed(action, error)) from None
    try:
        action = f"setsockopt() {text}"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuseport and not testing:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options.ipv6only))
        sock.setblocking(False)
        action = f"bind() to {text}"
        if entry.path and not testing:
            _remove_stale(entry.path, log)
        sock.bind(address.sockaddr)
        if entry.path:
            os.chmod(entry.path, UNIX_MODE)
        action = f"listen() to {text}, backlog {options.backlog}"
        sock.listen(options.backlog)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise ListenError(failed(action, error)) from None
        if not testing:
            log.emit(Level.EMERG, failed(action, error))
        return None
    return sock


def _remove_stale(path: str, log: ErrorLog) -> None:
    """Remove the socket file of a server that was killed: one that refuses connections."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            log.emit(Level.NOTICE, f"removing {path}, no server listens on it")
            os.unlink(path)


def _unlink(entry: Listening, log: ErrorLog) -> None:
    if not entry.path:
        return
    try:
        os.unlink(entry.path)
    except OSError as error:
        log.emit(Level.EMERG, failed(f"unlink() {entry.path}", error))


def _configure(entry: Listening, before: Listening | None, log: ErrorLog) -> None:
    """Set what may change while a socket listens; a failure is logged and ignored."""
    options = entry.options
    assert options is not None
    values: list[tuple[int, str, int | None]] = [
        (socket.SOL_SOCKET, "SO_RCVBUF", options.rcvbuf),
        (socket.SOL_SOCKET, "SO_SNDBUF", options.sndbuf),
        (socket.IPPROTO_TCP, "TCP_FASTOPEN", options.fastopen),
    ]
    had = before.options if before is not None else None
    if options.deferred or (had is not None and had.deferred):
        values.append((socket.IPPROTO_TCP, "TCP_DEFER_ACCEPT", int(options.deferred)))
    keep = options.so_keepalive
    if keep is not None:
        values.append((socket.SOL_SOCKET, "SO_KEEPALIVE", int(bool(keep))))
    if isinstance(keep, tuple):
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        values += [(socket.IPPROTO_TCP, name, value or None) for name, value in zip(names, keep, strict=True)]
    for sock in entry.sockets:
        for level, name, value in values:
            if value is not None:
                _set(sock, entry, level, name, value, log)
        if before is not None and (before.options is None or before.options.backlog != options.backlog):
            try:
                sock.listen(options.backlog)
            except OSError as error:
                what = f"listen() to {entry.text}, backlog {options.backlog}"
                log.emit(Level.ALERT, f"{failed(what, error)}, ignored")


def _set(sock: socket.socket, entry: Listening, level: int, name: str, value: int, log: ErrorLog) -> None:
    try:
        sock.setsockopt(level, getattr(socket, name), value)
    except OSError as error:
        log.emit(Level.ALERT, f"{failed(f'setsockopt({name}, {value}) {entry.text}', error)}, ignored")
