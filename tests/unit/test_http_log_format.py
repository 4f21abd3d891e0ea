"""Log formats: how words are split, and how values are escaped."""

import json

import pytest
from headgate.conf.errors import ConfError
from headgate.conf.template import Variable, Variables
from headgate.worker.http.log_format import ESCAPES, LogFormat, split


@pytest.mark.parametrize(
    "word, parts",
    [
        ("", []),
        ("plain", [b"plain"]),
        ("$a ${b}c$D", ["a", b" ", "b", b"c", "d"]),
        ("$1x", ["1x"]),
        ("\u00e9$a", [b"\xc3\xa9", "a"]),
    ],
)
def test_split(word: str, parts: list[object]) -> None:
    assert split(word, ConfError) == parts


@pytest.mark.parametrize(
    "word, reason",
    [
        ("a$", 'invalid parameter "$"'),
        ("$- b", 'invalid parameter "$- b"'),
        ("${}", 'invalid parameter "${}"'),
        ("${a", 'the closing bracket in "a" variable is missing'),
    ],
)
def test_bad_words(word: str, reason: str) -> None:
    with pytest.raises(ConfError) as caught:
        split(word, ConfError)
    assert caught.value.reason == reason


def test_default_escaping() -> None:
    escape_default = ESCAPES["default"]
    for code in range(256):
        byte = bytes((code,))
        plain = 0x20 <= code < 0x7F and byte not in b'"\\'
        assert escape_default(byte) == (byte if plain else b"\\x%02X" % code)
    assert escape_default(None) == b"-"
    assert escape_default(b"") == b""


def test_json_escaping() -> None:
    escape_json = ESCAPES["json"]
    text = "".join(map(chr, range(128))) + "\u00e9"
    assert json.loads(b'"' + escape_json(text.encode()) + b'"') == text
    assert escape_json(b"\x01\n\xff") == b"\\u0001\\n\xff"
    assert escape_json(None) == escape_json(b"") == b""


@pytest.mark.parametrize(
    "escape, line", [("default", b"[\\x22] [-] [200]\n"), ("json", b'[\\"] [] [200]\n'), ("none", b'["] [] [200]\n')]
)
def test_line(escape: str, line: bytes) -> None:
    variables = Variables(
        [Variable("quote", lambda r: b'"'), Variable("none", lambda r: None), Variable("status", lambda r: b"200")], {}
    )
    fmt = LogFormat(variables, split("[$quote] [$none] [$status]", ConfError), escape)
    variables.resolve()
    assert fmt.line(None) == line


def test_unknown_variable() -> None:
    variables = Variables([], {})
    LogFormat(variables, ["nosuch"])
    with pytest.raises(ConfError, match=r'^unknown "nosuch" variable$'):
        variables.resolve()
