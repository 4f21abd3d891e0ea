"""The HTTP side of one worker process: accepts on the listening sockets, counts, and leaves in order.

`start()` is called after the fork. Leaving is in steps: `stop_accepting`, then `idle_close` gives idle
client connections a grace in which a next request is answered with `Connection: close`, and `active`
tells when the last request has ended.
"""

import asyncio
import socket
from collections.abc import Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

from headgate.masterd.logfile import Level
from headgate.worker.http.conf import HttpConf
from headgate.worker.http.protocol import Connection
from headgate.worker.outbox import Outbox
from headgate.worker.timers import Timed, Timers

if TYPE_CHECKING:
    from headgate.masterd.cycle import Cycle
    from headgate.masterd.logfile import ErrorLog
    from headgate.worker.http.listen import Listen
    from headgate.worker.process import Worker
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.group import Group


class HttpWorker:
    """What all connections of a worker share."""

    __slots__ = (
        "_servers", "backends", "connections", "grace_over", "groups", "leaving", "limit", "log", "loop", "outbox",
        "reused", "timers",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, log: "ErrorLog", limit: int) -> None:
        self.loop = loop
        self.log = log
        self.limit = limit
        self.timers = Timers(loop)
        self.outbox = Outbox(loop)
        self.connections: set[Connection] = set()
        self.backends: set[UpstreamConnection] = set()
        self.reused = 0  # the second in which the log was last told of it
        self.groups: list[Group] = []
        self.leaving = False
        self.grace_over = False  # whoever becomes idle now is closed
        self._servers: list[asyncio.Server] = []

    def listen(self, sockets: "Sequence[tuple[Listen, socket.socket]]") -> None:
        """Accept on these sockets from now on; they are closed by `stop_accepting`."""
        for conf, sock in sockets:
            sock.setblocking(False)
            made = self.loop.create_server(
                lambda conf=conf: self._accept(conf),  # type: ignore[misc]
                sock=sock,
                backlog=conf.backlog,
            )
            self._servers.append(self.loop.run_until_complete(made))

    def _accept(self, conf: "Listen") -> Any:
        """The protocol of a new connection."""
        return _AnyAddress(self, conf) if conf.behind else self.protocol(conf)

    def protocol(self, conf: "Listen") -> Any:
        """What reads a connection to this address."""
        if conf.ssl:
            from headgate.worker.http import ssl

            return ssl.accept(self, conf)
        return Connection(self, conf)

    def admit(self, conn: Connection) -> bool:
        """Count a new connection in, unless worker_connections is reached."""
        if not self.room():
            self.log.emit(Level.ALERT, f"{self.limit} worker_connections are not enough")
            return False
        self.connections.add(conn)
        return True

    def room(self) -> bool:
        """Whether worker_connections leaves room for one more, a client's or to a server; idle ones give way."""
        if len(self.connections) + len(self.backends) < self.limit:
            return True
        spare: list[Connection | UpstreamConnection] = [conn for conn in self.connections if conn.spare()]
        spare += [conn for conn in self.backends if conn.owner is None]
        if not spare:
            return False
        now = int(self.timers.refresh())
        if self.reused != now:
            self.reused = now
            self.log.emit(Level.WARN, f"{self.limit} worker_connections are not enough, reusing connections")
        for conn in nsmallest(max(min(32, len(spare) // 8), 1), spare, key=_deadline):
            conn.give_way()
        return True

    def release(self, conn: Connection) -> None:
        self.connections.discard(conn)

    # -- leaving ---------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Leave new connections to other processes, close idle ones to upstreams; what is being served goes on."""
        self.leaving = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for group in self.groups:
            if group.keepalive is not None:
                group.keepalive.close_all()
            if group.live is not None:
                group.live.stop()
            if group.prober is not None:
                group.prober.stop()

    def idle_close(self, grace: float) -> None:
        """Close idle client connections after `grace` seconds; until then each may send one more request."""
        if grace > 0:
            self.loop.call_later(grace, self._close_idle)
        else:
            self._close_idle()

    def _close_idle(self) -> None:
        self.grace_over = True
        for conn in list(self.connections):
            conn.close_idle()

    @property
    def active(self) -> int:
        """Client connections still open."""
        return len(self.connections)

    def shutdown(self) -> None:
        """Cut what is left (worker_shutdown_timeout, fast stop)."""
        for conn in list(self.connections):
            conn.abort()


def _deadline(timed: Timed) -> float:
    return timed.deadline


class _AnyAddress:
    """A connection to a wildcard address with others behind it: its own address chooses its protocol."""

    __slots__ = ("conf", "worker")

    def __init__(self, worker: HttpWorker, conf: "Listen") -> None:
        self.worker = worker
        self.conf = conf

    def connection_made(self, transport: Any) -> None:
        name = transport.get_extra_info("sockname") or ("",)  # nothing: the client is gone already
        chosen = self.worker.protocol(self.conf.behind.get(name[0], self.conf))
        transport.set_protocol(chosen)
        chosen.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        raise AssertionError("it has another protocol by now")


def start(cycle: "Cycle", loop: asyncio.AbstractEventLoop, worker: "Worker") -> HttpWorker:
    """Start serving the cycle's http block in this process."""
    http: HttpConf = cycle.config.http
    served = HttpWorker(loop, cycle.log, cycle.config.events.worker_connections)
    for location in http.locations:
        if location.error_log is None:
            location.error_log = cycle.log
    for group in http.groups.values():
        group.start(served, cycle.zones)
        served.groups.append(group)
    main = cycle.config.main
    workers = main.worker_processes if main.master_process else 1
    live = [group.live for group in served.groups if group.live is not None]
    for each in live[worker.index % workers :: workers]:  # one worker for each, all workers together for all
        each.keep()
    for starter in http.starters:
        starter(served)
    served.listen(worker.listening)
    return served
