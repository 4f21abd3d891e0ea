"""The two public contracts: an upstream protocol, and a balancer.

An upstream protocol speaks one wire format to a server (HTTP, memcached, ...); it fills nginx's
callbacks. A balancer chooses a peer. Neither does I/O.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.group import Group
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
    """One request's choice among a group's peers."""

    def init(self, group: "Group", request: "Request") -> None:
        """A new request for this group."""

    def get(self, tried: bytearray | None) -> int:
        """The index of an eligible peer, its connection counted; -1 when there is none (NGX_BUSY).

        `tried` has one byte for each peer, not 0 for those this request has already tried.
        """

    def free(self, index: int, state: int) -> int:
        """The attempt has ended: shm.peers.OK, NEXT or FAILED. 1 when this made the peer unavailable."""

    def notify(self, index: int, event: str) -> None:
        """Something happened on the way ("header": the response's head is there)."""
