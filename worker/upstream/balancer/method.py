"""What the balancing methods share: how a directive chooses one, and what becomes of it in a worker.

A method is a file here with its directive, which calls `choose`. In a worker the method makes the group's balancer
(see `headgate.worker.upstream.contract`): a `Plain` one where nothing need be kept of a request, so that one object
serves all of them, else one that makes an object for each request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.conf.directive import Call, Conf, Ctx
from headgate.shm.peers import Peers

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.balancer.queue import QueueConf
    from headgate.worker.upstream.balancer.sticky import StickyConf

UPS = Ctx.UPSTREAM
NO_BACKUP = frozenset(("backup", "slow_start"))  # what methods that map or draw refuse, as nginx and nginx Plus do


class Plain:
    """A balancer that keeps nothing of a request: its own methods serve every one."""

    __slots__ = ("free", "get", "peers")

    notifies = False

    def __init__(self, peers: Peers, get: Callable[..., int]) -> None:
        self.peers = peers
        self.get = get
        self.free = peers.free

    def init(self, request: "Request") -> "Plain":
        return self

    def notify(self, index: int, event: str) -> None:
        """Nothing that happens on the way changes a choice."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method as configured: what makes a group's balancer, and the parameters of `server` that it refuses."""

    make: Callable[[Peers], Any]
    refuses: frozenset[str] = frozenset()


class BalancingConf(Conf, level=Ctx.UPSTREAM):
    """What an upstream block says of balancing."""

    method: Method | None = None
    sticky: "StickyConf | None" = None
    queue: "QueueConf | None" = None


def choose(call: Call, make: Callable[[Peers], Any], refuses: frozenset[str] = frozenset()) -> None:
    """Use this method in the upstream block. One that was chosen before is replaced, and stickiness with it."""
    conf = vars(call.conf(BalancingConf))
    if conf.keys() & {"method", "sticky"}:
        call.warn("load balancing method redefined")
    conf.pop("sticky", None)
    conf["method"] = Method(make, refuses)


def refused(call: Call, parameter: str) -> bool:
    """Whether the method chosen so far refuses a parameter of `server`; one that is chosen later does not look back."""
    method: Method | None = vars(call.conf(BalancingConf)).get("method")
    return method is not None and parameter in method.refuses
