"""What the shared tables hold at one moment, as plain values for status pages, logs and tests.

Times are milliseconds of CLOCK_MONOTONIC, 0 for never.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotState:
    """A worker's slot in a zone."""

    slot: int
    pid: int  # 0 while the process is not forked yet
    started: int
    heartbeat: int
    generation: int
    held: int  # connections to peers


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer's record. Counters run since the peer was added to its upstream."""

    server: str
    address: str
    backup: bool
    down: bool
    drain: bool
    weight: int
    effective_weight: int
    current_weight: int
    conns: int
    max_conns: int
    fails: int
    max_fails: int
    fail_timeout: int  # ms
    accessed: int
    checked: int
    slow_start: int  # ms
    slow_started: int
    requests: int
    failed: int
    responses: tuple[int, int, int, int, int]  # 1xx to 5xx
    last_ms: int  # response time
    average_ms: float
    header_ms: int  # exponential averages of least_time, 0: none yet
    response_ms: int
    peak_ms: float  # of peak_ewma
    bytes_in: int
    bytes_out: int
    health: str  # of active checks: unknown, up, down, checking; "" without any
    ejected: bool  # as an outlier, and that is in force
    ejected_until: int
    ejections: int  # in all


@dataclass(frozen=True, slots=True)
class CounterState:
    """The client side's counters, all workers together."""

    accepted: int
    handled: int
    requests: int
    active: int
    reading: int
    writing: int
    waiting: int
