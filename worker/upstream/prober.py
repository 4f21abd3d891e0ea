"""Active health checks: one worker, elected in the zone, asks every peer of a group now and then.

What a check has found is in the zone (`Health` of headgate.shm.peers), where the one rule of eligibility reads it. The
elected worker renews its lease; when it leaves, dies or is stopped, another one takes over. How a peer is asked is the
check's own business (`Check.probe`).
"""

import asyncio
import random
from typing import TYPE_CHECKING, Protocol

from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.upstream.group import Group, PeerAddress

RENEW = 0.25  # seconds between looks at the lease


class CheckFailed(Exception):
    """A peer did not pass; the text says while doing what, and why."""


class Check(Protocol):
    """One health check as configured. Times in seconds; `id` names it in the zone."""

    id: int
    name: str
    interval: float
    jitter: float
    fails: int
    passes: int
    mandatory: bool
    persistent: bool

    async def probe(self, worker: "HttpWorker", address: "PeerAddress") -> None:
        """Ask the peer. Raises CheckFailed."""

    def stop(self) -> None:
        """This worker asks no more."""


class Prober:
    """The checks of one group in one worker."""

    __slots__ = ("_busy", "_group", "_loops", "_worker")

    def __init__(self, group: "Group", worker: "HttpWorker") -> None:
        self._group = group
        self._worker = worker
        self._loops: list[asyncio.Task[None]] = []  # of the checks, while this worker is the elected one
        self._busy: dict[tuple[int, str], asyncio.Task[None]] = {}  # by check and address
        worker.loop.call_soon(self._elect)

    def _current(self) -> "Group":
        live = self._group.live
        return self._group if live is None else live.current()

    def _elect(self) -> None:
        worker = self._worker
        if worker.leaving:
            return
        health = self._current().health
        leads = health is not None and health.lead()
        if leads and not self._loops:
            self._loops = [worker.loop.create_task(self._run(check)) for check in self._group.checks]
        elif not leads:
            self._cancel()
        worker.loop.call_later(RENEW, self._elect)

    def stop(self) -> None:
        """This worker leaves: another one may go on at once."""
        self._cancel()
        health = self._current().health
        if health is not None:
            health.leave()

    def _cancel(self) -> None:
        if not self._loops:
            return
        for task in (*self._loops, *self._busy.values()):
            task.cancel()
        self._loops.clear()
        self._busy.clear()
        for check in self._group.checks:
            check.stop()

    async def _run(self, check: Check) -> None:
        """Ask all peers once in an interval; one that takes longer than that is not asked again meanwhile."""
        loop = self._worker.loop
        while True:
            group = self._current()
            if group.health is not None:
                for index, address in enumerate(group.addresses):
                    key = (check.id, address.text)
                    if key not in self._busy and not group.peers.specs[index].down:
                        self._busy[key] = loop.create_task(self._probe(check, address))
            await asyncio.sleep(check.interval)

    async def _probe(self, check: Check, address: "PeerAddress") -> None:
        try:
            if check.jitter:
                await asyncio.sleep(random.random() * check.jitter)
            try:
                await check.probe(self._worker, address)
            except CheckFailed as error:
                self._note(check, address, str(error))
            else:
                self._note(check, address, None)
        finally:
            if self._busy.get((check.id, address.text)) is asyncio.current_task():
                del self._busy[check.id, address.text]

    def _note(self, check: Check, address: "PeerAddress", failure: str | None) -> None:
        group = self._current()
        if group.health is None:
            return
        changed = 0
        for index, each in enumerate(group.addresses):
            if each.text == address.text:
                changed = group.health.note(index, check.id, failure is None, check.fails, check.passes) or changed
        if not changed:
            return
        if group.outliers is not None:
            group.outliers.enforce()
        whose = f'health check "{check.name}" of peer {address.text} in upstream "{group.name}"'
        if failure is None:
            self._worker.log.emit(Level.NOTICE, f"peer is healthy, {whose}")
        else:
            self._worker.log.emit(Level.WARN, f"peer is unhealthy while {failure}, {whose}")
