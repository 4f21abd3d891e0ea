"""Smooth weighted round robin, nginx's default: the picking is `Peers.pick`, under the group's lock."""

from headgate.shm.peers import Peers
from headgate.worker.upstream.balancer.method import Plain


def make(peers: Peers) -> Plain:
    """The balancer of a group that names no method."""
    return Plain(peers, peers.pick)
