"""The workers' counters: sums over rows, and totals that outlive a worker."""

import os

import pytest
from headgate.shm.counters import Counters
from headgate.shm.state import CounterState


def test_sums_run_over_all_rows() -> None:
    counters = Counters(slots=4)
    for n in (1, 2):
        row = counters.row(counters.claim(n))
        row.accepted += 10 * n
        row.handled += 9 * n
        row.requests += 100 * n
        row.active += 4 * n
        row.reading, row.writing, row.waiting = n, n, 2 * n
    assert counters.sum() == CounterState(30, 27, 300, 12, 3, 3, 6)


def test_totals_outlive_a_worker_and_what_it_was_doing_does_not() -> None:
    counters = Counters(slots=1)
    for pid in (7, 8):
        slot = counters.claim(pid)
        row = counters.row(slot)
        row.accepted += 2
        row.handled += 2
        row.requests += 5
        row.active += 1
        row.reading, row.writing, row.waiting = 1, 1, 1
        counters.release(slot)
    assert counters.sum() == CounterState(4, 4, 10, 0, 0, 0, 0)


def test_rows_run_out_and_unclaimed_ones_are_refused() -> None:
    counters = Counters(slots=1)
    for refused in (counters.row, counters.release):
        with pytest.raises(ValueError, match="row 0 of the counters is not claimed"):
            refused(0)
    assert counters.claim() == 0
    with pytest.raises(IndexError, match="no free row"):
        counters.claim()
    with pytest.raises(ValueError, match="not 0"):
        Counters(slots=0)


def test_another_process_writes_its_row() -> None:
    counters = Counters()
    slot = counters.claim()
    pid = os.fork()
    if pid == 0:
        try:
            counters.row(slot).requests += 3
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert counters.sum().requests == 3


def test_a_thousand_rows_take_a_page_until_they_are_used() -> None:
    counters = Counters(1000)
    counters.row(counters.claim()).accepted += 1
    counters.sum()
    assert os.fstat(counters.segment.fd).st_blocks * 512 == 4096
