"""`hash KEY [consistent]`: the peer that a text maps to.

Without `consistent` by Cache::Memcached's numbers, with it by a ketama ring with Cache::Memcached::Fast's points: both
as nginx has them, so that a fleet of nginx and headgate agrees.
"""

from typing import TYPE_CHECKING

from headgate.conf.directive import Call, command
from headgate.conf.template import Template
from headgate.shm.peers import KeyHashed, Peers, Ring, RingHashed, Shares
from headgate.worker.upstream.balancer.method import NO_BACKUP, UPS, Plain, choose

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


@command("hash", UPS, "1|2")
def hash(call: Call) -> None:
    template = call.template(call.args[0])
    if len(call.args) == 1:
        choose(call, lambda peers: Hash(peers, template), NO_BACKUP)
    elif call.args[1] == "consistent":
        choose(call, lambda peers: ConsistentHash(peers, template), NO_BACKUP)
    else:
        raise call.error_at(f'invalid parameter "{call.args[1]}"')


class Hash:
    """The balancer without `consistent`; a request keeps its place in its key's sequence of peers."""

    __slots__ = ("_key", "_shares", "peers")

    notifies = False

    def __init__(self, peers: Peers, key: Template) -> None:
        self.peers = peers
        self._key = key
        self._shares = Shares(peers)

    def init(self, request: "Request") -> Plain:
        return Plain(self.peers, KeyHashed(self.peers, self._key.get(request), self._shares).get)


class ConsistentHash:
    """The balancer with `consistent`; the ring is made when it starts, and anew when a weight changes."""

    __slots__ = ("_key", "_ring", "peers")

    notifies = False

    def __init__(self, peers: Peers, key: Template) -> None:
        self.peers = peers
        self._key = key
        self._ring = Ring(peers)
        self._ring.make()

    def init(self, request: "Request") -> Plain:
        return Plain(self.peers, RingHashed(self.peers, self._key.get(request), self._ring).get)
