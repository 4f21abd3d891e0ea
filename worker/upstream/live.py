"""`server NAME resolve` and `service=`: groups whose addresses come and go while the server runs.

One worker asks the resolver and puts what it learns on the group's board (`headgate.shm.board`); all workers, that one
too, look at the board's version when a request wants the group, and make a new `Group` of what is there when it has
changed. A request keeps the group that it began with. What names stood for last stays when the resolver fails for any
other reason than that there is no such name; a peer that stays keeps its record, and so its state.
"""

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headgate.masterd.logfile import Level
from headgate.shm.zone import ZoneTooSmall
from headgate.worker.upstream.group import Group, ServerSpec, numeric
from headgate.worker.upstream.peers import OwnPeers

if TYPE_CHECKING:
    from headgate.shm.zone import Zone
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.resolver.conf import ResolverSpec

RETRY = 1.0  # seconds at least between two questions
Row = list[Any]  # address, port, priority, weight, name
Rows = dict[str, list[Row]]  # by server


class LiveGroup:
    """The present state of a group with names to resolve, in this worker."""

    __slots__ = ("_board", "_group", "_rows", "_tasks", "_version", "_worker", "_zone", "snapshot")

    def __init__(self, group: Group, worker: "HttpWorker", zone: "Zone") -> None:
        self._group = group
        self._worker = worker
        self._zone = zone
        self._board = zone.board(group.name)
        self._version = -1
        self._rows: Rows = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.snapshot = self._empty()

    def current(self) -> Group:
        """The group as it is now."""
        if self._board.version != self._version:
            self._renew()
        return self.snapshot

    def _renew(self) -> None:
        version, text, _ = self._board.read()
        rows: Rows = json.loads(text) if text else {}
        group = self._make(rows)
        if not group.addresses:
            group = self._empty()
        else:
            peers = self._zone.found(group.name, group.spec().peers)
            if peers is None:
                return  # overtaken by the next version
            group.queue = self.snapshot.queue  # who waits goes on waiting among those that will
            group.use(peers)
        self.snapshot = group
        self._rows = rows
        self._version = version

    def _make(self, rows: Rows) -> Group:
        """The group with the addresses in `rows`, but without peers."""
        own = self._group
        servers = list(own.servers)
        for server in own.dynamic:
            found = rows.get(_key(server), [])
            servers += _of_service(server, found) if server.service else [_of_name(server, found)]
        group = replace(own, servers=servers, dynamic=[], live=None)
        group.order()
        return group

    def _empty(self) -> Group:
        group = self._make({})
        if group.addresses:
            group.use(self._zone.peers(group.name))
        else:
            group.peers = group.balancer = OwnPeers(0)  # type: ignore[assignment]
        return group

    # the worker that resolves

    def keep(self) -> None:
        """Resolve the group's names from now on, for all workers."""
        spec = self._group.resolver
        assert spec is not None, "checked when the configuration was built"
        rows = self._read()
        if rows:
            self._put(rows)  # from before a reload: with what the servers' lines say now
        for server in self._group.dynamic:
            self._tasks.append(self._worker.loop.create_task(self._keep(server, spec)))

    def stop(self) -> None:
        """This worker leaves."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _keep(self, server: ServerSpec, spec: "ResolverSpec") -> None:
        from headgate.worker.resolver.resolver import ResolveError
        from headgate.worker.resolver.wire import NXDOMAIN

        loop = self._worker.loop
        resolver, timeout = spec.get(self._worker), self._group.resolver_timeout
        while True:
            rows: list[Row] = []
            try:
                if server.service:
                    found, valid, lines = await resolver.service(server.service, server.host, timeout)
                    for line in lines:
                        self._log(line)
                    rows = [[each.address, each.port, each.priority, each.weight, each.name] for each in found]
                else:
                    addresses, valid = await resolver.resolve(server.host, timeout)
                    rows = [[address, 0, 0, 1, ""] for address in addresses]
            except ResolveError as error:
                what = f"service {server.service} of {server.host}" if server.service else server.host
                self._log(f"{what} could not be resolved {error}")
                if error.code != NXDOMAIN:
                    await asyncio.sleep(max(timeout, RETRY))
                    continue
                valid = error.valid
            if not self._publish(server, rows):
                await asyncio.sleep(RETRY)
                continue
            await asyncio.sleep(max(valid - int(loop.time()) + 1, RETRY))

    def _publish(self, server: ServerSpec, found: list[Row]) -> bool:
        """Put up what a name stands for now; False when that must be tried again soon."""
        rows = self._read()
        key = _key(server)
        old = rows.get(key, [])
        if sorted(old) == sorted(found):
            return True
        rows[key] = _merged(old, found)
        return self._put(rows)

    def _read(self) -> Rows:
        """What is on the board about the group's names."""
        _, text, _ = self._board.read()
        known = {_key(each) for each in self._group.dynamic}
        rows: Rows = json.loads(text) if text else {}
        return {name: rows[name] for name in rows if name in known}

    def _put(self, rows: Rows) -> bool:
        try:
            self._zone.publish(self._group.name, self._make(rows).spec().peers, json.dumps(rows).encode())
        except TimeoutError:
            return False
        except (ZoneTooSmall, ValueError, OSError):
            self._log(f'cannot add new server to upstream "{self._group.name}", memory exhausted')
        return True

    def _log(self, text: str) -> None:
        self._worker.log.emit(Level.ERROR, text)


def _key(server: ServerSpec) -> str:
    return f"{server.host} {server.service}" if server.service else server.host


def _merged(old: list[Row], new: list[Row]) -> list[Row]:
    """The new rows: those that stay keep their order, as they are peers that balancers know."""
    left = list(new)
    kept = []
    for row in old:
        if row in left:
            left.remove(row)
            kept.append(row)
    return kept + left


def _of_name(server: ServerSpec, rows: list[Row]) -> ServerSpec:
    """The peers that a name stands for: each address with the server's own port and weight."""
    return replace(server, resolved=True, addresses=[numeric(row[0], server.port) for row in rows])


def _of_service(server: ServerSpec, rows: list[Row]) -> list[ServerSpec]:
    """The peers of a service: those of the lowest priority serve, the others are backups (RFC 2782)."""
    first = min((row[2] for row in rows), default=0)
    return [
        replace(
            server,
            name=name,
            resolved=True,
            addresses=[numeric(address, port)],
            weight=server.weight if server.weight != 1 else weight,
            backup=server.backup or priority != first,
        )
        for address, port, priority, weight, name in rows
    ]
