"""Which responses a body filter is for, by their type; and what a filter that changes bodies does to heads.

`sub_filter_types`, `ssi_types` and their like take MIME types, `*` for all; text/html is always among them.
"""

from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.conf.template import fsencode
from headgate.worker.http import validators
from headgate.worker.http.request import NO_RANGES

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

HTML = (b"text/html",)
Types = frozenset[bytes] | None  # None: all


def words(call: Call) -> list[bytes]:
    """The arguments of one `..._types`; the directive may be repeated, so it is declared with `many`."""
    out: list[bytes] = []
    for word in map(fsencode, call.args):
        low = word.lower()
        if low in out or low in HTML:
            call.warn(f'duplicate MIME type "{low.decode()}"')
        else:
            out.append(low)
    return out


def types(lines: list[list[bytes]], default: tuple[bytes, ...] = HTML) -> Types:
    """The types that the directive's lines and its default name."""
    names = [name for line in lines for name in line]
    return None if b"*" in names else frozenset((*names, *default))


def matches(r: "Request", wanted: Types) -> bool:
    """Whether the response's type, without its parameters, is one of them."""
    if wanted is None:
        return True
    return r.content_type is not None and r.content_type.partition(b";")[0].rstrip(b" ").lower() in wanted


def body_changes(r: "Request") -> None:
    """The body will not be the one that the head describes: nothing is known of its length, no part can be cut."""
    r.content_length = None
    r.allow_ranges = NO_RANGES
    validators.drop(r, b"accept-ranges")
