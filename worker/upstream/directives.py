"""The `upstream` block: servers, zone, keepalive; and the groups that proxy_pass makes without one."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, block, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import fsencode
from headgate.masterd.zones import ZoneSpec
from headgate.worker.resolver.conf import ResolverConf, ResolverSpec, resolver
from headgate.worker.upstream import live  # noqa: F401 - without privileges a worker might not be able to load it
from headgate.worker.upstream.balancer.method import BalancingConf, refused
from headgate.worker.upstream.balancer.outliers import OutlierDirective
from headgate.worker.upstream.group import Group, PeerAddress, ServerSpec, numeric, unix
from headgate.worker.upstream.keepalive import KeepaliveConf
from headgate.worker.upstream.retries import BudgetDirective

if TYPE_CHECKING:
    from headgate.worker.http.conf import HttpConf

UPS = Ctx.UPSTREAM
MIN_ZONE = 8 * 4096  # nginx: eight pages
LONGEST_ROUTE = 32  # bytes: NGX_HTTP_UPSTREAM_SID_LEN


@dataclass(slots=True)
class ZoneUse:
    """`zone NAME [SIZE]`: several groups may share a zone, its size is given once."""

    name: str
    size: int | None
    place: tuple[str, int]


def _server(call: Call) -> ServerSpec:
    spec = ServerSpec(call.args[0], [], place=(call.statement.file, call.statement.line))
    for word in call.args[1:]:
        _server_parameter(call, spec, word)
    text = call.args[0]
    if spec.service and not spec.resolve:
        raise call.error_at(f'service upstream "{text}" requires "resolve" parameter')
    if not spec.resolve or text.startswith("unix:"):
        spec.resolve = False
        spec.addresses = resolve(text, 80, *spec.place)
    else:
        _at_run_time(call, spec)
    return spec


def _at_run_time(call: Call, spec: ServerSpec) -> None:
    """`resolve`: an address written out is none to ask for; a name is asked for by the workers."""
    text = spec.name
    spec.host, number = split_host(text, 0, *spec.place)
    spec.port = number or 80
    if spec.service and number:
        raise call.error_at(f'service upstream "{text}" may not have port')
    if _is_address(spec.host):
        if spec.service:
            raise call.error_at(f'service upstream "{text}" requires domain name')
        spec.resolve = False
        spec.addresses = resolve(text, 80, *spec.place)


def _server_parameter(call: Call, spec: ServerSpec, word: str) -> None:
    bad = call.error_at(f'invalid parameter "{word}"')
    name, eq, value = word.partition("=")
    if refused(call, name):
        raise call.error_at(f'balancing method does not support parameter "{word}"')
    if word == "backup":
        spec.backup = True
    elif word == "down":
        spec.down, spec.drain = True, False
    elif word == "drain":
        spec.down, spec.drain = False, True
    elif name in ("weight", "max_conns", "max_fails") and eq:
        if not (value.isascii() and value.isdigit()) or (name == "weight" and not int(value)):
            raise bad
        setattr(spec, name, int(value))
    elif name in ("fail_timeout", "slow_start") and eq:
        seconds = slots.parse_time(value, msec=name == "slow_start")
        if seconds is None:
            raise bad
        setattr(spec, name, seconds)
    elif name == "route" and eq:
        if not value:
            raise call.error_at("route is empty")
        if len(fsencode(value)) > LONGEST_ROUTE:
            raise call.error_at(f"route is longer than {LONGEST_ROUTE}")
        spec.route = value
    elif word == "resolve":
        spec.resolve = True
    elif name == "service" and eq:
        if not value:
            raise call.error_at("service is empty")
        spec.service = value
    else:
        raise bad


def _zone(call: Call) -> ZoneUse:
    name = call.args[0]
    if not name:
        raise call.error_at(f'invalid zone name "{name}"')
    size = None
    if len(call.args) == 2:
        size = slots.parse_size(call.args[1])
        if size is None:
            raise call.error_at(f'invalid zone size "{call.args[1]}"')
        if size < MIN_ZONE:
            raise call.error_at(f'zone "{name}" is too small')
    return ZoneUse(name, size, (call.statement.file, call.statement.line))


def _keepalive(call: Call) -> tuple[int, bool]:
    text = call.args[0]
    if not text.isdigit():
        raise call.error_at(f'invalid value "{text}" in "{call.name}" directive')
    if len(call.args) == 2 and call.args[1] != "local":
        raise call.error_at(f'invalid parameter "{call.args[1]}"')
    return int(text), len(call.args) == 2


class GroupConf(Conf, level=Ctx.UPSTREAM):
    """The directives of an upstream block."""

    servers: list[ServerSpec] = directive("server", UPS, "1+", _server, many=True)
    zone: ZoneUse | None = directive("zone", UPS, "1|2", _zone)
    keepalive: tuple[int, bool] | None = directive("keepalive", UPS, "1|2", _keepalive)
    keepalive_requests: int = directive("keepalive_requests", UPS, "1", slots.number, default=1000)
    keepalive_time: float = directive("keepalive_time", UPS, "1", slots.msec, default=3600.0)
    keepalive_timeout: float = directive("keepalive_timeout", UPS, "1", slots.msec, default=60.0)
    resolver: ResolverSpec | None = directive("resolver", UPS, "1+", resolver)
    resolver_timeout: float | None = directive("resolver_timeout", UPS, "1", slots.msec)


@block("upstream", Ctx.HTTP, "1")
def upstream(call: Call) -> None:
    """An upstream block."""
    name = call.args[0]
    http: HttpConf = call.scope.node
    old = http.groups.get(name.lower())
    if old is not None:
        raise call.error_at(f'duplicate upstream "{name}"')
    scope = call.build(Ctx.UPSTREAM, name)
    conf = scope.merged(GroupConf)
    if not conf.servers:
        raise call.error_end("no servers are inside upstream")
    if all(server.backup for server in conf.servers):
        raise ConfError(f'no servers in upstream "{name}"', call.statement.file, call.statement.line)
    keepalive = KeepaliveConf() if conf.keepalive is None else KeepaliveConf(*conf.keepalive)
    keepalive.requests = conf.keepalive_requests
    keepalive.time = conf.keepalive_time
    keepalive.timeout = conf.keepalive_timeout
    balancing = scope.merged(BalancingConf)
    group = Group(
        name,
        conf.servers,
        keepalive_conf=keepalive,
        method=balancing.method,
        sticky=balancing.sticky,
        queue_conf=balancing.queue,
        outlier_conf=scope.merged(OutlierDirective).ejection,
        budget_conf=scope.merged(BudgetDirective).budget,
    )
    if conf.zone is not None:
        group.zone = conf.zone.name
        _note_zone(http, conf.zone)
    group.order()
    if group.dynamic:
        http.finishers.append(lambda: _choose_resolver(call, group, conf))
    http.groups[name.lower()] = group


def _choose_resolver(call: Call, group: Group, conf: GroupConf) -> None:
    """The upstream's own resolver, or that of the http block around it."""
    outer = ResolverConf.merge(None, call.scope.confs.get(ResolverConf))  # type: ignore[arg-type]
    group.resolver = conf.resolver or outer.resolver
    group.resolver_timeout = outer.timeout if conf.resolver_timeout is None else conf.resolver_timeout
    if group.resolver is None:
        raise call.error_at(f'no resolver defined to resolve names at run time in upstream "{group.name}"')


def _note_zone(http: "HttpConf", use: ZoneUse) -> None:
    known = http.zone_uses.get(use.name)
    if known is None or known.size is None:
        http.zone_uses[use.name] = use
    elif use.size is not None and use.size != known.size:
        reason = (
            f'the size {use.size} of shared memory zone "{use.name}" conflicts with already declared size {known.size}'
        )
        raise ConfError(reason, *use.place)


def finish_zones(http: "HttpConf") -> None:
    """Sort the groups into the zones they live in, once all are known. Raises ConfError."""
    for use in http.zone_uses.values():
        if use.size is None:
            raise ConfError(f'zero size shared memory zone "{use.name}"', *use.place)
        http.zones[use.name] = ZoneSpec(use.size)
    for name, table in http.tables.items():
        if name in http.zones:
            raise ConfError(f'the shared memory zone "{name}" is already declared for a different use', *table.place)
    for group in http.groups.values():
        zone = http.zones.setdefault(group.zone, ZoneSpec(None))
        zone.groups = [*zone.groups, group.spec()]


def resolve(text: str, default_port: int, file: str, line: int, name: str = "") -> list[PeerAddress]:
    """`host[:port]`, `[v6]:port` or `unix:path` -> addresses; a name may have several. Raises ConfError.

    `name` is what a host that is not found is called, where that is not `text`.
    """
    if text.startswith("unix:"):
        path = text[5:]
        if not path or len(path) > 107:
            wrong = "too long" if path else "no"
            raise ConfError(f'{wrong} path in the unix domain socket in upstream "{text}"', file, line)
        return [unix(path)]
    host, port = split_host(text, default_port, file, line)
    if _is_address(host):
        return [numeric(str(ipaddress.ip_address(host.strip("[]"))), port)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfError(f'host not found in upstream "{name or text}"', file, line) from None
    return [numeric(str(sockaddr[0]), port) for sockaddr in dict.fromkeys(entry[4] for entry in found)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def split_host(text: str, default_port: int, file: str = "", line: int = 0, *, url: str = "") -> tuple[str, int]:
    """`host:port` -> its parts; a missing port is `default_port`. Raises ConfError in nginx's words, naming `url`."""
    url = url or text
    end = text.rfind("]") if text.startswith("[") else 0
    if end < 0 or "/" in text or "?" in text:
        raise ConfError(f'invalid host in upstream "{url}"', file, line)
    host, colon, digits = text[end:].partition(":")
    host = text[:end] + host
    if not host:
        raise ConfError(f'no host in upstream "{url}"', file, line)
    if not colon:
        return host, default_port
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) < 65536:
        raise ConfError(f'invalid port in upstream "{url}"', file, line)
    return host, int(digits)


def known_group(http: "HttpConf", host: str, port: int) -> Group | None:
    """The group that a host stands for at run time, if the configuration has one: a block by its name alone."""
    low = host.lower()
    block = http.groups.get(low)
    if block is not None and not block.implicit:
        return block
    group = http.groups.get(_implicit_key(low, port))
    return group if group is not None and group.implicit else None  # a block's name is no host with a port


def find_group(http: "HttpConf", host: str, port: int, file: str, line: int) -> Group:
    """The group that a proxy_pass names: an upstream block, or an implicit group of the host's addresses.

    `port` is the one in `host` or, without one there, the default; 0 when there is none. Raises ConfError.
    """
    known = known_group(http, host, port)
    if known is not None:
        return known
    name = host
    if not host.startswith("unix:"):
        name, number = split_host(host, 0, file, line)
        block = http.groups.get(name.lower())
        if number and block is not None and not block.implicit:
            raise ConfError(f'upstream "{name}" may not have port {number}', file, line)
        if not number and not port:
            raise ConfError(f'no port in upstream "{host}"', file, line)
    key = _implicit_key(host.lower(), port)
    server = ServerSpec(host, resolve(host, port, file, line, name))
    group = http.groups[key] = Group(key, [server], keepalive_conf=KeepaliveConf(0), implicit=True)
    group.order()
    return group


def _implicit_key(host: str, port: int) -> str:
    """Implicit groups are told apart by port, given or not: 443 is not the port of plain HTTP."""
    return host if host.startswith("unix:") or host.endswith(f":{port}") else f"{host}:{port}"
