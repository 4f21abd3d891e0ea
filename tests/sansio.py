"""Feeding sans-IO readers in every way that bytes may arrive.

for pieces in ways(data):                # whole, byte by byte, and cut once at each place
    reader = make()
    for piece in pieces: ...

for pieces, trailing in ways_with(data): # and with bytes behind that belong to what comes next
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_CUTS = 200


def ways(data: bytes) -> Iterator[list[bytes]]:
    """`data` whole, in single bytes, and in two pieces at each place (at most some 200 of them)."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    step = max(1, len(data) // MAX_CUTS)
    for cut in range(1, len(data), step):
        yield [data[:cut], data[cut:]]


def ways_with(data: bytes, trailing: bytes) -> Iterator[list[bytes]]:
    """As `ways`, with `trailing` stuck to the last piece."""
    for pieces in ways(data):
        yield [*pieces[:-1], pieces[-1] + trailing]
