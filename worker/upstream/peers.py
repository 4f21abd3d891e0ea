"""Peers that no zone holds, for groups that live no longer than a request or have nobody in them."""

from headgate.shm.peers import FAILED


class OwnPeers:
    """Peers of one process, each as good as the next: the first that was not tried. What balancers and `next` ask."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count

    def tries(self) -> int:
        return self.count

    def pick(self, tried: bytearray | None = None) -> int:
        """The index of a peer, -1 when all were tried; the only one there is may be tried again."""
        if self.count < 2:
            return self.count - 1
        return 0 if tried is None else tried.find(0)

    get = pick

    def free(self, index: int, state: int) -> int:
        """1 when a failure has made the peer unavailable, which an only one never is."""
        return int(state == FAILED and self.count > 1)
