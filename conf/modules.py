"""The explicit, ordered list of the files that hold directives.

The order is the order of phases and filters where two modules share one, so it is written down here
and not discovered; a unit test checks that no file with directives is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType

from headgate.conf.directive import Command, Conf, Ctx
from headgate.conf.template import Getter, Variable

MODULES = [
    "headgate.conf.core",
    "headgate.conf.py_module",
    "headgate.conf.threads",
    "headgate.worker.http.directives",
    "headgate.worker.http.variables",
    "headgate.worker.http.ssl",
    "headgate.worker.http.ssl_variables",
    "headgate.worker.http.map",
    "headgate.worker.http.rewrite",
    "headgate.worker.http.log",
    "headgate.worker.http.aio",
    "headgate.worker.http.body_conf",
    "headgate.worker.http.tcp",
    "headgate.worker.http.early_hints",
    "headgate.worker.http.special",
    "headgate.worker.resolver.conf",
    "headgate.worker.upstream.directives",
    "headgate.worker.upstream.balancer.method",
    "headgate.worker.upstream.balancer.ip_hash",
    "headgate.worker.upstream.balancer.hash",
    "headgate.worker.upstream.balancer.least_conn",
    "headgate.worker.upstream.balancer.least_time",
    "headgate.worker.upstream.balancer.random",
    "headgate.worker.upstream.balancer.peak_ewma",
    "headgate.worker.upstream.balancer.py_balancer",
    "headgate.worker.upstream.balancer.sticky",
    "headgate.worker.upstream.balancer.queue",
    "headgate.worker.upstream.balancer.outliers",
    "headgate.worker.upstream.retries",
    "headgate.worker.upstream.status",
    "headgate.worker.upstream.variables",
    "headgate.worker.proxy.http",
    "headgate.worker.proxy.variables",
    "headgate.worker.proxy.memcached",
    "headgate.worker.proxy.health_match",
    "headgate.worker.proxy.health_check",
    "headgate.worker.http.types",
    # the preaccess phase
    "headgate.worker.http.realip",
    # the access phase, in nginx's order
    "headgate.worker.http.access",
    "headgate.worker.http.auth_basic",
    "headgate.worker.subrequest.auth_request",
    # the precontent phase
    "headgate.worker.http.try_files",
    "headgate.worker.subrequest.mirror",
    "headgate.worker.http.index",
    "headgate.worker.http.static",
    "headgate.worker.http.sendfile",
    # header filters, in the order in which they run
    "headgate.worker.subrequest.slice",
    "headgate.worker.http.not_modified",
    "headgate.worker.http.headers",
    "headgate.worker.subrequest.addition",
    "headgate.worker.http.sub_filter",
    "headgate.worker.subrequest.ssi",
    "headgate.worker.script.directives",
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

    def add(self, module: ModuleType) -> None:
        """Collect what a module declares at its top level."""
        for value in vars(module).values():
            if isinstance(value, Command):
                self._command(value)
            elif isinstance(value, type) and issubclass(value, Conf) and value.__module__ == module.__name__:
                self.confs.setdefault(value.level, []).append(value)
                for command in value.commands():
                    self._command(command)
        self.variables.extend(getattr(module, "VARIABLES", ()))
        self.prefixes.update(getattr(module, "PREFIXES", {}))

    def _command(self, command: Command) -> None:
        self.commands.setdefault(command.name, []).append(command)

    def copy(self) -> "Registry":
        """One that may grow by a configuration's own modules."""
        return Registry(
            {name: list(each) for name, each in self.commands.items()},
            {level: list(each) for level, each in self.confs.items()},
            list(self.variables),
            dict(self.prefixes),
        )


@cache
def registry() -> Registry:
    """headgate's own modules, imported."""
    out = Registry()
    for name in MODULES:
        out.add(import_module(name))
    return out
