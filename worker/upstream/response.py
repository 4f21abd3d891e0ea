"""[11b] The response's head to the client, once the upstream server's has been understood."""

from typing import TYPE_CHECKING

from headgate.worker.upstream.connect import broken
from headgate.worker.upstream.errors import Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


def send_head(u: "Upstream") -> None:
    """Make the head; it leaves together with the first body bytes."""
    r = u.request
    if u.body_done and r.content_length is None:
        r.content_length = 0 if r.method != b"HEAD" and r.status not in (204, 304) else None
    r.disable_not_modified = True  # the upstream server has seen the conditions
    r.send_head()


def ended(u: "Upstream") -> None:
    """The server has closed its connection. Raises UpstreamError unless that was the body's end."""
    assert u.conn is not None
    if u.conn.error is not None:
        raise broken("recv()", u.conn.error)
    if not u.protocol.eof(u):
        raise UpstreamError(Kind.ERROR, "upstream prematurely closed connection")
    u.body_done = True
