"""`map`: a variable whose value depends on a text, by a table (nginx: ngx_http_map_module).

Exact keys first (in any case), then masks of host names if `hostnames` is there, then regular expressions
in their order, then the default. A value is computed when it is first asked for and kept for the
request, unless the map is `volatile`.
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, block, directive
from headgate.conf.errors import ConfError
from headgate.conf.parser import Statement
from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.http.directives import regex
from headgate.worker.http.names import Names
from headgate.worker.http.regex import Regex, RegexError

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


class MapConf(Conf, level=Ctx.HTTP):
    """Hash sizes need no tuning here: they are checked, and dicts grow."""

    hash_max_size: int = directive("map_hash_max_size", Ctx.HTTP, "1", slots.number, default=2048)
    hash_bucket_size: int = directive("map_hash_bucket_size", Ctx.HTTP, "1", slots.number, default=64)


class Map:
    """One map, callable as its variable's getter."""

    __slots__ = ("_busy", "default", "hostnames", "name", "names", "regexes", "source", "volatile")

    def __init__(self, name: str, source: Template) -> None:
        self.name = name
        self.source = source
        self.default: Template | None = None
        self.names: Names[Template] = Names()
        self.regexes: list[tuple[Regex, Template]] = []
        self.hostnames = False
        self.volatile = False
        self._busy = False

    def __call__(self, r: "Request") -> bytes | None:
        if self._busy:
            r.log(Level.ERROR, f'cycle while evaluating variable "{self.name}"')
            return None
        self._busy = True
        try:
            value = self._find(r, self.source.get(r)) or self.default
            return value.get(r) if value is not None else b""
        except RegexError as error:
            r.log(Level.ALERT, str(error))
            return None
        finally:
            self._busy = False

    def _find(self, r: "Request", key: bytes) -> Template | None:
        if self.hostnames:
            key = key.removesuffix(b".")
        found = self.names.find(key.lower())
        if found is not None or not key:
            return found
        for pattern, value in self.regexes:
            match = pattern.search(key)
            if match is not None:
                pattern.capture(r, match)
                return value
        return None

    def add(self, call: Call, line: Statement) -> None:
        """One line of the block."""
        if line.error is not None:
            raise line.error
        if line.block is not None:
            raise ConfError('unexpected "{"', line.file, line.line)
        if line.words == ["hostnames"]:
            self.hostnames = True
        elif line.words == ["volatile"]:
            self.volatile = True
        elif len(line.words) != 2:
            raise ConfError("invalid number of the map parameters", line.file, line.line)
        else:
            self._add_value(call, line)

    def _add_value(self, call: Call, line: Statement) -> None:
        key, text = line.words
        value = call.scope.template(text, line)
        if key == "default":
            if self.default is not None:
                raise ConfError("duplicate default map parameter", line.file, line.line)
            self.default = value
        elif key.startswith("~"):
            caseless = key.startswith("~*")
            here = Call(line, call.scope, call.command)
            self.regexes.append((regex(here, key[2:] if caseless else key[1:], caseless), value))
        else:
            self._add_name(key.removeprefix("\\"), value, line)

    def _add_name(self, key: str, value: Template, line: Statement) -> None:
        name = fsencode(key)
        if not self.hostnames:
            new = self.names.exact.setdefault(name.lower(), value) is value
        else:
            try:
                new = self.names.add(name, value)
            except ValueError:
                raise ConfError(f'invalid hostname or wildcard "{key}"', line.file, line.line) from None
        if not new:
            raise ConfError(f'conflicting parameter "{key.lower()}"', line.file, line.line)


@block("map", Ctx.HTTP, "2")
def map_(call: Call) -> None:
    """`map TEXT $NAME { ... }`."""
    source = call.template(call.args[0])
    name = call.args[1]
    if not name.startswith("$"):
        raise call.error_at(f'invalid variable name "{name}"')
    table = Map(name[1:].lower(), source)
    variables = call.scope.variables
    assert variables is not None
    try:
        variable = variables.define(name[1:], table)
    except ValueError as error:
        raise call.error_at(str(error)) from None
    for line in call.statement.block or ():
        table.add(call, line)
    variable.get = table
    variable.cached = not table.volatile
