"""Texts with variables, compiled once: `$scheme://$host$uri` -> a function of the request.

`Variables` is the registry of one http block. A template may name a variable that a later directive
defines, so names are looked up when the block is complete (`Variables.resolve`), as nginx does.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from headgate.conf.errors import ConfError

Getter = Callable[[Any], bytes | None]  # request -> value, or None when not found
Setter = Callable[[Any, bytes], None]

_NAME = re.compile(r"\$(?:\{([^}]*)(\}?)|([A-Za-z0-9_]*))")


@dataclass(slots=True)
class Variable:
    """A variable: how to read it, and how to set it where `set` may (nginx: changeable)."""

    name: str
    get: Getter
    set: Setter | None = None
    changeable: bool = False


def fsencode(text: str) -> bytes:
    """Configuration text as the bytes that stood in the file."""
    return text.encode("utf-8", "surrogateescape")


class Template:
    """A compiled text. `get(request)` gives bytes; `const` is the text where no variable is in it.

    Usable once `Variables.resolve` has run.
    """

    __slots__ = ("const", "file", "get", "line", "parts", "source")

    def __init__(self, source: str, parts: list[bytes | str], file: str, line: int) -> None:
        self.source = source
        self.parts = parts  # bytes: literal; str: the name of a variable
        self.file = file
        self.line = line
        self.const: bytes | None = None
        self.get: Callable[[Any], bytes] = _unresolved
        if all(isinstance(p, bytes) for p in parts):
            const = b"".join(p for p in parts if isinstance(p, bytes))
            self.const = const
            self.get = lambda request: const

    def bind(self, lookup: Callable[[str], Getter]) -> None:
        """Compile, with `lookup` giving a name's getter."""
        if self.const is not None:
            return
        names: dict[str, Any] = {}
        terms = []
        for i, part in enumerate(self.parts):
            names[f"p{i}"] = part if isinstance(part, bytes) else lookup(part)
            terms.append(f"p{i}" if isinstance(part, bytes) else f"p{i}(r) or b''")
        # one generated expression: the fastest form there is for a text used on every request
        body = terms[0] if len(terms) == 1 else f"b''.join(({', '.join(terms)}))"
        self.get = eval(f"lambda r: {body}", names)


def _unresolved(request: Any) -> bytes:
    raise AssertionError("template used before Variables.resolve()")


def split(text: str, file: str, line: int) -> list[bytes | str]:
    """`a$b${c}d` -> [b"a", "b", "c", b"d"]; bad names raise nginx's texts."""
    parts: list[bytes | str] = []
    at = 0
    for match in _NAME.finditer(text):
        if match.start() > at:
            parts.append(fsencode(text[at : match.start()]))
        at = match.end()
        if match[1] is not None:
            name = match[1]
            if not match[2] or not re.fullmatch(r"\w*", name, re.ASCII):
                raise ConfError(f'the closing bracket in "{name}" variable is missing', file, line)
        else:
            name = match[3]
        if not name:
            raise ConfError("invalid variable name", file, line)
        if name[0].isdigit() and match[1] is None and len(name) > 1:
            at -= len(name) - 1  # $12 is the capture $1 and the text "2"
            name = name[0]
        parts.append(name.lower())
    if at < len(text) or not parts:
        parts.append(fsencode(text[at:]))
    return parts


class Variables:
    """The variables of one http block: built-in ones, prefixes (`http_`...), and those directives define."""

    def __init__(self, builtin: Iterable[Variable], prefixes: dict[str, Callable[[str], Getter]]) -> None:
        self.known: dict[str, Variable] = {v.name: v for v in builtin}
        self.prefixes = prefixes
        self.templates: list[Template] = []
        self.wanted: list[tuple[str, Callable[[Getter], None]]] = []

    def template(self, text: str, file: str, line: int) -> Template:
        """Compile `text`; variable names are looked up later, by `resolve`."""
        template = Template(text, split(text, file, line), file, line)
        if template.const is None:
            self.templates.append(template)
        return template

    def define(self, name: str, get: Getter, set: Setter | None = None, changeable: bool = True) -> Variable:
        """Add a variable for a directive; raises ValueError with nginx's text when the name is taken."""
        name = name.lower()
        old = self.known.get(name)
        if old is not None:
            if not old.changeable:
                raise ValueError(f'the duplicate "{name}" variable')
            return old
        self.known[name] = variable = Variable(name, get, set, changeable)
        return variable

    def want(self, name: str, use: Callable[[Getter], None]) -> None:
        """Have `use(getter)` called when names are looked up."""
        self.wanted.append((name.lower(), use))

    def lookup(self, name: str) -> Getter:
        """A name's getter; ConfError `unknown "x" variable` when nothing defines it."""
        if name.isdigit():
            index = int(name)
            return lambda r: r.capture(index)
        variable = self.known.get(name)
        if variable is not None:
            return variable.get
        for prefix, make in self.prefixes.items():
            if name.startswith(prefix):
                return make(name[len(prefix) :])
        raise ConfError(f'unknown "{name}" variable')

    def resolve(self) -> None:
        """Look up every name used so far; templates work from here on."""
        for template in self.templates:
            template.bind(self.lookup)
        self.templates.clear()
        for name, use in self.wanted:
            use(self.lookup(name))
        self.wanted.clear()
