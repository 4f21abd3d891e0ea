"""`log_format` -> one compiled function that makes a log line of a request.

The value of a variable is escaped as the format says; what is not found is "-" in the default escaping
and nothing in the others. A few variables that can hold nothing to escape are written as they are.
"""

import re
from collections.abc import Callable
from typing import Any

from headgate.conf.errors import ConfError
from headgate.conf.template import Variables, fsencode, generate

_NAME = re.compile(r"\$(?:\{(\w*)(\}?)|(\w*))", re.ASCII)
_RAW = frozenset((
    "pipe", "time_local", "time_iso8601", "msec", "request_time", "status", "bytes_sent", "body_bytes_sent",
    "request_length", "remote_addr", "remote_port", "server_port", "scheme", "connection", "connection_requests",
    "connection_time", "pid",
))  # fmt: skip

_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_DEFAULT = {bytes((c,)): b"\\x%02X" % c for c in range(256)}
_JSON_UNSAFE = re.compile(rb'[\x00-\x1f"\\]')
_JSON = {bytes((c,)): b"\\u%04X" % c for c in range(32)}
_JSON |= {b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\b": b"\\b", b"\f": b"\\f", b'"': b'\\"', b"\\": b"\\\\"}


def escape_default(value: bytes | None) -> bytes:
    """Quotes, backslashes, control characters and bytes above 0x7e as \\xXX."""
    if value is None:
        return b"-"
    return _UNSAFE.sub(lambda m: _DEFAULT[m[0]], value) if _UNSAFE.search(value) else value


def escape_json(value: bytes | None) -> bytes:
    """As a JSON string wants it (RFC 8259 section 7), without the quotes."""
    if value is None:
        return b""
    return _JSON_UNSAFE.sub(lambda m: _JSON[m[0]], value) if _JSON_UNSAFE.search(value) else value


def _raw(value: bytes | None) -> bytes:
    return value or b""


ESCAPES = {"default": escape_default, "json": escape_json, "none": _raw}


def _unbound(r: Any) -> bytes:
    raise AssertionError("log format used before Variables.resolve()")


class LogFormat:
    """A compiled format. `line(request)` gives the line with its line feed, once names are looked up."""

    __slots__ = ("line",)

    def __init__(self, variables: Variables, parts: list[bytes | str], escape: str = "default") -> None:
        self.line: Callable[[Any], bytes] = _unbound
        variables.later(lambda: self._bind(variables, parts, escape))

    def _bind(self, variables: Variables, parts: list[bytes | str], escape: str) -> None:
        terms = []
        names: dict[str, Any] = {"escape": ESCAPES[escape]}
        for i, part in enumerate([*parts, b"\n"]):
            names[f"p{i}"] = part if isinstance(part, bytes) else variables.lookup(part)
            if isinstance(part, bytes):
                terms.append(f"p{i}")
            else:
                terms.append(f"p{i}(r)" if part in _RAW else f"escape(p{i}(r))")
        self.line = generate(terms, names)


def split(word: str, error: Callable[[str], ConfError]) -> list[bytes | str]:
    """A literal as bytes, a variable's name as str; `error` makes what is raised for a bad name.

    Unlike in other texts $1 is no capture here.
    """
    parts: list[bytes | str] = []
    at = 0
    for match in _NAME.finditer(word):
        if match.start() > at:
            parts.append(fsencode(word[at : match.start()]))
        at = match.end()
        braced, closed, plain = match.groups()
        if match[0] in ("$", "${}") or word[match.start() :] == "${":
            raise error(f'invalid parameter "{word[match.start() :]}"')
        if closed == "":
            raise error(f'the closing bracket in "{braced}" variable is missing')
        parts.append((plain or braced).lower())
    if at < len(word):
        parts.append(fsencode(word[at:]))
    return parts


COMBINED = "combined"
COMBINED_PARTS = split(
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"',
    ConfError,
)
