"""`random [two [least_conn|least_time=header|last_byte]]`: a peer by lot, or the better of two."""

from headgate.conf.directive import Call, command
from headgate.shm.peers import Peers, Random
from headgate.worker.upstream.balancer.least_time import Timed
from headgate.worker.upstream.balancer.method import NO_BACKUP, UPS, Plain, choose

_BY = {"least_conn": "conns", "least_time=header": "header", "least_time=last_byte": "last_byte"}


@command("random", UPS, "0|1|2")
def random(call: Call) -> None:
    args = call.args
    if args and args[0] != "two":
        raise call.error_at(f'invalid parameter "{args[0]}"')
    by = _BY.get(args[1] if len(args) == 2 else "least_conn")
    if by is None:
        raise call.error_at(f'invalid parameter "{args[1]}"')
    choose(call, lambda peers: make(peers, bool(args), by), NO_BACKUP)


def make(peers: Peers, two: bool, by: str) -> "Plain | Timed":
    """The balancer; `by`: what two that were drawn are compared by."""
    drawn = Random(peers, two, by)
    return Plain(peers, drawn.get) if by == "conns" else Timed(peers, drawn.get, False)
