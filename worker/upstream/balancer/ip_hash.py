"""`ip_hash`: the peer that the client's address maps to, by nginx's numbers: the /24 of IPv4, all of IPv6."""

import socket
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, command
from headgate.shm.peers import IpHashed, Peers, Shares
from headgate.worker.upstream.balancer.method import NO_BACKUP, UPS, Plain, choose

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

UNIX = bytes(3)  # clients of a Unix-domain socket are all the same to nginx


@command("ip_hash", UPS, "0")
def ip_hash(call: Call) -> None:
    choose(call, IpHash, NO_BACKUP)


class IpHash:
    """The balancer; a request keeps its place in its address's sequence of peers."""

    __slots__ = ("_shares", "peers")

    notifies = False

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self._shares = Shares(peers)

    def init(self, request: "Request") -> Plain:
        return Plain(self.peers, IpHashed(self.peers, key(request), self._shares).get)


def key(request: "Request") -> bytes:
    """What counts of the client's address."""
    conn = request.conn
    if conn.is_unix:
        return UNIX
    text = conn.remote_addr.decode().partition("%")[0]
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return socket.inet_aton(text)[:3]
