"""The two public contracts: an upstream protocol, and a balancer.

An upstream protocol speaks one wire format to a server (HTTP, memcached, ...); it fills nginx's
callbacks. A balancer chooses a peer. Neither does I/O, and keepalive wraps any balancer: connections are kept by peer.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.upstream import Upstream


class UpstreamProtocol(Protocol):
    """One request's use of a wire format; made anew for every request.

    `create_request`, `process_header` and `finalize_request` say something for every protocol; the others have
    defaults in `headgate.worker.upstream.protocol.Protocol`.
    """

    def create_request(self, u: "Upstream") -> bytes:
        """The request's head (all of the request but its body); called once a request."""

    def reinit_request(self, u: "Upstream") -> None:
        """Forget what a failed attempt left; called before the next peer is tried."""

    def process_header(self, u: "Upstream", data: bytes) -> int | None:
        """Read the response's head from `data` (all received so far).

        Returns how many bytes it took, or None when more is needed; fills u.head. Raises UpstreamError.
        """

    def input_filter_init(self, u: "Upstream") -> None:
        """The head is complete and accepted: prepare to frame the body."""

    def input_filter(self, u: "Upstream", data: bytes) -> bytes:
        """Body bytes as received -> body bytes to pass on; sets u.body_done at the end. Raises UpstreamError."""

    def eof(self, u: "Upstream") -> bool:
        """The server has closed the connection: was the body complete with that?"""

    def rewrite_redirect(self, u: "Upstream", value: bytes) -> bytes:
        """A Location or Refresh target as the client should see it; `value` itself where nothing is changed."""

    def rewrite_cookie(self, u: "Upstream", value: bytes) -> bytes:
        """A Set-Cookie value as the client should see it."""

    def abort_request(self, u: "Upstream") -> None:
        """The client has gone or the request ends early."""

    def finalize_request(self, u: "Upstream", status: int) -> None:
        """The end, exactly once, whatever happened."""


class Balancer(Protocol):
    """A group's way to choose among its peers, in one worker; made of the group's `Peers` when the worker starts.

    What it knows of a peer it asks the `Peers` (`headgate.shm.peers`), which all workers share; indexes are positions
    in it. Weights, limits, failures and counts are theirs, so that a balancer cannot get them wrong.
    """

    notifies: bool  # whether `Choice.notify` is to be called

    def init(self, request: "Request") -> "Choice":
        """A new request: what chooses for it, this balancer itself if it keeps nothing of a request."""


class Choice(Protocol):
    """One request's tries. While a try lasts, `request.upstream.attempt` has its times."""

    def get(self, tried: bytearray | None, now: int = -1, hint: int = -1, spare: int = -1) -> int:
        """The index of an eligible peer with its connection counted, by `Peers.pick` or `take`; -1 when there is none.

        `tried` has one byte for each peer, not 0 for those this request has already tried; None is none. Stickiness
        wants the primary `hint` or, where a backup must serve, `spare`; `now` is for tests.
        """

    def free(self, index: int, state: int) -> int:
        """The try has ended, in shm.peers.OK, NEXT or FAILED: what `Peers.free` returns, 1 when the peer is out now."""

    def notify(self, index: int, event: str) -> None:
        """Something happened on the way: "header", the response's head is there and will be passed on."""
