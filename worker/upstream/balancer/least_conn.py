"""`least_conn`: the peer with the fewest connections for its weight; round robin among equals."""

from headgate.conf.directive import Call, command
from headgate.shm.peers import Least, Peers
from headgate.worker.upstream.balancer.method import UPS, Plain, choose


@command("least_conn", UPS, "0")
def least_conn(call: Call) -> None:
    choose(call, make)


def make(peers: Peers) -> Plain:
    """The balancer."""
    return Plain(peers, Least(peers).get)
