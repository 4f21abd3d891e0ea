"""Smooth weighted round robin, nginx's default; the picking itself is `Peers.pick`, under the zone's lock."""

from headgate.shm.peers import Peers


class RoundRobin:
    """The balancer of a group; it keeps nothing of a request, so one serves all of them."""

    __slots__ = ("free", "get", "peers")

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.get = peers.pick
        self.free = peers.free
