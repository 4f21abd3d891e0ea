"""HTTP to upstream servers: proxy_pass and its directives (nginx: ngx_http_proxy_module)."""

from typing import TYPE_CHECKING, Any, TypeVar

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Ctx, directive
from headgate.conf.template import Template
from headgate.worker.http.head import HTTP_10, HTTP_11
from headgate.worker.proxy import cookie, redirect
from headgate.worker.proxy.cookie import Cookies, Flags
from headgate.worker.proxy.handler import Handler
from headgate.worker.proxy.protocol import RequestFields
from headgate.worker.proxy.redirect import Rule
from headgate.worker.proxy.target import Pass
from headgate.worker.upstream.conf import UpstreamConf

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.conf import Location
    from headgate.worker.http.request import Request

C = TypeVar("C", bound="ProxyConf")


def _set_header(call: Call) -> tuple[str, Template]:
    return call.args[0], call.template(call.args[1])


def _redirect(call: Call) -> Rule | None:
    conf = vars(call.conf(ProxyConf))
    return redirect.redirect(call, conf.get("redirect", []), conf.get("pass_"))


def _cookie_domain(call: Call) -> Rule | None:
    return cookie.domain(call, vars(call.conf(ProxyConf)).get("cookie_domain", []))


def _cookie_path(call: Call) -> Rule | None:
    return cookie.path(call, vars(call.conf(ProxyConf)).get("cookie_path", []))


def _cookie_flags(call: Call) -> Flags | None:
    return cookie.flags(call, vars(call.conf(ProxyConf)).get("cookie_flags", []))


def _http_version(call: Call) -> int:
    if call.args[0] == "2":
        raise call.error_at('"proxy_http_version 2" is known to nginx but not implemented by headgate')
    version: int = _versions(call)
    return version


_versions = slots.enum_of({"1.0": HTTP_10, "1.1": HTTP_11})


class ProxyConf(UpstreamConf, level=Ctx.LOCATION, prefix="proxy"):
    """The proxy module's configuration in force in a location."""

    pass_: Pass | None = directive(
        "proxy_pass", Ctx.LOCATION | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT, "1", Pass, inherit=False
    )
    set_header: list[tuple[str, Template]] = directive("proxy_set_header", HSL, "2", _set_header, many=True)
    http_version: int = directive("proxy_http_version", HSL, "1", _http_version, default=HTTP_11)
    method: Template | None = directive("proxy_method", HSL, "1", slots.template)
    pass_trailers: bool = directive("proxy_pass_trailers", HSL, "flag", slots.flag, default=False)
    set_body: Template | None = directive("proxy_set_body", HSL, "1", slots.template)
    redirect: list[Rule | None] = directive("proxy_redirect", HSL, "1|2", _redirect, many=True)
    cookie_domain: list[Rule | None] = directive("proxy_cookie_domain", HSL, "1|2", _cookie_domain, many=True)
    cookie_path: list[Rule | None] = directive("proxy_cookie_path", HSL, "1|2", _cookie_path, many=True)
    cookie_flags: list[Flags | None] = directive("proxy_cookie_flags", HSL, "1|2|3|4", _cookie_flags, many=True)
    headers_hash_max_size: int = directive("proxy_headers_hash_max_size", HSL, "1", slots.number, default=512)
    headers_hash_bucket_size: int = directive("proxy_headers_hash_bucket_size", HSL, "1", slots.number, default=64)

    HIDE = ("Date", "Server", "X-Pad", "X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering",
            "X-Accel-Charset")  # fmt: skip

    TEMP = "proxy_temp"

    request_fields: RequestFields
    redirects: tuple[Rule, ...]
    inherited_redirects: tuple[Rule, ...] = ()
    cookies: Cookies
    http: Any

    @classmethod
    def merge(cls: type[C], parent: C | None, own: C | None, noname: bool = False) -> C:
        out = super().merge(parent, own, noname)
        if out is not parent and isinstance(parent, ProxyConf) and isinstance(out, ProxyConf):
            out.inherited_redirects = parent.redirects
        return out

    def finish(self, scope: "Scope") -> None:
        super().finish(scope)
        self.request_fields = RequestFields(self)
        self.redirects = self._redirects()
        self.cookies = Cookies(self.cookie_domain, self.cookie_path, self.cookie_flags)
        self.http = scope.config.http
        if self.pass_ is not None and self.pass_.secure:
            self.tls = self.make_tls(scope, (self.pass_.file, self.pass_.line))

    def _redirects(self) -> tuple[Rule, ...]:
        if self.redirect:
            return tuple(rule for rule in self.redirect if rule is not None)
        if self.inherited_redirects or self.pass_ is None:
            return self.inherited_redirects  # as nginx, even before a proxy_pass of its own
        rule = redirect.default(self.pass_)
        return () if rule is None else (rule,)

    def streams(self, r: "Request") -> bool:
        """Whether a request's body is passed on as it comes: nothing of it must be known before."""
        return (
            not self.request_buffering
            and self.pass_request_body
            and self.set_body is None
            and (self.http_version >= HTTP_11 or not r.head.chunked)
        )

    def attach(self, node: "Location") -> None:
        if self.pass_ is None or node.kind == "server":
            return
        node.handler = Handler(self, self.pass_)
        node.auto_redirect = node.name.endswith(b"/")
