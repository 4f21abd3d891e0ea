"""`log_format` -> one compiled function that makes a log line of a request.

The value of a variable is escaped as the format says; what is not found is "-" in the default escaping
and nothing in the others. A few variables that can hold nothing to escape are written as they are.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from headgate.conf.errors import ConfError
from headgate.conf.template import Variables, fsencode, generate

_NAME = re.compile(r"\$(?:\{(\w*)(\}?)|(\w*))", re.ASCII)
_RAW = frozenset((
    "pipe", "time_local", "time_iso8601", "msec", "request_time", "status", "bytes_sent", "body_bytes_sent",
    "request_length", "remote_addr", "remote_port", "server_port", "scheme", "connection", "connection_requests",
    "connection_time", "pid",
))  # fmt: skip

_DEFAULT = {c: b"\\x%02X" % c for c in range(256) if not 0x20 <= c < 0x7F or c in b'"\\'}
_JSON = {c: b"\\u%04X" % c for c in range(32)}
_JSON |= {10: b"\\n", 13: b"\\r", 9: b"\\t", 8: b"\\b", 12: b"\\f", 34: b'\\"', 92: b"\\\\"}


class Escape(NamedTuple):
    """A way to write values: bytes that need another form, the bytes that do not, and what stands for "not found"."""

    codes: dict[int, bytes]
    safe: bytes
    missing: bytes

    def __call__(self, value: bytes | None) -> bytes:
        """The value as it is written."""
        if value is None:
            return self.missing
        codes = self.codes
        return b"".join(codes[c] if c in codes else bytes((c,)) for c in value)


def _escape(codes: dict[int, bytes], missing: bytes) -> Escape:
    return Escape(codes, bytes(c for c in range(256) if c not in codes), missing)


ESCAPES = {"default": _escape(_DEFAULT, b"-"), "json": _escape(_JSON, b""), "none": _escape({}, b"")}


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
        how = ESCAPES[escape]
        names: dict[str, Any] = {"escape": how, "safe": how.safe}
        for i, part in enumerate([*parts, b"\n"]):
            names[f"p{i}"] = part if isinstance(part, bytes) else variables.lookup(part)
            if isinstance(part, bytes):
                terms.append(f"p{i}")
            elif part in _RAW:
                terms.append(f"p{i}(r)")
            else:  # no call for a value that needs no escaping: most do not
                terms.append(f"(v if (v := p{i}(r)) is not None and not v.translate(None, safe) else escape(v))")
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
