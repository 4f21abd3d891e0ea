"""What SSI commands do: include, echo, set, config, if, elif, else, endif, block, endblock."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http.regex import Regex, RegexError
from headgate.worker.http.uri import escape_html, split_unsafe
from headgate.worker.subrequest.subrequest import SubrequestError, body_of, subrequest

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.subrequest.postpone import Done
    from headgate.worker.subrequest.ssi import SsiFilter

_IF, _ELSE = 1, 2  # SsiFilter.conditional
_ENCODINGS = (b"none", b"url", b"entity")
_ENTITIES = {b"<": b"&lt;", b">": b"&gt;", b"&": b"&amp;", b'"': b"&quot;"}

_unsafe = re.compile(rb'[<>&"]')
_escape = re.compile(rb"\\(.?)", re.DOTALL)
_variable = re.compile(rb"\$(?:\{(\w*)(\}?)|(\w*))", re.ASCII)
_operand = re.compile(rb"[A-Za-z0-9${}_\"']*")


class SsiError(Exception):
    """A command failed; why is in the error log."""


# -- texts ---------------------------------------------------------------------------------------


def _plain(text: bytes) -> bytes:
    """Take out the backslashes before \\, $ and quotes; others stay."""

    def char(match: re.Match[bytes]) -> bytes:
        following = match[1]
        return following if not following or following in b"\\'\"$" else match[0]

    return _escape.sub(char, text) if b"\\" in text else text


def evaluate(page: "SsiFilter", text: bytes, prefix: bool = False) -> bytes:
    """A text with its variables' values; `prefix` makes what does not begin with a slash relative to the page."""
    out: list[bytes] = []
    at = 0
    while at < len(text):
        dollar = _next_dollar(text, at)
        if dollar > at:
            out.append(_plain(text[at:dollar]))
        if dollar == len(text):
            break
        match = _variable.match(text, dollar)
        assert match is not None
        braced, closed, plain = match.groups()
        show = os.fsdecode(text)
        if match.end() - dollar == 1 or text[dollar:] == b"${":
            raise page.fail(f'invalid variable name in "{show}"')
        name = (braced if plain is None else plain).decode().lower()
        if closed == b"":
            raise page.fail(f'the closing bracket in "{name}" variable is missing')
        if not name:
            raise page.fail(f'invalid variable name in "{show}"')
        out.append(variable(page, name) or b"")
        at = match.end()
    value = b"".join(out)
    if prefix and not value.startswith(b"/") and (value or b"$" not in text):
        uri = page.request.uri
        value = uri[: uri.rfind(b"/") + 1] + value
    return value


def _next_dollar(text: bytes, at: int) -> int:
    """The next $ that no backslash stands before."""
    quoted = False
    for i in range(at, len(text)):
        if quoted:
            quoted = False
        elif text[i] == 92:  # "\\"
            quoted = True
        elif text[i] == 36:  # "$"
            return i
    return len(text)


def variable(page: "SsiFilter", name: str) -> bytes | None:
    """A variable of SSI's, else one of the server's; None when nobody knows it."""
    value = page.page.get(name)
    return value if value is not None else page.conf.variable(page.request, name)


def _name(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape").lower()


# -- include -------------------------------------------------------------------------------------


def include(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`include virtual=URI | file=PATH [wait=yes|no] [set=NAME] [stub=BLOCK]`."""
    virtual, file = params.get("virtual"), params.get("file")
    target = _target(page, virtual, file)
    store, stub = params.get("set"), params.get("stub")
    if store is not None and stub is not None:
        raise page.fail('"set" and "stub" cannot be used together in "include" SSI command')
    waits = _waits(page, params.get("wait"), file) or store is not None
    found = split_unsafe(evaluate(page, target, prefix=True))
    if found is None:
        raise page.fail(f'unsafe URI "{os.fsdecode(target)}" was detected')
    finalize = None if stub is None else _stub(page, stub)
    page.flush()
    if store is not None:
        page.page.variables.setdefault(_name(store), b"")
    try:
        subrequest(
            page.request, *found, in_memory=store is not None, finalize=finalize, done=_included(page, store, waits)
        )
    except SubrequestError as error:
        raise SsiError(str(error)) from None
    if waits:
        page.wait()


def _target(page: "SsiFilter", virtual: bytes | None, file: bytes | None) -> bytes:
    if virtual is not None and file is not None:
        shown = f'virtual="{os.fsdecode(virtual)}" or file="{os.fsdecode(file)}"'
        raise page.fail(f"inclusion may be either {shown}")
    target = file if virtual is None else virtual
    if target is None:
        raise page.fail('no parameter in "include" SSI command')
    return target


def _waits(page: "SsiFilter", wait: bytes | None, file: bytes | None) -> bool:
    if file is not None:
        if wait is not None:
            raise page.fail(f'"wait" cannot be used with file="{os.fsdecode(file)}"')
        return True
    if wait is None or wait.lower() == b"no":
        return False
    if wait.lower() != b"yes":
        raise page.fail(f'invalid value "{os.fsdecode(wait)}" in the "wait" parameter')
    return True


def _included(page: "SsiFilter", store: bytes | None, waits: bool) -> "Done":
    def done(sr: "Request", rc: int) -> int:
        if rc:
            return rc  # the page breaks off
        if store is not None and sr.status < 300:
            page.page.variables[_name(store)] = body_of(sr)
        if waits:
            page.resume()
        return 0

    return done


def _stub(page: "SsiFilter", name: bytes) -> "Done":
    """What a subrequest that fails or has nothing to say sends instead."""
    block = next((content for block_name, content in page.page.blocks if block_name == name), None)
    if block is None:
        raise page.fail(f'"stub"="{os.fsdecode(name)}" for "include" not found')

    def finalize(sr: "Request", rc: int) -> int:
        if sr.part is None or sr.part.wrote:
            return rc
        if not sr.header_sent:
            sr.content_type = page.request.content_type
            sr.send_head()
        sr.send(b"".join(block))
        return 0

    return finalize


# -- echo, set, config ---------------------------------------------------------------------------


def echo(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`echo var=NAME [encoding=none|url|entity] [default=TEXT]`."""
    value = variable(page, _name(params["var"]))
    if value is None:
        value = params.get("default", b"(none)")
    if not value:
        return
    encoding = params.get("encoding")
    if encoding in _ENCODINGS:
        page.encoding = encoding.decode()
    elif encoding is not None:
        page.request.log(Level.ERROR, f'unknown encoding "{os.fsdecode(encoding)}" in the "echo" command')
    if page.encoding == "entity":
        value = _unsafe.sub(lambda match: _ENTITIES[match[0]], value)
    elif page.encoding == "url":
        value = escape_html(value)
    page.write(value)


def set_(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`set var=NAME value=TEXT`."""
    value = evaluate(page, params["value"])
    page.page.variables[_name(params["var"])] = value


def config(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`config [errmsg=TEXT] [timefmt=FORMAT]`."""
    if "timefmt" in params:
        page.time_format = params["timefmt"].decode("utf-8", "surrogateescape")
    page.error_text = params.get("errmsg", page.error_text)


# -- if, elif, else, endif -----------------------------------------------------------------------


def if_(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`if expr=EXPRESSION`."""
    if page.conditional:
        raise page.fail('the "if" command inside the "if" command')
    elif_(page, params)


def elif_(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`elif expr=EXPRESSION`."""
    if page.chosen:
        page.output = False
        return
    page.output = page.chosen = _holds(page, params["expr"])
    page.conditional = _IF


def _holds(page: "SsiFilter", expr: bytes) -> bool:
    """`$a`, `$a = text`, `$a != text`, `$a = /regex/`, `$a != /regex/`."""
    match = _operand.match(expr)
    assert match is not None
    left = evaluate(page, match[0].lower())
    rest = expr[match.end() :].lstrip(b" ")
    if not rest:
        return bool(left)
    negative = rest.startswith(b"!=")
    if not negative and not rest.startswith(b"="):
        raise page.fail(f'invalid expression in "{os.fsdecode(expr)}"')
    right = rest[1 + negative :].lstrip(b" ")
    if len(right) > 1 and right.startswith(b"/"):
        if not right.endswith(b"/"):
            raise page.fail(f'invalid expression in "{os.fsdecode(expr)}"')
        return _matches(page, evaluate(page, right[1:-1]), left) is not negative
    if len(right) > 1 and right.startswith(b"\\/"):
        right = right[1:]
    return (left == evaluate(page, right)) is not negative


@lru_cache(256)
def _compiled(pattern: bytes) -> Regex:
    return Regex(os.fsdecode(pattern))


def _matches(page: "SsiFilter", pattern: bytes, text: bytes) -> bool:
    try:
        regex = _compiled(pattern)
    except RegexError as error:
        raise page.fail(str(error)) from None
    try:
        match = regex.search(text)
    except RegexError as error:
        page.request.log(Level.ALERT, str(error))
        raise SsiError(str(error)) from None
    if match is None:
        return False
    page.page.captures = match
    for name, index in regex.names.items():
        page.page.variables[name.lower()] = match.group(index) or b""
    return True


def else_(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`else`."""
    page.output = not page.chosen
    page.conditional = _ELSE


def endif(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`endif`."""
    page.output = True
    page.chosen = False
    page.conditional = 0


# -- block, endblock -----------------------------------------------------------------------------


def block(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`block name=NAME`."""
    page.block = []
    page.page.blocks.append((params["name"], page.block))
    page.output = False


def endblock(page: "SsiFilter", params: dict[str, bytes]) -> None:
    """`endblock`."""
    page.output = True
    page.block = None


@dataclass(slots=True, frozen=True)
class Kind:
    """A command: what it does, its parameters and whether they must be there, and where it may stand.

    `context`: only after if or elif (1), or after else too (2).
    """

    run: "Callable[[SsiFilter, dict[str, bytes]], None]"
    params: dict[str, bool] = field(default_factory=dict)
    context: int = 0
    ends_block: bool = False


COMMANDS = {
    "include": Kind(include, {"virtual": False, "file": False, "wait": False, "set": False, "stub": False}),
    "echo": Kind(echo, {"var": True, "default": False, "encoding": False}),
    "config": Kind(config, {"errmsg": False, "timefmt": False}),
    "set": Kind(set_, {"var": True, "value": True}),
    "if": Kind(if_, {"expr": True}),
    "elif": Kind(elif_, {"expr": True}, context=_IF),
    "else": Kind(else_, context=_IF),
    "endif": Kind(endif, context=_ELSE),
    "block": Kind(block, {"name": True}),
    "endblock": Kind(endblock, ends_block=True),
}
