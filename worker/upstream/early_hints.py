"""Interim responses (1xx) of upstream servers: 103 is passed on as `early_hints` allows, the others are skipped.

What a server may send of them is bounded: hints are passed on while they fit into one buffer (nginx's
`pass_early_hints`), and a server that goes on and on before its real answer has failed.
"""

from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http import early_hints
from headgate.worker.http.head import HTTP_11
from headgate.worker.upstream.errors import Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.upstream.header import ResponseHead
    from headgate.worker.upstream.upstream import Upstream

MOST_BUFFERS = 8  # interim heads may fill so many buffers in all


def received(u: "Upstream", head: "ResponseHead", total: int) -> None:
    """An interim head has come; `total` bytes of them in all. Raises UpstreamError."""
    size = u.conf.buffer_size
    if head.status == 103 and head.version < HTTP_11:
        raise UpstreamError(Kind.INVALID_HEADER, "upstream sent HTTP/1.0 response with early hints")
    if total > MOST_BUFFERS * size:
        raise UpstreamError(Kind.INVALID_HEADER, "upstream sent too many interim responses")
    if head.status != 103:
        return
    if total > size:
        u.request.log(Level.INFO, "upstream sent too big early hints")
    else:
        early_hints.send(u.request, u.conf.table.shown(head.fields))
