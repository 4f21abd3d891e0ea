"""Directives, contexts and the one validation gate.

A module's configuration is a class whose fields are its directives, one line each:

    class ProxyConf(Conf, level=Ctx.LOCATION):
        connect_timeout: float = directive("proxy_connect_timeout", LOC, "1", slots.msec, default=60.0)

The field, its default and its inheritance (main -> server -> location) derive from that line. What
does not fit a field (blocks, rules kept in order) is a function marked `@command` or `@block`.
"""

import enum
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from headgate.conf.errors import ConfError
from headgate.conf.parser import Statement
from headgate.conf.template import Template

if TYPE_CHECKING:
    from headgate.conf.build import Scope

C = TypeVar("C", bound="Conf")


class Ctx(enum.Flag):
    """Where a directive may stand; nginx's NGX_*_CONF flags."""

    MAIN = enum.auto()
    EVENTS = enum.auto()
    HTTP = enum.auto()
    SERVER = enum.auto()
    LOCATION = enum.auto()
    UPSTREAM = enum.auto()
    SERVER_IF = enum.auto()
    LOCATION_IF = enum.auto()
    LIMIT_EXCEPT = enum.auto()


HSL = Ctx.HTTP | Ctx.SERVER | Ctx.LOCATION  # the usual contexts of an http directive
HS = Ctx.HTTP | Ctx.SERVER

# the scopes that hold an instance of a configuration class of each level
SCOPES = {
    Ctx.MAIN: Ctx.MAIN,
    Ctx.EVENTS: Ctx.EVENTS,
    Ctx.HTTP: Ctx.HTTP,
    Ctx.SERVER: Ctx.HTTP | Ctx.SERVER,
    Ctx.LOCATION: HSL | Ctx.SERVER_IF | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT,
    Ctx.UPSTREAM: Ctx.UPSTREAM,
}
NONAME = Ctx.SERVER_IF | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT  # blocks that stand for no location of their own


class Call:
    """One directive being read: its arguments, its place, and what it may reach (nginx's `cf`)."""

    __slots__ = ("args", "command", "name", "scope", "statement")

    def __init__(self, statement: Statement, scope: "Scope", command: "Command") -> None:
        self.statement = statement
        self.name = statement.words[0]
        self.args = statement.words[1:]
        self.scope = scope
        self.command = command

    def error(self, reason: str) -> ConfError:
        """`"name" directive <reason> in FILE:LINE`."""
        return self.error_at(f'"{self.name}" directive {reason}')

    def error_at(self, text: str) -> ConfError:
        """`<text> in FILE:LINE`."""
        return ConfError(text, self.statement.file, self.statement.line)

    def error_end(self, text: str) -> ConfError:
        """`<text> in FILE:LINE` with the line of the closing brace."""
        return ConfError(text, self.statement.file, self.statement.end_line)

    def warn(self, text: str) -> None:
        """Note a [warn] line that the master logs once the configuration is built."""
        self.scope.config.warnings.append(str(self.error_at(text)))

    def template(self, text: str) -> Template:
        """Compile a text with variables; unknown names are reported when the http block ends."""
        return self.scope.template(text, self.statement)

    def path(self, text: str) -> str:
        """A path made absolute against the prefix (nginx: ngx_conf_full_name)."""
        return os.path.join(self.scope.config.prefix, text)

    def conf(self, cls: type[C]) -> C:
        """The (not yet merged) configuration of `cls` that this directive's scope belongs to."""
        return self.scope.conf(cls)

    def build(self, ctx: Ctx, node: Any = None) -> "Scope":
        """Read this directive's block in a new scope and return it."""
        child = self.scope.child(ctx, node)
        child.read(self.statement.block or ())
        return child


@dataclass(slots=True, frozen=True)
class Command:
    """A directive as the gate sees it: name, contexts, arity, and what to do."""

    name: str
    contexts: Ctx
    arity: str
    handle: Callable[[Call], None]
    block: bool = False

    def check(self, statement: Statement) -> None:
        """Terminator and number of arguments, in nginx's order and words."""
        is_block = statement.block is not None
        if is_block and not self.block:
            raise ConfError(f'directive "{self.name}" is not terminated by ";"', statement.file, statement.line)
        if self.block and not is_block:
            raise ConfError(f'directive "{self.name}" has no opening "{{"', statement.file, statement.line)
        if not _arity_fits(self.arity, len(statement.words) - 1):
            reason = f'invalid number of arguments in "{self.name}" directive'
            raise ConfError(reason, statement.file, statement.line)


def _arity_fits(arity: str, count: int) -> bool:
    if arity == "flag":
        return count == 1
    if arity.endswith("+"):
        return count >= int(arity[:-1])
    return str(count) in arity.split("|")


@dataclass(slots=True)
class Directive:
    """The declaration of one field; `directive()` makes it, `Conf` collects it."""

    name: str
    contexts: Ctx
    arity: str
    parse: Callable[[Call], Any]
    default: Any
    many: bool
    inherit: bool
    block: bool = False
    field: str = ""

    def fallback(self) -> Any:
        return [] if self.many and self.default is None else self.default


def directive(
    name: str,
    contexts: Ctx,
    arity: str,
    parse: Callable[[Call], Any],
    default: Any = None,
    many: bool = False,
    inherit: bool = True,
    block: bool = False,
) -> Any:
    """Declare a directive as a field of a `Conf` class.

    arity: "1", "0|1", "2+", "flag" ...; `many`: may be repeated, values collect in a list that is inherited
    only where none is set; `inherit=False`: never passed down (handlers such as proxy_pass); `block`: the value
    is a block whose lines `parse` reads itself.
    """
    return Directive(name, contexts, arity, parse, default, many, inherit, block)


def command(name: str, contexts: Ctx, arity: str) -> Callable[[Callable[[Call], None]], Command]:
    """Declare a directive that is a function of its own."""
    return lambda handle: Command(name, contexts, arity, handle)


def block(name: str, contexts: Ctx, arity: str) -> Callable[[Callable[[Call], None]], Command]:
    """Declare a directive with a block; the function reads it with `call.build(...)`."""
    return lambda handle: Command(name, contexts, arity, handle, block=True)


class Conf:
    """Base of a module's configuration at one level; frozen once the whole is built."""

    level: ClassVar[Ctx]
    directives: ClassVar[list[Directive]]

    def __init_subclass__(
        cls, level: Ctx, prefix: str = "", only: Collection[str] | None = None, **kwargs: Any
    ) -> None:
        """A base class's directives are this class's own, with `prefix`: "_timeout" becomes "proxy_timeout".

        `only` names those ("_timeout") that there are here; the fields of the others have their defaults for good, or
        what the class itself says.
        """
        super().__init_subclass__(**kwargs)
        cls.level = level
        inherited: list[Directive] = getattr(cls, "directives", [])
        cls.directives = [replace(d, name=prefix + d.name) for d in inherited if only is None or d.name in only]
        for d in inherited:
            if only is not None and d.name not in only and d.field not in vars(cls):
                setattr(cls, d.field, d.fallback())
        for name, value in list(vars(cls).items()):
            if isinstance(value, Directive):
                value.field = name
                cls.directives.append(value)
                delattr(cls, name)  # an instance without the attribute is one where it is not set

    @classmethod
    def commands(cls) -> Sequence[Command]:
        """The gate's view of this class's fields."""
        return [Command(d.name, d.contexts, d.arity, _store(cls, d), d.block) for d in cls.directives]

    @classmethod
    def merge(cls: type[C], parent: C | None, own: C | None, noname: bool = False) -> C:
        """The configuration in force: own values, else the parent's, else the defaults.

        `noname` (an `if` or limit_except block) takes over the enclosing block's handlers too.
        """
        if own is not None and not vars(own):
            own = None
        if own is None and parent is not None and (noname or not cls._owns(parent)):
            return parent
        out = cls.__new__(cls)
        mine, theirs = vars(own) if own else {}, vars(parent) if parent else {}
        for d in cls.directives:
            if d.field in mine:
                value = mine[d.field]
            elif d.field in theirs and (d.inherit or noname):
                value = theirs[d.field]
            else:
                value = d.fallback()
            out.__dict__[d.field] = value
        for name, value in mine.items():
            out.__dict__.setdefault(name, value)
        return out

    @classmethod
    def _owns(cls, parent: "Conf") -> bool:
        """Whether `parent` holds a value that must not be passed down."""
        return any(not d.inherit and vars(parent).get(d.field) not in (None, []) for d in cls.directives)

    def finish(self, scope: "Scope") -> None:
        """Hook: cross checks and derived values, once per distinct merged instance."""

    def attach(self, node: Any) -> None:
        """Hook: called for every location (or server) this merged instance is in force for."""


def _store(cls: type[Conf], d: Directive) -> Callable[[Call], None]:
    def handle(call: Call) -> None:
        values = vars(call.conf(cls))
        if d.many:
            values.setdefault(d.field, []).append(d.parse(call))
        elif d.field in values:
            raise call.error("is duplicate")
        else:
            values[d.field] = d.parse(call)

    return handle
