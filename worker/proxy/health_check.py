"""`health_check` of a location with proxy_pass: its group's servers are asked now and then (nginx Plus).

The request is a GET of `uri` with the location's proxy_http_version, timeouts, TLS, and those of its proxy_set_header
lines that have no variables, as there is no client that these could tell of. Who asks, and when, is
`headgate.worker.upstream.prober`'s.
"""

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, directive
from headgate.conf.template import fsencode
from headgate.worker.http.head import HTTP_11
from headgate.worker.proxy.health_match import DEFAULT, Match, MatchConf
from headgate.worker.proxy.http import ProxyConf
from headgate.worker.proxy.probe import Link, connect, exchange
from headgate.worker.upstream.prober import CheckFailed

if TYPE_CHECKING:
    from headgate.worker.http.conf import Location
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.proxy.target import Target
    from headgate.worker.upstream.group import PeerAddress
    from headgate.worker.upstream.tls import Use

MOST = 4  # checks of one group: CHECKS of shm/record.pxi


@dataclass(slots=True)
class HealthCheck:
    """One directive: a `Check`. Times in seconds; `port` 0: the server's own."""

    call: Call
    name: str = ""  # of the match
    interval: float = 5.0
    jitter: float = 0.0
    fails: int = 1
    passes: int = 1
    uri: str = "/"
    port: int = 0
    mandatory: bool = False
    persistent: bool = False
    keepalive_time: float = 0.0
    id: int = 0
    match: Match = field(default_factory=lambda: DEFAULT)
    request: bytes = b""
    proxy: ProxyConf = None  # type: ignore[assignment]  # set when the location is complete
    tls: "Use | None" = None
    links: dict[str, Link] = field(default_factory=dict)  # idle, by peer

    def use(self, proxy: ProxyConf | None) -> None:
        """Become a check of the group that the location passes to, once that is known. Raises ConfError."""
        target = proxy.pass_.target if proxy is not None and proxy.pass_ is not None else None
        if proxy is None or target is None or target.group is None:
            raise self.call.error("needs a proxy_pass without variables in the same location")
        group = target.group
        if len(group.checks) == MOST:
            raise self.call.error_at(f'too many health checks of upstream "{group.name}": there may be {MOST}')
        if self.name:
            matches = self.call.scope.above(Ctx.HTTP).conf(MatchConf).matches
            if self.name not in matches:
                raise self.call.error_at(f'unknown match "{self.name}"')
            self.match = matches[self.name]
        self.proxy = proxy
        if target.scheme == "https":
            self.tls = self._tls(target)
        self.request = self._request(target)
        known = {check.id for check in group.checks}
        text, again = f"{target.scheme} {self.uri} {self.port} {self.name}", 0
        while not self.id or self.id in known:
            self.id = zlib.crc32(f"{text} {again}".encode("utf-8", "surrogateescape"))
            again += 1
        group.checks.append(self)

    def _tls(self, target: "Target") -> "Use | None":
        policy = self.proxy.tls
        assert policy is not None, "made for every https target"
        name = policy.name
        if policy.certificate is not None or (name is not None and name.const is None):
            raise self.call.error('cannot be used with variables in "proxy_ssl_name" or "proxy_ssl_certificate"')
        nobody: Any = None
        return policy.use(nobody, target.name)

    def _request(self, target: "Target") -> bytes:
        version = b"1.1" if self.proxy.http_version >= HTTP_11 else b"1.0"
        own = {name.lower(): (name, value.const) for name, value in self.proxy.set_header}
        host = own.pop("host", ("Host", None))[1] or target.host_header
        connection = b"keep-alive" if self.keepalive_time else b"close"
        for framing in ("connection", "content-length", "transfer-encoding", "upgrade"):
            own.pop(framing, None)
        lines = [b"GET " + fsencode(self.uri) + b" HTTP/" + version, b"Host: " + host, b"Connection: " + connection]
        lines += [fsencode(name) + b": " + value for name, value in own.values() if value]
        return b"\r\n".join((*lines, b"", b""))

    # Asking: the prober's

    async def probe(self, worker: "HttpWorker", address: "PeerAddress") -> None:
        """Ask the peer. Raises CheckFailed."""
        link = self.links.pop(address.text, None)
        if link is not None and (link.over or link.reader.at_eof() or link.until <= worker.loop.time()):
            link.close()
            link = None
        if link is None:
            link = await connect(address, self.port, self.tls, self.proxy.connect_timeout)
            link.until = worker.loop.time() + self.keepalive_time
        keep = False
        try:
            whole = self.match.body is not None or bool(self.keepalive_time)
            head, body, keep = await exchange(link, self.request, self.proxy.read_timeout, whole)
            failure = self.match.failure(head, body)
            if failure is not None:
                raise CheckFailed(failure)
        finally:
            if keep and self.keepalive_time:
                self.links[address.text] = link
            else:
                link.close()

    def stop(self) -> None:
        """This worker asks no more."""
        for link in self.links.values():
            link.close()
        self.links.clear()


def _parse(call: Call) -> HealthCheck:
    check = HealthCheck(call)
    for word in call.args:
        if not _parameter(check, word):
            raise call.error_at(f'invalid parameter "{word}"')
    if check.persistent and not check.mandatory:
        raise call.error_at('"persistent" requires "mandatory"')
    return check


def _parameter(check: HealthCheck, word: str) -> bool:
    """Take one parameter; False when it is invalid."""
    name, _, text = word.partition("=")
    if word in ("mandatory", "persistent"):
        setattr(check, word, True)
    elif name in ("type", "grpc_service", "grpc_status"):
        raise check.call.error_at(f'"{name}" of "health_check" is known to nginx but not implemented by headgate')
    elif name in ("interval", "jitter", "keepalive_time"):
        seconds = slots.parse_time(text)
        if seconds is None or (name == "interval" and not seconds):
            return False
        setattr(check, name, seconds)
    elif name in ("fails", "passes", "port"):
        number = int(text) if text.isascii() and text.isdigit() else 0
        if not 0 < number < (1 << 16 if name == "port" else 1 << 31):
            return False
        setattr(check, name, number)
    elif name == "uri" and text.startswith("/") and text.isprintable() and " " not in text:
        check.uri = text
    elif name == "match" and text:
        check.name = text
    else:
        return False
    return True


class HealthConf(Conf, level=Ctx.LOCATION):
    """The checks of a location."""

    checks: list[HealthCheck] = directive("health_check", Ctx.LOCATION, "0+", _parse, many=True, inherit=False)

    def attach(self, node: "Location") -> None:
        if node.kind in ("server", "if", "limit_except"):
            return
        proxy = node.confs.get(ProxyConf)
        assert proxy is None or isinstance(proxy, ProxyConf)
        for check in self.checks:
            http = check.call.scope.above(Ctx.HTTP).node
            http.finishers.append(lambda check=check: check.use(proxy))
