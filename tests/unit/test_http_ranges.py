"""ranges.parse against a plain reading of nginx's rules, and the pieces a file is sent in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from headgate.worker.http.ranges import UNLIMITED, NotSatisfiable, Ranges, parse, ranges_filter
from headgate.worker.http.request import ONE_RANGE
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0-0", [(0, 1)]),
        (b"5-", [(5, 100)]),
        (b"-5", [(95, 100)]),
        (b"-500", [(0, 100)]),
        (b"0-999", [(0, 100)]),
        (b" 1 - 2 , 3-4", [(1, 3), (3, 5)]),
        (b"200-,1-2", [(1, 3)]),
        (b"0-99,0-0", None),
        (b"0-60,40-99", None),
        (b"9-8,1-1", [(1, 2)]),
        (b"0-0,9223372036854775807-", [(0, 1)]),
    ],
)
def test_parse(value: bytes, expected: list[tuple[int, int]] | None) -> None:
    assert parse(value, 100, UNLIMITED) == expected


@pytest.mark.parametrize(
    "value", [b"", b"x", b"-", b"1", b"1-2,", b"1-2 3", b"-0", b"100-", b"9223372036854775808-", b"8-7"]
)
def test_not_satisfiable(value: bytes) -> None:
    with pytest.raises(NotSatisfiable):
        parse(value, 100, UNLIMITED)


def test_limits() -> None:
    three = b"0-0,2-2,4-4"
    assert parse(three, 100, 3) == [(0, 1), (2, 3), (4, 5)]
    assert parse(three, 100, 2) is None
    assert parse(b",".join([b"0-0"] * 16), 100, UNLIMITED) is not None
    assert parse(b",".join([b"0-0"] * 17), 100, UNLIMITED) is None
    assert parse(b",".join([b"0-0"] * 17), 100, 50) is not None


SPEC = st.tuples(st.none() | st.integers(0, 150), st.none() | st.integers(0, 150)).filter(lambda s: s != (None, None))


@given(st.lists(SPEC, min_size=1, max_size=5), st.integers(0, 120))
def test_each_part_is_what_was_asked_for(specs: list[tuple[int | None, int | None]], length: int) -> None:
    value = ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in specs).encode()
    body = range(length)
    wanted = []
    for first, last in specs:
        if first is None:
            assert last is not None
            part = list(body)[max(length - last, 0) :]
        else:
            part = list(body)[first : length if last is None else last + 1]
        wanted.append(part)
    try:
        found = parse(value, length, 1000)
    except NotSatisfiable:
        assert not any(wanted)
        return
    if found is None:
        assert sum(map(len, wanted)) > length or not all(wanted)
    else:
        assert [list(body[start:end]) for start, end in found] == [part for part in wanted if part]


def test_pieces() -> None:
    assert Ranges([(b"", 3, 7)]).pieces() == [(3, 4)]
    several = Ranges([(b"a", 0, 1), (b"b", 5, 9)], b"end")
    assert several.pieces() == [b"a", (0, 1), b"b", (5, 4), b"end"]


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 30), st.integers(1, 30))
def test_one_range_is_cut_out_of_a_body_that_passes(pieces: list[bytes], start: int, size: int) -> None:
    body = b"".join(pieces)
    if start >= len(body):
        return
    filters: list[Any] = []
    out: list[bytes] = []
    r: Any = SimpleNamespace(
        add_body_filter=lambda body_filter, first: filters.append(body_filter),
        allow_ranges=ONE_RANGE, status=200, content_length=len(body), version=11, parent=None, fields=[], etag=None,
        last_modified=None, status_line=None, ranges=None,
        header=lambda name: b"bytes=%d-%d" % (start, start + size - 1) if name == b"range" else None,
    )  # fmt: skip
    ranges_filter(r)
    (cut,) = filters
    cut.push = lambda data, last: out.append(data)
    for piece in pieces:
        cut(piece, False)
    assert b"".join(out) == body[start : start + size]
    assert r.content_length == len(body[start : start + size])


def test_one_range_means_one() -> None:
    r: Any = SimpleNamespace(
        allow_ranges=ONE_RANGE, status=200, content_length=10, version=11, parent=None, fields=[],
        header=lambda name: b"bytes=0-0,2-2" if name == b"range" else None,
    )  # fmt: skip
    ranges_filter(r)
    assert (r.status, r.fields) == (200, [(b"Accept-Ranges", b"bytes")])
