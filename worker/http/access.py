"""`allow`, `deny`: who may come in by address; `limit_except`: other rules for other methods.

The rules that answer are `phases.ALLOWED`, 403, or none; what that means together with other modules' verdicts,
`satisfy` says (nginx: ngx_http_access_module).
"""

import socket
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, block, command, directive
from headgate.masterd.logfile import Level
from headgate.worker.http import phases
from headgate.worker.http.conf import Location

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_PLACES = HSL | Ctx.LIMIT_EXCEPT
METHODS = frozenset((
    "GET", "HEAD", "POST", "PUT", "DELETE", "MKCOL", "COPY", "MOVE", "OPTIONS", "PROPFIND", "PROPPATCH", "LOCK",
    "UNLOCK", "PATCH",
))  # fmt: skip


@dataclass(slots=True, frozen=True)
class Rule:
    """One `allow` or `deny`. `family` 0: everybody; `base` under `mask` is the network's address as a number."""

    deny: bool
    family: int
    mask: int = 0
    base: int = 0

    def holds(self, family: int, address: int) -> bool:
        """Whether this address is meant."""
        return not self.family or (self.family == family and address & self.mask == self.base)


def _rule(call: Call) -> Rule:
    deny, text = call.name == "deny", call.args[0]
    if text == "all":
        return Rule(deny, 0)
    rule = network(call, text, deny)
    if rule is None:
        raise call.error_at(f'invalid parameter "{text}"')
    return rule


def network(call: Call, text: str, deny: bool = False) -> Rule | None:
    """The rule for a network written as `10.0.0.0/8`, an address or `unix:`; None for what is none."""
    if text == "unix:":
        return Rule(deny, socket.AF_UNIX)
    host_text, slash, length = text.partition("/")
    try:
        found = ip_network(text, strict=False)
        host = ip_address(host_text)
        if slash and not length.isdigit():  # no netmasks
            return None
    except ValueError:
        return None
    if host != found.network_address:
        call.warn(f"low address bits of {text} are meaningless")
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    return Rule(deny, family, int(found.netmask), int(found.network_address))


class AccessConf(Conf, level=Ctx.LOCATION):
    """The rules in the order in which they are tried; those of `allow` and `deny` are one list."""

    rules: list[Rule] = directive("allow", _PLACES, "1", _rule, many=True)

    def attach(self, node: Location) -> None:
        if self.rules:
            node.access += (access,)


@command("deny", _PLACES, "1")
def deny(call: Call) -> None:
    """`deny`: as `allow`, in the same list."""
    vars(call.conf(AccessConf)).setdefault("rules", []).append(_rule(call))


@block("limit_except", Ctx.LOCATION, "1+")
def limit_except(call: Call) -> None:
    """`limit_except METHOD... { ... }`: what is in the block is for all other methods."""
    place: Location = call.scope.node
    if place.limit is not None:
        raise call.error("is duplicate")
    allowed = {word.upper() for word in call.args}
    for word in call.args:
        if word.upper() not in METHODS:
            raise call.error_at(f'invalid method "{word}"')
    if "GET" in allowed:
        allowed.add("HEAD")
    node = Location("limit_except", place.name, place.text, place.server)
    place.limit = (frozenset(word.encode() for word in allowed), node)
    call.build(Ctx.LIMIT_EXCEPT, node)


def access(r: "Request") -> int | None:
    """The access handler."""
    family, address = number(r.conn.remote_addr)
    for rule in r.location.get(AccessConf).rules:
        if rule.holds(family, address):
            if not rule.deny:
                return phases.ALLOWED
            if not r.location.core.satisfy_any:
                r.log(Level.ERROR, "access forbidden by rule")
            return 403
    return None


def number(address: bytes) -> tuple[int, int]:
    """The family of an address as text, and the address as a number; IPv4 in IPv6 is IPv4."""
    if address == b"unix:":
        return socket.AF_UNIX, 0
    parsed = ip_address(address.decode().partition("%")[0])
    if parsed.version == 6:
        if parsed.ipv4_mapped is None:
            return socket.AF_INET6, int(parsed)
        parsed = parsed.ipv4_mapped
    return socket.AF_INET, int(parsed)
