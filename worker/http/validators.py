"""The validators of a response (RFC 9110 section 8.8), wherever they are.

Ours are attributes of the request; those of an upstream server stay among the response's fields, passed on as they
came, and are only read when something compares with them.
"""

from typing import TYPE_CHECKING

from headgate.worker.http import httpdate

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


def etag(r: "Request") -> bytes | None:
    """The entity tag."""
    return r.etag if r.etag is not None else _field(r, b"etag")


def last_modified(r: "Request") -> int | None:
    """The time of the last change, seconds since the epoch; None when there is none that can be read."""
    if r.last_modified is not None:
        return r.last_modified
    value = _field(r, b"last-modified")
    return httpdate.parse(value) if value is not None else None


def _field(r: "Request", name: bytes) -> bytes | None:
    size = len(name)
    return next((value for key, value in r.fields if len(key) == size and key.lower() == name), None)


def drop(r: "Request", *names: bytes) -> None:
    """Leave out the fields of these names, in lower case."""
    r.fields = [field for field in r.fields if field[0].lower() not in names]


def drop_last_modified(r: "Request") -> None:
    """The body is made anew for each request."""
    r.last_modified = None
    drop(r, b"last-modified")


def drop_etag(r: "Request") -> None:
    """The tag names another body."""
    r.etag = None
    drop(r, b"etag")


def weaken_etag(r: "Request") -> None:
    """What is sent means the same as what the tag names, but not byte for byte (ngx_http_weak_etag)."""
    tag = etag(r)
    if tag is None or tag.startswith(b"W/"):
        return
    drop_etag(r)
    r.etag = b"W/" + tag if tag.startswith(b'"') else None
