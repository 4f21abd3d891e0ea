"""What a balancing decision costs: ns for one pick and the connection's giving back, over shared memory.

    bench/picking.py [--method NAME ...] [--peers N ...] [--processes N ...] [--seconds S]

One table for each method: a row for each number of peers, a column for each number of processes that contend for the
same group. A figure is the CPU time of a process for one decision, the best of several rounds; with more processes it
has what they lose to each other in it. The last column is how many decisions all of them together made in a second,
with the most processes.
"""

from __future__ import annotations

import argparse
import os
import struct
import time
from collections.abc import Callable

from headgate.shm.peers import OK, IpHashed, KeyHashed, Least, Peers, Random, Ring, RingHashed, Shares
from headgate.shm.zone import GroupSpec, PeerSpec, Zone

ROUND = 0.02  # seconds
Get = Callable[[], int]


def methods(peers: Peers) -> dict[str, Callable[[], Get]]:
    """By name, what makes the call that decides for one request."""

    def timed(get: Get) -> Get:
        for i in range(peers.count):
            peers.note_whole(i, 5 + i % 50)
            peers.note_peak(i, 5 + i % 50)
        return get

    def ip_hash() -> Get:
        shares = Shares(peers)
        return lambda: IpHashed(peers, b"\x7f\0\0", shares).get()

    def hash() -> Get:
        shares = Shares(peers)
        return lambda: KeyHashed(peers, b"/some/key", shares).get()

    def consistent() -> Get:
        ring = Ring(peers)
        return lambda: RingHashed(peers, b"/some/key", ring).get()

    return {
        "round_robin": lambda: peers.pick,
        "least_conn": lambda: Least(peers).get,
        "least_time": lambda: timed(Least(peers, "last_byte inflight").get),
        "random": lambda: Random(peers).get,
        "random_two": lambda: Random(peers, True).get,
        "peak_ewma": lambda: timed(Random(peers, True, "peak").get),
        "ip_hash": ip_hash,
        "hash": hash,
        "consistent": consistent,
    }


def work(peers: Peers, get: Get, seconds: float) -> tuple[float, int, float]:
    """CPU ns a decision (the best round), decisions, and seconds that they took."""
    free = peers.free
    free(get(), OK)  # what is made at the first call
    best, total, began = float("inf"), 0, time.perf_counter()
    number = 8
    while (passed := time.perf_counter() - began) < seconds or best == float("inf"):
        cpu, wall = time.process_time_ns(), time.perf_counter()
        for _ in range(number):
            free(get(), OK)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter() - wall
        total += number
        if wall < ROUND:
            number *= 2
        else:
            best = min(best, cpu / number)
    return best, total, passed


def measure(method: str, count: int, processes: int, seconds: float) -> tuple[float, float]:
    """CPU ns a decision, the mean of the processes; decisions a second, of all."""
    specs = [PeerSpec(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80", "", weight=1 + i % 3) for i in range(count)]
    zone = Zone.create("bench", None, [GroupSpec("u", specs)])
    zone.commit()
    pipes = []
    for _ in range(processes):
        slot = zone.claim_slot()
        end, other = os.pipe()
        if os.fork() == 0:
            zone.bind(slot)
            peers = zone.peers("u")
            result = work(peers, methods(peers)[method](), seconds)
            os.write(other, struct.pack("dqd", *result))
            os._exit(0)
        os.close(other)
        pipes.append(end)
    results = [struct.unpack("dqd", os.read(end, 64)) for end in pipes]
    for end in pipes:
        os.close(end)
        os.wait()
    return sum(each[0] for each in results) / processes, sum(each[1] / each[2] for each in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="+")
    parser.add_argument("--peers", nargs="+", type=int, default=[3, 100, 1000, 10_000])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    args = parser.parse_args()
    scratch = Zone.create("names", None, [GroupSpec("u", [PeerSpec("a", "a")])])
    for method in args.method or methods(scratch.peers("u")):
        print(f"{method}: ns of CPU a decision, by processes")
        print(f"{'peers':>8}" + "".join(f"{n:>9}" for n in args.processes) + f"{'decisions/s':>14}")
        for count in args.peers:
            row = [measure(method, count, n, args.seconds) for n in args.processes]
            print(f"{count:>8}" + "".join(f"{ns:>9.0f}" for ns, _ in row) + f"{row[-1][1]:>14,.0f}", flush=True)
        print()


if __name__ == "__main__":
    main()
