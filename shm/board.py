"""A board: a text that one process puts up for all others, in a segment of its own.

Rules: whoever reads compares `version`, one word, and reads on only when it has changed. The text of a version lies in
one of two halves, so a writer that dies in the middle leaves the last one as it was; a reader that was overtaken reads
again. Two writers at a time are kept apart by whoever owns the board (the zone, under its lock).
"""

import zlib

from headgate.shm.segment import Segment

HALF = 1 << 18  # bytes of a half; pages that were never written cost nothing
KEY = 16
_HEAD = 64  # the version, alone in its cache line
_SIZES = 16  # of a half: text 4, keys 4, checksum 8


class Board:
    """Text and keys, nothing of either at first. Raises OSError when the system refuses the memory."""

    __slots__ = ("_map", "_segment", "_words")

    def __init__(self) -> None:
        self._segment = Segment.create(_HEAD + 2 * HALF)
        self._segment.reserve(0, _HEAD)
        self._map = memoryview(self._segment.map)
        self._words = self._map[:_HEAD].cast("Q")

    @property
    def version(self) -> int:
        """Another number after every `write`; 0 before the first."""
        return self._words[0]

    def read(self) -> tuple[int, bytes, list[bytes]]:
        """A version, its text and its keys."""
        while True:
            version = self._words[0]
            if not version:
                return 0, b"", []
            half = self._half(version)
            text, keys, checksum = self._sizes(half)
            if text + keys <= HALF - _SIZES:
                data = bytes(half[_SIZES : _SIZES + text + keys])
                if zlib.crc32(data) == checksum and self._words[0] - version < 2:
                    return version, data[:text], [data[i : i + KEY] for i in range(text, text + keys, KEY)]

    def write(self, text: bytes, keys: list[bytes]) -> None:
        """Put up a text, and the keys (16 bytes each) of the records that it is about.

        Raises ValueError when they are too long, OSError when the system refuses the memory; the old ones stay then.
        """
        data = text + b"".join(keys)
        if len(data) > HALF - _SIZES:
            raise ValueError(f"{len(data)} bytes are too many for a board")
        version = self._words[0] + 1
        self._segment.reserve(_HEAD + (version & 1) * HALF, _SIZES + len(data))
        half = self._half(version)
        half[:4] = len(text).to_bytes(4, "little")
        half[4:8] = (len(data) - len(text)).to_bytes(4, "little")
        half[8:_SIZES] = zlib.crc32(data).to_bytes(8, "little")
        half[_SIZES : _SIZES + len(data)] = data
        self._words[0] = version

    def _half(self, version: int) -> memoryview:
        start = _HEAD + (version & 1) * HALF
        return self._map[start : start + HALF]

    @staticmethod
    def _sizes(half: memoryview) -> tuple[int, int, int]:
        number = int.from_bytes
        return number(half[:4], "little"), number(half[4:8], "little"), number(half[8:_SIZES], "little")
