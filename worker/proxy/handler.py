"""The content handler of a location with proxy_pass: the target, the group, the body, and then `Upstream.run()`."""

from typing import TYPE_CHECKING

from headgate.worker.proxy.protocol import HttpProtocol
from headgate.worker.upstream.resolve import resolve_group
from headgate.worker.upstream.upstream import Upstream

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.proxy.http import ProxyConf
    from headgate.worker.proxy.target import Pass


class Handler:
    """The content handler of a location with proxy_pass."""

    __slots__ = ("conf", "pass_", "target")

    def __init__(self, conf: "ProxyConf", pass_: "Pass") -> None:
        self.conf = conf
        self.pass_ = pass_
        self.target = pass_.target

    async def __call__(self, r: "Request") -> int:
        conf = self.conf
        target = self.target or self.pass_.evaluate(r, conf.http)
        if target is None:
            return 500
        group = target.group
        if group is None:
            if r.body is not None and not conf.streams(r):
                await r.body.read()
            r.keep(target)  # for $proxy_host, should there be no group
            group = await resolve_group(r, target.name, target.port_number)
            if group is None:
                return 502
        protocol = HttpProtocol(conf, target, self.pass_.prefix, self.target is not None)
        u = Upstream(r, conf, group, protocol)
        if target.scheme == "https":
            assert conf.tls is not None
            u.scheme = "https"
            u.tls = conf.tls.use(r, target.name)
            if u.tls is None:
                return 500
        body = r.body
        r.client_gone_ok = conf.ignore_client_abort or r.detached or conf.store is not False
        if body is not None and not body.whole:
            if not conf.request_buffering and conf.streams(r):
                u.streams_body = not body.at_hand()
                u.chunked_body = u.streams_body and r.head.chunked
            elif not body.arrived():
                await body.read()
        return await u.run()
