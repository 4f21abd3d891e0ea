"""Fields of messages as a user's Python sees them, and how text becomes the bytes of the wire and back.

Text is UTF-8 with surrogate escapes, so that any byte comes back as it was.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

from headgate.worker.http import fields as http_fields
from headgate.worker.http import httpdate
from headgate.worker.subrequest import subrequest as engine

if TYPE_CHECKING:
    from headgate.worker.http import request as http
    from headgate.worker.http.llhttp import Header

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

# fields of a response that are no entries of Request.fields
_ATTRIBUTES = {
    "content-type": "content_type",
    "content-length": "content_length",
    "last-modified": "last_modified",
    "location": "location_field",
    "etag": "etag",
}
FRAMING = frozenset(("connection", "keep-alive", "transfer-encoding"))  # ours to say


def decode(value: bytes) -> str:
    """Bytes of the wire as text."""
    return value.decode("utf-8", "surrogateescape")


def encode(value: "str | bytes") -> bytes:
    """Text as bytes of the wire; bytes stay. Raises TypeError for anything else."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"text or bytes are wanted, not {value!r}")


def field(name: str, value: str) -> "Header":
    """A field that may be sent: a line break in it would be another field. Raises TypeError, ValueError."""
    made = encode(name), encode(value)
    if not http_fields.sendable(made):
        raise ValueError(f"{name!r}: {value!r} cannot be sent as a field")
    return made


class Fields(Mapping[str, str]):
    """Fields of a message: names in any case; a repeated one is joined by ", " (RFC 9110 section 5.3)."""

    def __init__(self, fields: "list[Header]") -> None:
        self._fields = fields

    def lines(self) -> "list[Header]":
        """Names and values as they are on the wire."""
        return self._fields

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def all(self, name: str) -> list[str]:
        """The values of each line with this name, in order."""
        low = encode(name.lower())
        return [decode(value) for key, value in self.lines() if key.lower() == low]

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): decode(name) for name, _ in self.lines()}.values())

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.lines()})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict(self)}>"


def pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    """Names and values, whichever form they were given in; those of another message line by line."""
    if isinstance(headers, Fields):
        return [(decode(name), decode(value)) for name, value in headers.lines()]
    return headers.items() if isinstance(headers, Mapping) else headers


class ResponseFields(Fields, MutableMapping[str, str]):
    """A response's fields, all but Server, Date and what is about the connection.

    Setting one replaces every line of its name, `add` makes one more. What the body's length is follows from the body:
    Content-Length can be taken out, not set. Raises ValueError for what cannot be sent.
    """

    def __init__(self, r: "http.Request") -> None:
        self._r = r

    def lines(self) -> "list[Header]":
        return engine.response_fields(self._r)

    def __setitem__(self, name: str, value: str) -> None:
        made = self._checked(name, value)
        self._remove(name.lower())
        self._put(*made)

    def add(self, name: str, value: str) -> None:
        """One more line, for a name that may be repeated: Set-Cookie, Link, Vary."""
        low = name.lower()
        if low in _ATTRIBUTES:
            self[name] = value
        else:
            self._r.fields.append(self._checked(name, value))

    def __delitem__(self, name: str) -> None:
        if not self._remove(name.lower()):
            raise KeyError(name)

    @staticmethod
    def _checked(name: str, value: str) -> "Header":
        made = field(name, value)
        low = name.lower()
        if low in FRAMING or low == "content-length":
            raise ValueError(f"{name} is not a handler's to say: it follows from the connection and the body")
        return made

    def _put(self, name: bytes, value: bytes) -> None:
        r = self._r
        attribute = _ATTRIBUTES.get(decode(name.lower()))
        made = httpdate.parse(value) if attribute == "last_modified" else value
        if attribute is None or made is None:
            r.fields.append((name, value))
        else:
            setattr(r, attribute, made)

    def _remove(self, low: str) -> bool:
        r = self._r
        attribute = _ATTRIBUTES.get(low)
        found = attribute is not None and getattr(r, attribute) is not None
        if attribute is not None:
            setattr(r, attribute, None)
        kept = [each for each in r.fields if each[0].lower() != encode(low)]
        found = found or len(kept) < len(r.fields)
        r.fields = kept
        return found
