"""`set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: the client's address as a trusted proxy tells it.

Looked for once a request, before the server's rewrites and again where a location may say something else. What is found
stands for the client's address everywhere, in logs, rules and balancing, until the request ends (nginx:
ngx_http_realip_module). The PROXY protocol is not here.
"""

import socket
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Variable, fsencode
from headgate.worker.http.access import Rule, network, number
from headgate.worker.http.conf import Location
from headgate.worker.http.wire import decimal

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_FORWARDED = b"x-forwarded-for"  # all its lines count as one


def _from(call: Call) -> tuple[Rule, ...]:
    text = call.args[0]
    rule = network(call, text)
    if rule is not None:
        return (rule,)
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except OSError:
        raise call.error_at(f'host not found in set_real_ip_from "{text}"') from None
    return tuple(_only(str(each[4][0])) for each in found)


def _only(host: str) -> Rule:
    family, address = number(host.encode())
    return Rule(False, family, (1 << (32 if family == socket.AF_INET else 128)) - 1, address)


def _header(call: Call) -> bytes:
    if call.args[0] == "proxy_protocol":
        raise call.error("needs the PROXY protocol, which headgate does not speak")
    return fsencode(call.args[0]).lower()


class RealIpConf(Conf, level=Ctx.LOCATION):
    """Who is trusted, and for which field."""

    trusted: list[tuple[Rule, ...]] = directive("set_real_ip_from", HSL, "1", _from, many=True)
    header: bytes = directive("real_ip_header", HSL, "1", _header, default=b"x-real-ip")
    recursive: bool = directive("real_ip_recursive", HSL, "flag", slots.flag, default=False)

    def attach(self, node: Location) -> None:
        if self.trusted:
            rules = tuple(rule for each in self.trusted for rule in each)
            find = RealIp(rules, self.header, self.recursive)
            if node.kind == "server":
                node.rewrite = (find, *node.rewrite)
            else:
                node.preaccess += (find,)


class RealIp:
    """The handler of a location, or of a server's first phase."""

    __slots__ = ("_header", "_recursive", "_rules")

    def __init__(self, rules: tuple[Rule, ...], header: bytes, recursive: bool) -> None:
        self._rules = rules
        self._header = header
        self._recursive = recursive

    def __call__(self, r: "Request") -> None:
        if r.conn.peer is None:
            value = r.header_all(_FORWARDED) if self._header == _FORWARDED else r.header(self._header)
            found = self._forwarded(r.conn.remote_addr, value) if value else None
            if found is not None:
                r.conn.stand_in(*found)

    def _forwarded(self, address: bytes, value: bytes) -> tuple[bytes, int] | None:
        """The last address of a list that came from `address`; with `real_ip_recursive` the last not trusted."""
        found = None
        while self._trusted(address):
            value = value.rstrip(b" ,")
            start = max(value.rfind(b" ", 1), value.rfind(b",", 1)) + 1
            parsed = parse(value[start:])
            if parsed is None:
                break
            found, address = parsed, parsed[0]
            if not self._recursive or not start:
                break
            value = value[: start - 1]
        return found

    def _trusted(self, address: bytes) -> bool:
        family, value = number(address)
        return any(rule.holds(family, value) for rule in self._rules)


def parse(text: bytes) -> tuple[bytes, int] | None:
    """`1.2.3.4`, `::1`, `1.2.3.4:80` or `[::1]:80` as address and port (0: none); None for anything else."""
    address = _numeric(text)
    if address is not None:
        return address, 0
    host, colon, port = text[1:].partition(b"]:") if text.startswith(b"[") else text.partition(b":")
    address = _numeric(host)
    if address is None or not colon or not 0 < decimal(port) < 65536:
        return None
    return address, decimal(port)


def _numeric(text: bytes) -> bytes | None:
    family = socket.AF_INET6 if b":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.decode())).encode()
    except (OSError, ValueError):
        return None


def _peer(r: "Request") -> tuple[bytes, int]:
    return r.conn.peer or (r.conn.remote_addr, r.conn.remote_port)


def _port(r: "Request") -> bytes:
    port = _peer(r)[1]
    return b"%d" % port if port else b""


VARIABLES = (Variable("realip_remote_addr", lambda r: _peer(r)[0]), Variable("realip_remote_port", _port))
