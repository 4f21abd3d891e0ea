"""Texts with variables, compiled once: `$scheme://$host$uri` -> a function of the request.

`Variables` is the registry of one http block. A template may name a variable that a later directive
defines, so names are looked up when the block is complete (`Variables.resolve`), as nginx does.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from headgate.conf.errors import ConfError
from headgate.conf.joiner import Joiner

Getter = Callable[[Any], bytes | None]  # request -> value, or None when not found
Setter = Callable[[Any, bytes], None]

# $1 to $9 are captures, of one digit; everything else is a name
_NAME = re.compile(r"\$(?:([1-9])|\{(\w*)(\}?)|(\w*))", re.ASCII)

Part = bytes | str | int  # of a text: a literal, a variable's name, a capture's number


@dataclass(slots=True)
class Variable:
    """A variable: how to read it, and how to set it where `set` may (nginx: changeable).

    `stored`: a value that a directive or a capture put into the request's `vars` comes before `get`.
    `cached`: what `get` gave is put there too, so that it is asked once a request (nginx: not
    NOCACHEABLE); built-in variables whose value cannot change do without.
    """

    name: str
    get: Getter
    set: Setter | None = None
    changeable: bool = False
    stored: bool = False
    cached: bool = False

    def getter(self) -> Getter:
        """How a template reads it."""
        name, get = self.name, self.get
        if self.cached:

            def cached(r: Any) -> bytes | None:
                values = r.vars
                if name not in values:
                    values[name] = get(r)
                value: bytes | None = values[name]
                return value

            return cached
        if self.stored:
            return lambda r: r.vars[name] if name in r.vars else get(r)
        return get


def _capture(index: int) -> Getter:
    return lambda r: r.capture(index)


def fsencode(text: str) -> bytes:
    """Configuration text as the bytes that stood in the file."""
    return text.encode("utf-8", "surrogateescape")


class Template:
    """A compiled text. `get(request)` gives bytes; `const` is the text where no variable is in it.

    Usable once `Variables.resolve` has run.
    """

    __slots__ = ("const", "get", "parts", "source")

    def __init__(self, source: str, parts: list[Part]) -> None:
        self.source = source
        self.parts = parts
        self.const: bytes | None = None
        self.get: Callable[[Any], bytes] = _unresolved
        if all(isinstance(p, bytes) for p in parts):
            const = b"".join(p for p in parts if isinstance(p, bytes))
            self.const = const
            self.get = lambda request: const

    def bind(self, lookup: Callable[[str], Getter], capture: Callable[[int], Getter] = _capture) -> None:
        """Compile, with `lookup` giving a name's getter and `capture` that of $1, $2 ..."""
        if self.const is not None:
            return
        parts = (
            part if isinstance(part, bytes) else capture(part) if isinstance(part, int) else lookup(part)
            for part in self.parts
        )
        self.get = Joiner(tuple(parts)).get


def generate(terms: list[str], names: dict[str, Any]) -> Callable[[Any], bytes]:
    """One generated expression, `r` -> the terms joined: the fastest form there is for a text used on every request."""
    body = terms[0] if len(terms) == 1 else f"b''.join(({', '.join(terms)}))"
    function: Callable[[Any], bytes] = eval(f"lambda r: {body}", names)
    return function


def _unresolved(request: Any) -> bytes:
    raise AssertionError("template used before Variables.resolve()")


def split(text: str, file: str, line: int) -> list[Part]:
    """`a$b${c}$1` -> [b"a", "b", "c", 1]; bad names raise nginx's texts."""
    parts: list[Part] = []
    at = 0
    for match in _NAME.finditer(text):
        if match.start() > at:
            parts.append(fsencode(text[at : match.start()]))
        at = match.end()
        capture, braced, closed, plain = match.groups()
        if capture is not None:
            parts.append(int(capture))
            continue
        if match[0] in ("$", "${}") or text[match.start() :] == "${":
            raise ConfError("invalid variable name", file, line)
        if closed == "":
            raise ConfError(f'the closing bracket in "{braced}" variable is missing', file, line)
        parts.append((plain or braced).lower())
    if at < len(text) or not parts:
        parts.append(fsencode(text[at:]))
    return parts


class Variables:
    """The variables of one http block: built-in ones, prefixes (`http_`...), and those directives define."""

    def __init__(self, builtin: Iterable[Variable], prefixes: dict[str, Callable[[str], Getter]]) -> None:
        self.known: dict[str, Variable] = {v.name: replace(v) for v in builtin}
        self.prefixes = prefixes
        self._uses: list[Callable[[], None]] = []  # in the order of the file, as nginx reports unknown names

    def template(self, text: str, file: str, line: int, capture: Callable[[int], Getter] = _capture) -> Template:
        """Compile `text`; variable names are looked up later, by `resolve`.

        `capture` gives the getter of $1, $2 ... for texts that need them escaped.
        """
        template = Template(text, split(text, file, line))
        if template.const is None:
            self._uses.append(lambda: template.bind(self.lookup, capture))
        return template

    def define(self, name: str, get: Getter, set: Setter | None = None, changeable: bool = True) -> Variable:
        """Add a variable for a directive, or take the one there is if it may be changed.

        Raises ValueError with nginx's text when the name is taken.
        """
        key = name.lower()
        if not key:
            raise ValueError('invalid variable name "$"')
        old = self.known.get(key)
        if old is not None:
            if not old.changeable:
                raise ValueError(f'the duplicate "{name}" variable')
            old.stored = old.set is None
            return old
        self.known[key] = variable = Variable(key, get, set, changeable, stored=True, cached=True)
        return variable

    def later(self, use: Callable[[], None]) -> None:
        """Have `use()` called when names are looked up, to call `lookup` itself."""
        self._uses.append(use)

    def want(self, name: str, use: Callable[[Getter], None]) -> None:
        """Have `use(getter)` called when names are looked up."""
        self._uses.append(lambda: use(self.lookup(name.lower())))

    def lookup(self, name: str) -> Getter:
        """A name's getter; ConfError `unknown "x" variable` when nothing defines it."""
        variable = self.known.get(name)
        if variable is not None:
            return variable.getter()
        getter = self.prefixed(name)
        if getter is None:
            raise ConfError(f'unknown "{name}" variable')
        return getter

    def prefixed(self, name: str) -> Getter | None:
        """The getter of a name like http_x, of which there are any number."""
        for prefix, make in self.prefixes.items():
            if name.startswith(prefix):
                return make(name[len(prefix) :])
        return None

    def resolve(self) -> None:
        """Look up every name used so far; templates work from here on."""
        for use in self._uses:
            use()
        self._uses.clear()
