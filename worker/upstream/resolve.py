"""Groups that only a request tells: a literal address in a variable, or a name for the location's resolver.

Their peers are thrown away with them: no zone, no counts that others see, no connections kept (nginx:
ngx_http_upstream_create_round_robin_peer).
"""

import ipaddress
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.resolver.conf import ResolverConf
from headgate.worker.upstream.group import Group, PeerAddress, ServerSpec, numeric, unix
from headgate.worker.upstream.peers import OwnPeers

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


def own_group(name: str, addresses: list[PeerAddress]) -> Group:
    """A group of these addresses, for whoever holds it."""
    group = Group(name, [ServerSpec(name, addresses)], implicit=True)
    group.order()
    group.peers = group.balancer = OwnPeers(len(addresses))  # type: ignore[assignment]
    return group


def literal_group(host: str, name: str, port: int) -> Group | None:
    """The group of an address written out, `name` being `host` without the port; None for a name."""
    if host.startswith("unix:"):
        return own_group(name, [unix(name)])
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return own_group(name, [numeric(str(address), port)])


async def resolve_group(r: "Request", name: str, port: int) -> Group | None:
    """Ask the location's resolver; None, and it is logged, when it does not know."""
    conf = r.location.get(ResolverConf)
    if conf.resolver is None:
        r.log(Level.ERROR, f"no resolver defined to resolve {name}")
        return None
    from headgate.worker.resolver.resolver import ResolveError

    try:
        addresses, _ = await conf.resolver.get(r.conn.worker).resolve(name, conf.timeout)
    except ResolveError as error:
        r.log(Level.ERROR, f"{name} could not be resolved {error}")
        return None
    return own_group(name, [numeric(address, port) for address in addresses])
