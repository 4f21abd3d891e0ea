"""Entity tag lists, extensions and expiry values, without a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from headgate.worker.http.headers import Expires, parse_expires
from headgate.worker.http.not_modified import matches
from headgate.worker.http.types import TypesConf, content_type


@pytest.mark.parametrize(
    ("value", "etag", "strong", "weak"),
    [
        (b"*", None, True, True),
        (b"*", b'"a"', True, True),
        (b'"a"', None, False, False),
        (b'"a"', b'"a"', True, True),
        (b'"b", "a"', b'"a"', True, True),
        (b'"b","a" ,"c"', b'"a"', True, True),
        (b'W/"a"', b'"a"', False, True),
        (b'"a"', b'W/"a"', False, True),
        (b'W/"a"', b'W/"a"', True, True),
        (b'"ab"', b'"a"', False, False),
        (b'"a"b', b'"a"', False, False),
        (b"", b'"a"', False, False),
        (b'"b", *', b'"a"', False, False),
    ],
)
def test_entity_tags(value: bytes, etag: bytes | None, strong: bool, weak: bool) -> None:
    assert matches(value, etag, weak=False) is strong
    assert matches(value, etag, weak=True) is weak


@pytest.mark.parametrize(
    ("text", "modified", "expected"),
    [
        ("epoch", False, Expires("epoch")),
        ("max", False, Expires("max")),
        ("off", False, Expires("off")),
        ("1h", False, Expires("after", 3600)),
        ("+1h30m", True, Expires("after", 5400, True)),
        ("-1d", False, Expires("after", -86400)),
        ("@24h", False, Expires("daily", 86400)),
        ("@0", False, Expires("daily", 0)),
    ],
)
def test_expires(text: str, modified: bool, expected: Expires) -> None:
    assert parse_expires(text, modified) == expected


@pytest.mark.parametrize("text", ["", "+", "-", "@", "x", "1ms", "--1", "maximum", "@25h"])
def test_expires_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid value|less than 24 hours"):
        parse_expires(text, modified=False)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (b"/a.x", b"text/x"),
        (b"/a.X", b"text/x"),
        (b"/a.b.x", b"text/x"),
        (b"/.x", b""),
        (b"/d/.x", b""),
        (b"/a.x/b", b""),
        (b"/a.x/", b""),
        (b"/a.", b""),
        (b"/", b""),
        (b"", b""),
    ],
)
def test_extensions(uri: bytes, expected: bytes) -> None:
    conf: Any = SimpleNamespace(table={b"x": b"text/x"}, default_type=b"")
    r: Any = SimpleNamespace(uri=uri, location=SimpleNamespace(get={TypesConf: conf}.__getitem__))
    assert content_type(r) == expected
