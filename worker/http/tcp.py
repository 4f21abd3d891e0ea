"""`tcp_nodelay`, `tcp_nopush`: when a response's small packets leave.

Small packets leave at once, unless `tcp_nodelay off` has them wait for the ones before to be acknowledged (RFC 896).
A head and the beginning of its file always share a packet: what `tcp_nopush on` asks for, and nothing asks against.
"""

import socket
from functools import partial
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.worker.http.conf import Location

if TYPE_CHECKING:
    from headgate.worker.http.protocol import Connection
    from headgate.worker.http.request import Request


class TcpConf(Conf, level=Ctx.LOCATION):
    """Of connections to clients."""

    nodelay: bool = directive("tcp_nodelay", HSL, "flag", slots.flag, default=True)
    nopush: bool = directive("tcp_nopush", HSL, "flag", slots.flag, default=False)

    def attach(self, node: Location) -> None:
        if not self.nodelay:
            node.filters += (_delayed,)


def _delayed(r: "Request") -> None:
    """The header filter; the connection's next request begins without."""
    if r.parent is None and not r.conn.lost and not r.conn.is_unix:
        _set(r.conn, 0)
        r.on_finish(partial(_set, r.conn, 1))


def _set(conn: "Connection", nodelay: int) -> None:
    if not conn.lost:
        conn.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
