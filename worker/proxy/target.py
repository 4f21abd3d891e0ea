"""Where a request is passed to: the URL of proxy_pass, written out or with variables, and the group it means.

An `upstream` block is meant by its name without a port; any other host is an implicit group of its addresses, resolved
when the configuration is built. What only a request tells is a group by the same rules, a literal address, or a name
for the location's resolver; such groups live no longer than they are used and share nothing with other workers.
"""

from typing import TYPE_CHECKING, Any

from headgate.conf.directive import NONAME, Call, Ctx
from headgate.conf.errors import ConfError
from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.upstream.directives import find_group, known_group, split_host
from headgate.worker.upstream.resolve import literal_group

if TYPE_CHECKING:
    from headgate.worker.http.conf import HttpConf
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.group import Group

_REFUSED = (
    '"proxy_pass" cannot have URI part in location given by regular expression, or inside named location, '
    'or inside "if" statement, or inside "limit_except" block'
)
PORTS = {"http": 80, "https": 443}
MAX_TARGETS = 1024  # URLs that a location remembers


class Target:
    """A proxy_pass URL taken apart. `uri` "" means: pass the request's own URI; `name` is the host without its port."""

    __slots__ = ("group", "host", "host_header", "name", "port", "port_number", "scheme", "uri")

    def __init__(self, url: str, file: str = "", line: int = 0) -> None:
        scheme, slashes, rest = url.partition("://")
        self.scheme = scheme.lower()
        if not slashes or self.scheme not in PORTS:
            raise ConfError("invalid URL prefix", file, line)
        default = PORTS[self.scheme]
        self.group: Group | None = None
        if rest.startswith("unix:"):
            path, _, self.uri = rest[5:].partition(":")
            self.host, self.name = f"unix:{path}", path
            self.port, self.port_number = b"", 0
            self.host_header = b"localhost"  # $proxy_host
            return
        cut = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
        self.host, self.uri = rest[:cut], rest[cut:]
        self.name, number = split_host(self.host, 0, file, line, url=rest)
        self.port_number = number or default
        self.port = str(self.port_number).encode()  # $proxy_port
        self.host_header = fsencode(self.name if self.port_number == default else self.host)

    @property
    def unix(self) -> bool:
        return self.host.startswith("unix:")


class Pass:
    """`proxy_pass` as written: a fixed target, or a template to be read for every request."""

    __slots__ = ("_targets", "file", "line", "prefix", "target", "template")

    def __init__(self, call: Call) -> None:
        node: Any = call.scope.node
        # the location's name, which the target's URI replaces: nothing where there is no such text
        self.prefix: bytes = node.name if node.kind in ("", "^~", "=") else b""
        self.file, self.line = call.statement.file, call.statement.line
        self.template: Template = call.template(call.args[0])
        self.target: Target | None = None
        self._targets: dict[bytes, Target] = {}
        if self.template.const is None:
            return
        self.target = target = Target(call.args[0], self.file, self.line)
        if target.uri and (call.scope.ctx & NONAME or node.kind in ("~", "~*", "@")):
            raise call.error_at(_REFUSED)
        http = call.scope.above(Ctx.HTTP).node

        def find() -> None:
            target.group = find_group(http, target.host, target.port_number, self.file, self.line)

        http.finishers.append(find)

    @property
    def secure(self) -> bool:
        """Whether a connection may be one with TLS."""
        return self.target is None or self.target.scheme == "https"

    def evaluate(self, r: "Request", http: "HttpConf") -> Target | None:
        """The target of a URL with variables, for this request; None, and it is logged, when it is no URL.

        Its `group` is None when a name is to be resolved.
        """
        url = self.template.get(r)
        target = self._targets.get(url)
        if target is not None:
            return target
        text = url.decode("utf-8", "surrogateescape")
        try:
            target = Target(text)
        except ConfError as error:
            r.log(Level.ERROR, error.reason if "upstream" in error.reason else f'{error.reason} in "{text}"')
            return None
        port = target.port_number
        target.group = known_group(http, target.host, port) or literal_group(target.host, target.name, port)
        if len(self._targets) >= MAX_TARGETS:
            del self._targets[next(iter(self._targets))]
        self._targets[url] = target
        return target
