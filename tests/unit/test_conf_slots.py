"""Value parsers: sizes, offsets, times, flags, numbers, enums, bit masks, buffers."""

import enum
from collections.abc import Callable
from typing import Any

import pytest
from headgate.conf import slots
from headgate.conf.build import Config, Scope
from headgate.conf.directive import Call, Command, Ctx
from headgate.conf.errors import ConfError
from headgate.conf.modules import Registry
from headgate.conf.parser import parse_text


def call(text: str) -> Call:
    """A directive as a slot sees it."""
    statement = parse_text(text, "f")[0]
    scope = Scope(Ctx.MAIN, None, Config("f", "/"), Registry())
    return Call(statement, scope, Command(statement.name, Ctx.MAIN, "1", lambda call: None))


@pytest.mark.parametrize(
    "text, size",
    [("0", 0), ("512", 512), ("1k", 1024), ("2K", 2048), ("3m", 3 << 20), ("3M", 3 << 20)]
    + [(text, None) for text in ("", "k", "-1", "1g", "1kk", "1 k", "x", "1.5k", "\u0661", "99999999999999999999")],
)
def test_size(text: str, size: int | None) -> None:
    assert slots.parse_size(text) == size


@pytest.mark.parametrize(
    "text, size", [("1g", 1 << 30), ("2G", 2 << 30), ("1k", 1024), ("8589934592g", None), ("g", None)]
)
def test_offset(text: str, size: int | None) -> None:
    assert slots.parse_offset(text) == size


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("0", 0), ("10", 10), ("10s", 10), ("500ms", 0.5), ("1m", 60), ("1h", 3600), ("1d", 86400), ("1w", 604800),
        ("1h30m", 5400), ("1h 30m", 5400), ("3w 4d 5h 6m 7s 8ms", 2178367.008),
        ("1m 30", 90), ("1s500ms", 1.5),
    ]
    + [(text, None) for text in ("", "x", "-1", "1m1h", "1s1s", "1 30m", "1x", "ms", "1.5s", "10 s", "1M", "1y")],
)  # fmt: skip
def test_time(text: str, seconds: float | None) -> None:
    assert slots.parse_time(text) == (None if seconds is None else pytest.approx(seconds))


def test_time_in_whole_seconds() -> None:
    assert slots.parse_time("500ms", msec=False) is None
    assert slots.parse_time("1m", msec=False) == 60
    assert slots.parse_time("1y 2M 3w 4d 5h 6m 7s", msec=False) == 38898367


class Bits(enum.Flag):
    OFF = 0
    A = 1
    B = 2


ENUM = slots.enum_of({"one": 1, "two": 2})
MASK = slots.bitmask(Bits, {"off": Bits.OFF, "a": Bits.A, "b": Bits.B})
VALUES: list[tuple[Callable[[Call], Any], str, Any]] = [
    (slots.flag, "d on;", True),
    (slots.flag, "d OFF;", False),
    (slots.number, "d 12;", 12),
    (slots.size, "d 1k;", 1024),
    (slots.offset, "d 1g;", 1 << 30),
    (slots.msec, "d 10ms;", 0.01),
    (slots.sec, "d 10;", 10.0),
    (slots.string, "d 'a b';", "a b"),
    (ENUM, "d ONE;", 1),
    (MASK, "d a b;", Bits.A | Bits.B),
    (MASK, "d off;", Bits.OFF),
    (slots.buffers, "d 4 8k;", (4, 8192)),
]
ERRORS: list[tuple[Callable[[Call], Any], str, str]] = [
    (slots.flag, "d yes;", 'invalid value "yes" in "d" directive, it must be "on" or "off"'),
    (slots.number, "d -1;", '"d" directive invalid number'),
    (slots.number, "d 9999999999999999999;", '"d" directive invalid number'),
    (slots.size, "d 1g;", '"d" directive invalid value'),
    (slots.offset, "d x;", '"d" directive invalid value'),
    (slots.msec, "d x;", '"d" directive invalid value'),
    (slots.sec, "d 1ms;", '"d" directive invalid value'),
    (ENUM, "d three;", 'invalid value "three"'),
    (MASK, "d a c;", 'invalid value "c"'),
    (slots.buffers, "d 0 8k;", '"d" directive invalid value'),
    (slots.buffers, "d x 8k;", '"d" directive invalid value'),
    (slots.buffers, "d 4 0;", '"d" directive invalid value'),
]


@pytest.mark.parametrize("slot, text, value", VALUES)
def test_value(slot: Callable[[Call], Any], text: str, value: Any) -> None:
    assert slot(call(text)) == value


@pytest.mark.parametrize("slot, text, reason", ERRORS)
def test_error(slot: Callable[[Call], Any], text: str, reason: str) -> None:
    with pytest.raises(ConfError) as caught:
        slot(call(text))
    assert str(caught.value) == f"{reason} in f:1"


def test_bit_given_twice_is_a_warning() -> None:
    at = call("d a a;")
    assert MASK(at) == Bits.A
    assert at.scope.config.warnings == ['duplicate value "a" in f:1']
