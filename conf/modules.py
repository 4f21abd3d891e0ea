"""The explicit, ordered list of the files that hold directives.

The order is the order of phases and filters where two modules share one, so it is written down here
and not discovered; a unit test checks that no file with directives is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from headgate.conf.directive import Command, Conf, Ctx
from headgate.conf.template import Getter, Variable

MODULES = [
    "headgate.conf.core",
    "headgate.worker.http.directives",
    "headgate.worker.http.variables",
    "headgate.worker.http.map",
    "headgate.worker.http.rewrite",
    "headgate.worker.http.log",
    "headgate.worker.http.body",
    "headgate.worker.http.early_hints",
    "headgate.worker.http.special",
    "headgate.worker.resolver.conf",
    "headgate.worker.upstream.directives",
    "headgate.worker.upstream.variables",
    "headgate.worker.proxy.http",
    "headgate.worker.http.types",
    "headgate.worker.http.try_files",
    "headgate.worker.http.index",
    "headgate.worker.http.static",
    "headgate.worker.http.sendfile",
    # header filters, in the order in which they run
    "headgate.worker.http.not_modified",
    "headgate.worker.http.headers",
    "headgate.worker.http.ranges",
    "headgate.worker.http.trailers",
    "headgate.worker.http.limit_rate",
]


@dataclass(slots=True)
class Registry:
    """All commands by name, and the configuration classes by level, in module order."""

    commands: dict[str, list[Command]] = field(default_factory=dict)
    confs: dict[Ctx, list[type[Conf]]] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    prefixes: dict[str, Callable[[str], Getter]] = field(default_factory=dict)


@cache
def registry() -> Registry:
    """Import the modules and collect what they declare at their top level."""
    out = Registry()
    for name in MODULES:
        module = import_module(name)
        for value in vars(module).values():
            if isinstance(value, Command):
                out.commands.setdefault(value.name, []).append(value)
            elif isinstance(value, type) and issubclass(value, Conf) and value.__module__ == name:
                out.confs.setdefault(value.level, []).append(value)
                for command in value.commands():
                    out.commands.setdefault(command.name, []).append(command)
        out.variables.extend(getattr(module, "VARIABLES", ()))
        out.prefixes.update(getattr(module, "PREFIXES", {}))
    return out
