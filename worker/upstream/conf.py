"""The directives that all upstream protocols share, declared once: `class ProxyConf(UpstreamConf, prefix="proxy")`."""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.worker.http.body import TempPath, temp_path
from headgate.worker.upstream.errors import WORDS, Kind

if TYPE_CHECKING:
    from headgate.conf.build import Scope

_kinds = slots.bitmask(Kind, WORDS)


def _next_upstream(call: Call) -> Kind:
    return _kinds(call)


class UpstreamConf(Conf, level=Ctx.LOCATION):
    """What a request does with an upstream server. Times in seconds, sizes in bytes."""

    connect_timeout: float = directive("_connect_timeout", HSL, "1", slots.msec, default=60.0)
    send_timeout: float = directive("_send_timeout", HSL, "1", slots.msec, default=60.0)
    read_timeout: float = directive("_read_timeout", HSL, "1", slots.msec, default=60.0)
    buffer_size: int = directive("_buffer_size", HSL, "1", slots.size, default=4096)
    temp_path: TempPath = directive("_temp_path", HSL, "1|2|3|4", temp_path)
    next_upstream: Kind = directive("_next_upstream", HSL, "1+", _next_upstream, default=Kind.ERROR | Kind.TIMEOUT)
    next_upstream_tries: int = directive("_next_upstream_tries", HSL, "1", slots.number, default=0)
    next_upstream_timeout: float = directive("_next_upstream_timeout", HSL, "1", slots.msec, default=0.0)
    pass_request_headers: bool = directive("_pass_request_headers", HSL, "flag", slots.flag, default=True)
    pass_request_body: bool = directive("_pass_request_body", HSL, "flag", slots.flag, default=True)
    request_buffering: bool = directive("_request_buffering", HSL, "flag", slots.flag, default=True)
    ignore_client_abort: bool = directive("_ignore_client_abort", HSL, "flag", slots.flag, default=False)
    intercept_errors: bool = directive("_intercept_errors", HSL, "flag", slots.flag, default=False)
    hide_header: list[str] = directive("_hide_header", HSL, "1", slots.string, many=True)
    pass_header: list[str] = directive("_pass_header", HSL, "1", slots.string, many=True)
    hidden: frozenset[bytes]

    # what the protocol hides unless told to pass it
    HIDE: tuple[str, ...] = ()
    TEMP = ""  # the directory of temporary files, under the prefix, unless told otherwise

    def finish(self, scope: "Scope") -> None:
        if self.temp_path is None:
            self.temp_path = TempPath.default(scope.config, self.TEMP)
        if Kind.OFF in self.next_upstream:
            self.next_upstream = Kind(0)
        hidden = {name.lower() for name in (*self.HIDE, *self.hide_header)} - {n.lower() for n in self.pass_header}
        self.hidden = frozenset(name.encode() for name in hidden)
