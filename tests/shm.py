"""What the tests of shared memory share: zones of one upstream "u", and workers that are bare children of the test."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable

from headgate.shm.peers import Peers
from headgate.shm.segment import Segment
from headgate.shm.zone import GroupSpec, PeerSpec, Zone


def zone_of(*weights: int, max_conns: int = 0, max_fails: int = 0) -> Zone:
    """A committed zone with one upstream "u"; its peers do not fail unless `max_fails` says so."""
    specs = [
        PeerSpec(str(n), f"{n}:80", weight, max_conns, max_fails, fail_timeout=10) for n, weight in enumerate(weights)
    ]
    zone = Zone.create("z", None, [GroupSpec("u", specs)])
    zone.commit()
    return zone


class Worker:
    """A child process bound to a slot of its own, that does `work` and sends back the numbers that it returns."""

    def __init__(self, zone: Zone, work: Callable[[Peers], list[int]]) -> None:
        self.slot = zone.claim_slot()
        self._end, end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                zone.bind(self.slot)
                numbers = work(zone.peers("u"))
                os.write(end, struct.pack(f"{len(numbers)}q", *numbers))
                os._exit(0)
            finally:
                os._exit(1)
        os.close(end)
        zone.own_slot(self.slot, self.pid)

    def stopped(self) -> bool:
        """Waits until the process has stopped (True) or is gone."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Waits for the end of the process: the signal that ended it, or 0."""
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def result(self) -> list[int]:
        """What it returned; it must have ended well, or be about to."""
        with open(self._end, "rb") as end:
            data = end.read()
        return list(struct.unpack(f"{len(data) // 8}q", data))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._end)


def together(zone: Zone, processes: int, work: Callable[[Peers], list[int]]) -> list[list[int]]:
    """What so many workers return that begin at the same moment."""
    gate = Segment.create(4096)

    def start(peers: Peers) -> list[int]:
        while not gate.map[0]:
            os.sched_yield()
        return work(peers)

    workers = [Worker(zone, start) for _ in range(processes)]
    gate.map[0] = 1
    results = [worker.result() for worker in workers]
    assert [worker.wait() for worker in workers] == [0] * processes
    return results


def conns(zone: Zone) -> list[int]:
    return [zone.peers("u").conns(i) for i in range(zone.peers("u").count)]


def held(zone: Zone) -> int:
    return sum(state.held for state in zone.slots())
