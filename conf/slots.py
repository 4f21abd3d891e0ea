"""Value parsers for directives: nginx's flag, number, size, offset, msec, sec, enum, bitmask and string slots.

Each takes a `Call` and returns the value; a value that does not fit raises nginx's own text.
Times come back as float seconds whatever the unit written, sizes as int bytes.
"""

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from headgate.conf.directive import Call

E = TypeVar("E", bound=enum.Flag)

_SIZE = re.compile(r"(\d+)([kKmM]?)", re.ASCII)
_OFFSET = re.compile(r"(\d+)([kKmMgG]?)", re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIME = re.compile(r"(\d+)(ms|[yMwdhms]?) *", re.ASCII)
_TIME_UNITS = {
    "y": 365 * 86400.0, "M": 30 * 86400.0, "w": 7 * 86400.0, "d": 86400.0, "h": 3600.0, "m": 60.0,
    "s": 1.0, "": 1.0, "ms": 0.001,
}  # fmt: skip
_ORDER = ["y", "M", "w", "d", "h", "m", "s", "ms"]
MAX_SIZE = (1 << 63) - 1


def parse_size(text: str) -> int | None:
    """`8k`, `1m`, `512` -> bytes, or None (ngx_parse_size)."""
    match = _SIZE.fullmatch(text)
    return _scaled(match) if match else None


def parse_offset(text: str) -> int | None:
    """As `parse_size`, with `g` too (ngx_parse_offset)."""
    match = _OFFSET.fullmatch(text)
    return _scaled(match) if match else None


def _scaled(match: re.Match[str]) -> int | None:
    value = int(match[1]) * _UNITS[match[2].lower()]
    return value if value <= MAX_SIZE else None


def parse_time(text: str, msec: bool = True) -> float | None:
    """`1h 30m`, `500ms`, `10` -> seconds, or None (ngx_parse_time).

    Units go from large to small, each once; a number without a unit (seconds) comes last.
    `msec`: the directive has millisecond resolution. Those alone take the unit ms, and they take no years or months.
    """
    at, total, last = 0, 0.0, _ORDER.index("M") if msec else -1
    while at < len(text):
        match = _TIME.match(text, at)
        if not match or (match[2] == "ms" and not msec):
            return None
        unit = match[2] or "s"
        step = _ORDER.index(unit)
        if step <= last or (not match[2] and match.end() != len(text)):
            return None
        last = step
        total += int(match[1]) * _TIME_UNITS[unit]
        at = match.end()
    return total if text and total <= MAX_SIZE / 1000 else None


def flag(call: Call) -> bool:
    """`on` or `off`."""
    text = call.args[0].lower()
    if text not in ("on", "off"):
        raise call.error_at(f'invalid value "{call.args[0]}" in "{call.name}" directive, it must be "on" or "off"')
    return text == "on"


def number(call: Call) -> int:
    """A non-negative decimal number."""
    text = call.args[0]
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_SIZE:
        raise call.error("invalid number")
    return int(text)


def size(call: Call) -> int:
    """A size in bytes with an optional k or m."""
    value = parse_size(call.args[0])
    if value is None:
        raise call.error("invalid value")
    return value


def offset(call: Call) -> int:
    """A size in bytes with an optional k, m or g."""
    value = parse_offset(call.args[0])
    if value is None:
        raise call.error("invalid value")
    return value


def msec(call: Call) -> float:
    """A time with millisecond resolution, in seconds."""
    value = parse_time(call.args[0])
    if value is None:
        raise call.error("invalid value")
    return value


def sec(call: Call) -> float:
    """A time with second resolution, in seconds."""
    value = parse_time(call.args[0], msec=False)
    if value is None:
        raise call.error("invalid value")
    return value


def string(call: Call) -> str:
    """The text as it is."""
    return call.args[0]


def enum_of(values: Mapping[str, Any]) -> Callable[[Call], Any]:
    """One of a set of words."""

    def parse(call: Call) -> Any:
        try:
            return values[call.args[0].lower()]
        except KeyError:
            raise call.error_at(f'invalid value "{call.args[0]}"') from None

    return parse


def bitmask(kind: type[E], words: Mapping[str, E]) -> Callable[[Call], E]:
    """Any number of words out of a set, each once (ngx_conf_set_bitmask_slot)."""

    def parse(call: Call) -> E:
        mask = kind(0)
        for word in call.args:
            if word.lower() not in words:
                raise call.error_at(f'invalid value "{word}"')
            bit = words[word.lower()]
            if bit in mask and bit:
                call.warn(f'duplicate value "{word}"')
            mask |= bit
        return mask

    return parse


def buffers(call: Call) -> tuple[int, int]:
    """`number size`, both positive (ngx_conf_set_bufs_slot)."""
    count, each = call.args[0], parse_size(call.args[1])
    if not count.isdigit() or not int(count) or not each:
        raise call.error("invalid value")
    return int(count), each


def template(call: Call) -> Any:
    """A text with variables, compiled once (ngx_http_set_complex_value_slot)."""
    return call.template(call.args[0])
