"""`NAME_pass` for an upstream protocol that needs no URL: an upstream's name, `host[:port]` or `unix:path`.

A protocol's module subclasses `PassConf` and says `PROTOCOL` and, where one goes without saying, `PORT`; the directive,
all that upstream protocols share, and the content handler come with it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from headgate.conf.directive import Call, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.worker.upstream.conf import UpstreamConf
from headgate.worker.upstream.directives import find_group
from headgate.worker.upstream.protocol import REQUIRED
from headgate.worker.upstream.upstream import Upstream

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.conf import HttpConf, Location
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.contract import UpstreamProtocol
    from headgate.worker.upstream.group import Group


class Target:
    """Where a location's requests go; `group` is found when the http block ends."""

    __slots__ = ("group", "name", "place")

    def __init__(self, call: Call) -> None:
        self.name = call.args[0]
        self.place = call.statement.file, call.statement.line
        self.group: Group | None = None

    def find(self, http: "HttpConf", port: int) -> None:
        """Look the group up, or make one of the host's addresses. Raises ConfError."""
        self.group = find_group(http, self.name, port, *self.place)


class PassConf(UpstreamConf, level=Ctx.LOCATION):
    """`class FingerConf(PassConf, level=Ctx.LOCATION, prefix="finger")` makes finger_pass, finger_read_timeout ..."""

    PROTOCOL: ClassVar[Callable[[], "UpstreamProtocol"]]  # called for every request
    PORT: ClassVar[int] = 0  # where none is given; 0: a host must be given one

    pass_: Target | None = directive("_pass", Ctx.LOCATION | Ctx.LOCATION_IF, "1", Target, inherit=False)

    def finish(self, scope: "Scope") -> None:
        super().finish(scope)
        target = self.pass_
        if target is not None:
            _check(type(self), target)
            http: HttpConf = scope.config.http
            http.finishers.append(lambda: target.find(http, self.PORT))

    def attach(self, node: "Location") -> None:
        if self.pass_ is not None and node.kind != "server":
            node.handler = _Handler(self, self.pass_)
            node.auto_redirect = node.name.endswith(b"/")


def _check(conf: type[PassConf], target: Target) -> None:
    """A protocol that lacks what every one must have is told of at the start, not by the first request."""
    protocol = getattr(conf, "PROTOCOL", None)
    if protocol is None:
        raise ConfError(f"{conf.__name__} must say its PROTOCOL", *target.place)
    missing = [name for name in REQUIRED if isinstance(protocol, type) and not callable(getattr(protocol, name, None))]
    if missing:
        raise ConfError(f"upstream protocol {protocol.__name__} must have {' and '.join(missing)}", *target.place)


class _Handler:
    """The content handler of such a location."""

    __slots__ = ("conf", "target")

    def __init__(self, conf: PassConf, target: Target) -> None:
        self.conf = conf
        self.target = target

    async def __call__(self, r: "Request") -> int:
        conf = self.conf
        group = self.target.group
        assert group is not None
        u = Upstream(r, conf, group, type(conf).PROTOCOL())
        r.client_gone_ok = conf.ignore_client_abort or r.detached
        if r.body is not None:
            if conf.pass_request_body:
                await r.body.read()
            else:
                await r.body.discard()
        return await u.run()
