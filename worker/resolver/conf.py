"""`resolver` and `resolver_timeout`: the name servers that a location, or an upstream block, asks."""

import ipaddress
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive

if TYPE_CHECKING:
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.resolver.resolver import Resolver, Server

DNS_PORT = 53


@dataclass(slots=True)
class ResolverSpec:
    """A `resolver` directive. `valid` in seconds, None: as long as the answers say."""

    servers: "list[Server]"
    valid: int | None
    ipv4: bool
    ipv6: bool
    _live: "Resolver | None" = field(default=None, repr=False)
    _worker: "HttpWorker | None" = field(default=None, repr=False)

    def get(self, worker: "HttpWorker") -> "Resolver":
        """The resolver of this worker, made when it is first needed."""
        if self._live is None or self._worker is not worker:
            from headgate.worker.resolver import resolver

            self._worker = worker
            self._live = resolver.Resolver(worker, self.servers, self.valid or None, self.ipv4, self.ipv6)
        return self._live


def resolver(call: Call) -> ResolverSpec:
    """`ADDRESS[:PORT] ... [valid=TIME] [ipv4=on|off] [ipv6=on|off]`."""
    servers = []
    valid: int | None = None
    off: set[str] = set()
    for word in call.args:
        name, equals, value = word.partition("=")
        if name == "valid" and equals:
            seconds = slots.parse_time(value, msec=False)
            if seconds is None:
                raise call.error_at(f"invalid parameter: {word}")
            valid = int(seconds)
        elif name in ("ipv4", "ipv6") and equals:
            if value not in ("on", "off"):
                raise call.error_at(f"invalid parameter: {word}")
            off.discard(name)
            if value == "off":
                off.add(name)
        elif name == "status_zone" and equals:
            raise call.error_at(f'parameter "{word}" of "{call.name}" is not implemented by headgate')
        else:
            servers += _servers(call, word)
    if len(off) == 2:
        raise call.error_at('"ipv4" and "ipv6" cannot both be "off"')
    if not servers:
        raise call.error_at("no name servers defined")
    return ResolverSpec(servers, valid, "ipv4" not in off, "ipv6" not in off)


def _servers(call: Call, word: str) -> "list[Server]":
    host, colon, digits = word.rpartition(":")
    if not colon or word.endswith("]") or (word.count(":") > 1 and not word.startswith("[")):
        host, digits = word, ""
    if not host:
        raise call.error_at(f'no host in resolver "{word}"')
    if colon and digits == "" and word.endswith(":"):
        raise call.error_at(f'invalid port in resolver "{word}"')
    port = DNS_PORT
    if digits:
        if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) < 65536:
            raise call.error_at(f'invalid port in resolver "{word}"')
        port = int(digits)
    try:
        return [_server(str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), port)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise call.error_at(f'host not found in resolver "{word}"') from None
    return [_server(str(sockaddr[0]), port) for sockaddr in dict.fromkeys(entry[4] for entry in found)]


def _server(address: str, port: int) -> "Server":
    from headgate.worker.resolver.resolver import Server  # here, for whoever has no resolver does without a DNS library

    if ":" in address:
        return Server(socket.AF_INET6, (address, port, 0, 0), f"[{address}]:{port}")
    return Server(socket.AF_INET, (address, port), f"{address}:{port}")


class ResolverConf(Conf, level=Ctx.LOCATION):
    """Who is asked for names that only a request tells. `timeout` in seconds."""

    resolver: ResolverSpec | None = directive("resolver", HSL, "1+", resolver)
    timeout: float = directive("resolver_timeout", HSL, "1", slots.msec, default=30.0)
