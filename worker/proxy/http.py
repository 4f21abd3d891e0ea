"""HTTP to upstream servers: proxy_pass and its directives (nginx: ngx_http_proxy_module)."""

from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import HSL, NONAME, Call, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import Template, Variable, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.http.reader import HTTP_11
from headgate.worker.proxy.protocol import HttpProtocol, RequestFields
from headgate.worker.upstream.conf import UpstreamConf
from headgate.worker.upstream.directives import find_group
from headgate.worker.upstream.header import FieldTable
from headgate.worker.upstream.upstream import Upstream

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.conf import Location
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.group import Group

_REFUSED = (
    '"proxy_pass" cannot have URI part in location given by regular expression, or inside named location, '
    'or inside "if" statement, or inside "limit_except" block'
)


class Target:
    """A proxy_pass URL taken apart. `uri` "" means: pass the request's own URI."""

    __slots__ = ("group", "host", "port", "scheme", "uri")

    def __init__(self, url: str, file: str = "", line: int = 0) -> None:
        if url[:7].lower() != "http://":
            if url[:8].lower() == "https://":
                raise ConfError("https:// in proxy_pass needs TLS to upstreams, which is not implemented", file, line)
            raise ConfError("invalid URL prefix", file, line)
        rest = url[7:]
        self.scheme = "http"
        if rest.startswith("unix:"):
            path, _, uri = rest[5:].partition(":")
            self.host, self.uri = f"unix:{path}", uri
        else:
            cut = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
            self.host, self.uri = rest[:cut], rest[cut:]
        if not self.host:
            raise ConfError(f'no host in upstream "{rest}"', file, line)
        self.group: Group | None = None
        self.port = b""
        if not self.host.startswith("unix:"):
            tail = self.host.rpartition("]")[2]
            self.port = (tail.partition(":")[2] or "80").encode()

    @property
    def host_header(self) -> bytes:
        """$proxy_host: the name and port as written, `localhost` for a Unix socket, no default port."""
        if self.host.startswith("unix:"):
            return b"localhost"
        return fsencode(self.host.removesuffix(":80"))


class Pass:
    """`proxy_pass` as written: a fixed target, or a template to be read for every request."""

    __slots__ = ("file", "line", "target", "template")

    def __init__(self, call: Call) -> None:
        self.file, self.line = call.statement.file, call.statement.line
        self.template = call.template(call.args[0])
        self.target: Target | None = None
        if self.template.const is None:
            return
        self.target = target = Target(call.args[0], self.file, self.line)
        node: Any = call.scope.node
        if target.uri and (call.scope.ctx & NONAME or node.kind in ("~", "~*", "@")):
            raise call.error_at(_REFUSED)
        http = call.scope.above(Ctx.HTTP).node

        def find() -> None:
            target.group = find_group(http, target.host, 80, self.file, self.line)

        http.finishers.append(find)


def _set_header(call: Call) -> tuple[str, Template]:
    return call.args[0], call.template(call.args[1])


class ProxyConf(UpstreamConf, level=Ctx.LOCATION, prefix="proxy"):
    """The proxy module's configuration in force in a location."""

    pass_: Pass | None = directive(
        "proxy_pass", Ctx.LOCATION | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT, "1", Pass, inherit=False
    )
    set_header: list[tuple[str, Template]] = directive("proxy_set_header", HSL, "2", _set_header, many=True)
    http_version: int = directive(
        "proxy_http_version", HSL, "1", slots.enum_of({"1.0": 10, "1.1": 11}), default=HTTP_11
    )
    method: Template | None = directive("proxy_method", HSL, "1", slots.template)
    set_body: Template | None = directive("proxy_set_body", HSL, "1", slots.template)
    headers_hash_max_size: int = directive("proxy_headers_hash_max_size", HSL, "1", slots.number, default=512)
    headers_hash_bucket_size: int = directive("proxy_headers_hash_bucket_size", HSL, "1", slots.number, default=64)

    HIDE = ("Date", "Server", "X-Pad", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering",
            "X-Accel-Charset")  # fmt: skip

    TEMP = "proxy_temp"

    table: FieldTable
    request_fields: RequestFields
    http: Any

    def finish(self, scope: "Scope") -> None:
        super().finish(scope)
        self.table = FieldTable(self)
        self.request_fields = RequestFields(self)
        self.http = scope.config.http

    def attach(self, node: "Location") -> None:
        if self.pass_ is None or node.kind == "server":
            return
        prefix = node.name if node.kind in ("", "^~", "=") else b""
        node.handler = _Handler(self, self.pass_, prefix)
        node.auto_redirect = node.name.endswith(b"/")


class _Handler:
    """The content handler of a location with proxy_pass."""

    __slots__ = ("_targets", "conf", "pass_", "prefix", "target")

    def __init__(self, conf: ProxyConf, pass_: Pass, prefix: bytes) -> None:
        self.conf = conf
        self.pass_ = pass_
        self.prefix = prefix
        self.target = pass_.target
        self._targets: dict[bytes, Target] = {}

    async def __call__(self, r: "Request") -> int:
        conf = self.conf
        target = self.target or self._evaluate(r)
        if target is None:
            return 500
        group = target.group
        if group is None:
            return 502
        protocol = HttpProtocol(conf, target, self.prefix, self.target is not None)
        u = Upstream(r, conf, group, protocol)
        body = r.body
        r.client_gone_ok = conf.ignore_client_abort
        if body is not None:
            if not conf.pass_request_body:
                pass
            elif conf.request_buffering:
                await body.read()
            else:
                u.streams_body = True
                u.chunked_body = r.head.chunked and conf.http_version >= HTTP_11
        return await u.run()

    def _evaluate(self, r: "Request") -> Target | None:
        """The target of a proxy_pass with variables, for this request."""
        url = self.pass_.template.get(r)
        target = self._targets.get(url)
        if target is not None:
            return target
        text = url.decode("utf-8", "surrogateescape")
        try:
            target = Target(text)
        except ConfError as error:
            r.log(Level.ERROR, f'{error.reason} in "{text}"')
            return None
        target.group = self.conf.http.groups.get(target.host.lower())
        if target.group is None:
            name = target.host.partition(":")[0]
            r.log(Level.ERROR, f"no resolver defined to resolve {name}")
            return target
        if len(self._targets) < 1024:
            self._targets[url] = target
        return target


def _proxy_host(r: "Request") -> bytes | None:
    u = r.upstream
    return u.protocol.target.host_header if u is not None and isinstance(u.protocol, HttpProtocol) else None


def _proxy_port(r: "Request") -> bytes | None:
    u = r.upstream
    return u.protocol.target.port if u is not None and isinstance(u.protocol, HttpProtocol) else None


def _add_x_forwarded_for(r: "Request") -> bytes:
    forwarded = r.header_all(b"x-forwarded-for")
    return forwarded + b", " + r.conn.remote_addr if forwarded else r.conn.remote_addr


VARIABLES = [
    Variable("proxy_host", _proxy_host),
    Variable("proxy_port", _proxy_port),
    Variable("proxy_add_x_forwarded_for", _add_x_forwarded_for),
]
