"""What an upstream protocol does by default: subclass it and fill create_request, process_header, finalize_request."""

from typing import TYPE_CHECKING, Final

from headgate.masterd.logfile import Level
from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream


REQUIRED: Final = ("create_request", "process_header", "finalize_request")  # what has no default


@mypyc_attr(allow_interpreted_subclasses=True)  # a py_module's
class Protocol:
    """Defaults of `contract.UpstreamProtocol`: a body of head.length bytes, or all up to the server's close."""

    __slots__ = ()

    def reinit_request(self, u: "Upstream") -> None:
        pass

    def input_filter_init(self, u: "Upstream") -> None:
        head = u.head
        assert head is not None
        u.length = head.length
        u.keepalive = head.length is not None and not head.close
        u.body_done = u.length == 0

    def input_filter(self, u: "Upstream", data: bytes) -> bytes:
        left = u.length
        if left is None:
            return data
        if len(data) > left:
            data = data[:left]
            u.keepalive = False  # the connection cannot be trusted
            u.request.log(Level.WARN, 'upstream sent more data than specified in "Content-Length" header')
        u.length = left = left - len(data)
        if not left:
            u.body_done = True
        return data

    def eof(self, u: "Upstream") -> bool:
        return u.length is None

    def rewrite_redirect(self, u: "Upstream", value: bytes) -> bytes:
        return value

    def rewrite_cookie(self, u: "Upstream", value: bytes) -> bytes:
        return value

    def abort_request(self, u: "Upstream") -> None:
        pass
