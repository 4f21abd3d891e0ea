"""Statements -> configuration: the walk through the scopes, and the gate every directive passes.

`load()` is the whole way from a path to a `Config`. Inheritance is `Conf.merge`; the http block's own
rules (servers, locations) stand in `headgate.worker.http.directives`.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from headgate.conf.directive import SCOPES, Call, Command, Conf, Ctx
from headgate.conf.errors import ConfError
from headgate.conf.modules import Registry, registry
from headgate.conf.parser import Statement, parse_file, parse_text
from headgate.conf.template import Template, Variables
from headgate.masterd.logfile import LogFiles

if TYPE_CHECKING:
    from headgate.conf.core import CoreConf, EventsConf
    from headgate.conf.threads import ThreadPool

C = TypeVar("C", bound=Conf)


@dataclass(slots=True)
class Config:
    """A built configuration. `http` is the http block's HttpConf, or None without one."""

    path: str
    prefix: str
    files: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    logs: LogFiles = field(default_factory=LogFiles)  # opened by the cycle, before workers are forked
    paths: list[str] = field(default_factory=list)  # directories the cycle makes, owned by the workers' user
    main: "CoreConf" = None  # type: ignore[assignment]  # set before load() returns
    events: "EventsConf" = None  # type: ignore[assignment]
    http: Any = None
    transparent: bool = False  # connections to upstream servers may have foreign addresses
    thread_pools: "dict[str, ThreadPool]" = field(default_factory=dict)


class Scope:
    """One block being read: its context, its configurations, and the block around it."""

    __slots__ = ("children", "config", "confs", "ctx", "node", "parent", "registry", "variables")

    def __init__(self, ctx: Ctx, parent: "Scope | None", config: Config, reg: Registry, node: Any = None) -> None:
        self.ctx = ctx
        self.parent = parent
        self.config = config
        self.registry = reg
        self.node = node  # what the block describes: a server, a location, an upstream
        self.confs: dict[type[Conf], Conf] = {}
        self.children: list[Scope] = []
        self.variables: Variables | None = parent.variables if parent else None

    def child(self, ctx: Ctx, node: Any = None) -> "Scope":
        child = Scope(ctx, self, self.config, self.registry, node)
        self.children.append(child)
        return child

    def conf(self, cls: type[C]) -> C:
        """The instance of `cls` that directives of this scope write to."""
        scope: Scope | None = self
        while scope is not None and not scope.ctx & SCOPES[cls.level]:
            scope = scope.parent
        assert scope is not None, f"{cls.__name__} has no place in {self.ctx}"
        own = scope.confs.get(cls)
        if own is None:
            own = scope.confs[cls] = cls.__new__(cls)
        return own  # type: ignore[return-value]

    def above(self, ctx: Ctx) -> "Scope":
        """This scope or the nearest one around it whose context is in `ctx`."""
        scope: Scope | None = self
        while scope is not None:
            if scope.ctx & ctx:
                return scope
            scope = scope.parent
        raise AssertionError(f"no {ctx} around {self.ctx}")

    def template(self, text: str, statement: Statement) -> Template:
        assert self.variables is not None, "templates belong to the http block"
        return self.variables.template(text, statement.file, statement.line)

    def read(self, statements: Iterable[Statement]) -> None:
        """Apply the statements in order; the first error ends it."""
        for statement in statements:
            if statement.error is not None:
                raise statement.error
            command = self._gate(statement)
            command.handle(Call(statement, self, command))

    def _gate(self, statement: Statement) -> Command:
        candidates = self.registry.commands.get(statement.name, ())
        for candidate in candidates:
            if candidate.contexts & self.ctx:
                candidate.check(statement)
                return candidate
        if candidates:
            reason = f'"{statement.name}" directive is not allowed here'
        elif statement.name in _nginx_directives():
            reason = f'directive "{statement.name}" is known to nginx but not implemented by headgate'
        else:
            reason = f'unknown directive "{statement.name}"'
        raise ConfError(reason, statement.file, statement.line)

    def merged(self, cls: type[C]) -> C:
        """The finished configuration of a class that has no levels below it (main, events, upstream)."""
        out = cls.merge(None, self.confs.get(cls))  # type: ignore[arg-type]
        out.finish(self)
        return out


def _nginx_directives() -> set[str]:
    return set(resources.files(__package__).joinpath("nginx_directives.txt").read_text().split())


def load(path: str, prefix: str, globals_text: str = "", warnings: list[str] | None = None) -> Config:
    """Read the file at `path` (absolute) into a Config; `prefix` is what relative paths start from.

    `globals_text` is -g: directives of the main context, read first. `warnings` becomes the Config's: it has what was
    to be warned of before an error too. Raises ConfError.
    """
    from headgate.conf.core import CoreConf, EventsConf
    from headgate.conf.threads import check

    config = Config(path, os.path.join(prefix, ""), warnings=[] if warnings is None else warnings)
    root = Scope(Ctx.MAIN, None, config, registry().copy())
    if globals_text:
        root.read(parse_text(globals_text, base=os.path.dirname(path)))
    source = parse_file(path)
    config.files = source.files
    root.read(source.statements)
    config.main = root.merged(CoreConf)
    check(config)
    if config.events is None:
        raise ConfError('no "events" section in configuration')
    assert isinstance(config.events, EventsConf)
    return config
