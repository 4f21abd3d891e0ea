"""Cached connections to upstream servers: at most `keepalive` idle ones in each worker and group.

It wraps any balancer: the balancer chooses the peer, then the cache is asked for a connection to it, the
most recently used first. What arrives on an idle connection, or its end, closes it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.upstream.connect import UpstreamConnection

DEFAULT = 32  # connections a worker and group keeps unless told otherwise (as mainline nginx)


@dataclass(slots=True)
class KeepaliveConf:
    """`keepalive`, `keepalive_requests`, `keepalive_time`, `keepalive_timeout`; seconds."""

    connections: int = DEFAULT
    local: bool = True
    requests: int = 1000
    time: float = 3600.0
    timeout: float = 60.0


class Keepalive:
    """The idle connections of one group in this worker."""

    __slots__ = ("_by_key", "_idle", "conf", "worker")

    def __init__(self, conf: KeepaliveConf, worker: "HttpWorker") -> None:
        self.conf = conf
        self.worker = worker
        self._by_key: dict[object, list[UpstreamConnection]] = {}
        self._idle: dict[UpstreamConnection, object] = {}  # oldest first

    def get(self, key: object) -> "UpstreamConnection | None":
        """An idle connection to this peer, or None."""
        stack = self._by_key.get(key)
        if not stack:
            return None
        conn = stack.pop()
        del self._idle[conn]
        conn.deadline = 0.0
        return conn

    def put(self, key: object, conn: "UpstreamConnection") -> None:
        """Keep a connection whose response is complete; closes it or the oldest when that may not be."""
        conf = self.conf
        worker = self.worker
        if conn.requests >= conf.requests or worker.leaving or worker.timers.now - conn.made > conf.time:
            conn.close()
            return
        conn.owner = None
        conn.cache = self
        if len(self._idle) >= conf.connections:
            next(iter(self._idle)).close()
        self._idle[conn] = key
        stack = self._by_key.get(key)
        if stack is None:
            self._by_key[key] = [conn]
        else:
            stack.append(conn)
        worker.timers.set(conn, conf.timeout)

    def forget(self, conn: "UpstreamConnection") -> None:
        """An idle connection is being closed."""
        key = self._idle.pop(conn, None)
        if key is not None:
            stack = self._by_key[key]
            stack.remove(conn)
            if not stack:
                del self._by_key[key]  # the address may never be used again

    def close_all(self) -> None:
        """Close every idle connection: the worker leaves."""
        for conn in list(self._idle):
            conn.close()
