"""The directives that all upstream protocols share, declared once: `class ProxyConf(UpstreamConf, prefix="proxy")`."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import Template
from headgate.worker.http.limit_rate import Size, size
from headgate.worker.http.tempfile import TempPath, temp_path
from headgate.worker.upstream import accel
from headgate.worker.upstream.accel import Ignored
from headgate.worker.upstream.bind import Local, SocketOptions, local
from headgate.worker.upstream.errors import WORDS, Kind
from headgate.worker.upstream.header import FieldTable
from headgate.worker.upstream.store import access as store_mode
from headgate.worker.upstream.store import path as store_path
from headgate.worker.upstream.tls_conf import TlsConf

if TYPE_CHECKING:
    from headgate.conf.build import Scope


class UpstreamConf(TlsConf, level=Ctx.LOCATION):
    """What a request does with an upstream server. Times in seconds, sizes in bytes."""

    connect_timeout: float = directive("_connect_timeout", HSL, "1", slots.msec, default=60.0)
    send_timeout: float = directive("_send_timeout", HSL, "1", slots.msec, default=60.0)
    read_timeout: float = directive("_read_timeout", HSL, "1", slots.msec, default=60.0)
    buffer_size: int = directive("_buffer_size", HSL, "1", slots.size, default=4096)
    buffering: bool = directive("_buffering", HSL, "flag", slots.flag, default=True)
    buffers: tuple[int, int] = directive("_buffers", HSL, "2", slots.buffers, default=(8, 4096))
    busy_buffers_size: int = directive("_busy_buffers_size", HSL, "1", slots.size, default=-1)
    max_temp_file_size: int = directive("_max_temp_file_size", HSL, "1", slots.size, default=1 << 30)
    temp_file_write_size: int = directive("_temp_file_write_size", HSL, "1", slots.size, default=-1)
    temp_path: TempPath = directive("_temp_path", HSL, "1|2|3|4", temp_path)
    store: Template | bool = directive("_store", HSL, "1", store_path, default=False)
    store_access: int = directive("_store_access", HSL, "1|2|3", store_mode, default=0o600)
    bind: Local | None = directive("_bind", HSL, "1|2", local)
    socket_keepalive: bool = directive("_socket_keepalive", HSL, "flag", slots.flag, default=False)
    socket_rcvbuf: int = directive("_socket_rcvbuf", HSL, "1", slots.size, default=0)
    socket_sndbuf: int = directive("_socket_sndbuf", HSL, "1", slots.size, default=0)
    next_upstream_kinds: list[Kind] = directive(
        "_next_upstream", HSL, "1+", slots.bitmask(Kind, WORDS), default=[Kind.ERROR | Kind.TIMEOUT], many=True
    )
    next_upstream_tries: int = directive("_next_upstream_tries", HSL, "1", slots.number, default=0)
    next_upstream_timeout: float = directive("_next_upstream_timeout", HSL, "1", slots.msec, default=0.0)
    pass_request_headers: bool = directive("_pass_request_headers", HSL, "flag", slots.flag, default=True)
    pass_request_body: bool = directive("_pass_request_body", HSL, "flag", slots.flag, default=True)
    request_buffering: bool = directive("_request_buffering", HSL, "flag", slots.flag, default=True)
    ignore_client_abort: bool = directive("_ignore_client_abort", HSL, "flag", slots.flag, default=False)
    intercept_errors: bool = directive("_intercept_errors", HSL, "flag", slots.flag, default=False)
    ignored_headers: list[Ignored] = directive(
        "_ignore_headers", HSL, "1+", slots.bitmask(Ignored, accel.WORDS), many=True
    )
    force_ranges: bool = directive("_force_ranges", HSL, "flag", slots.flag, default=False)
    limit_rate: Size | None = directive("_limit_rate", HSL, "1", size)
    hide_header: list[str] = directive("_hide_header", HSL, "1", slots.string, many=True)
    pass_header: list[str] = directive("_pass_header", HSL, "1", slots.string, many=True)
    next_upstream: Kind
    ignore_headers: Ignored
    hidden: frozenset[bytes]
    table: FieldTable
    socket_options: SocketOptions | None
    busy_size: int  # busy_buffers_size and temp_file_write_size, where not set: of the buffers in force
    write_size: int

    # what the protocol hides unless told to pass it
    HIDE: tuple[str, ...] = ()
    INTERCEPT_404 = False  # whether a 404 is always the location's own
    TEMP = ""  # the directory of temporary files, under the prefix, unless told otherwise

    def finish(self, scope: "Scope") -> None:
        names = {d.field: d.name for d in self.directives}
        self.busy_size = self.write_size = 2 * self.buffer_size
        if "buffers" in names:
            self._check_buffers(names["buffers"].removesuffix("_buffers"))
        options = (self.bind, self.socket_keepalive, self.socket_rcvbuf, self.socket_sndbuf)
        self.socket_options = SocketOptions(*options) if any(options) else None
        if self.temp_path is None and "temp_path" in names:
            self.temp_path = TempPath.default(scope.config, self.TEMP)
        self.next_upstream = reduce(or_, self.next_upstream_kinds)
        if Kind.OFF in self.next_upstream:
            self.next_upstream = Kind(0)
        self.ignore_headers = reduce(or_, self.ignored_headers, Ignored(0))
        hidden = {name.lower() for name in (*self.HIDE, *self.hide_header)} - {n.lower() for n in self.pass_header}
        self.hidden = frozenset(name.encode() for name in hidden)
        self.table = FieldTable(self)

    def _check_buffers(self, prefix: str) -> None:
        """Sizes that were not set, and nginx's conditions on them."""
        count, each = self.buffers
        if count < 2:
            raise ConfError(f'there must be at least 2 "{prefix}_buffers"')
        size = max(self.buffer_size, each)
        largest = f'the maximum of the value of "{prefix}_buffer_size" and one of the "{prefix}_buffers"'
        at_least = f"must be equal to or greater than {largest}"
        self.busy_size = self.busy_buffers_size if self.busy_buffers_size >= 0 else 2 * size
        if self.busy_size < size:
            raise ConfError(f'"{prefix}_busy_buffers_size" {at_least}')
        if self.busy_size > (count - 1) * each:
            most = f'the size of all "{prefix}_buffers" minus one buffer'
            raise ConfError(f'"{prefix}_busy_buffers_size" must be less than {most}')
        self.write_size = self.temp_file_write_size if self.temp_file_write_size >= 0 else 2 * size
        if self.write_size < size:
            raise ConfError(f'"{prefix}_temp_file_write_size" {at_least}')
        if 0 < self.max_temp_file_size < size:
            never = "must be equal to zero to disable temporary files usage or"
            raise ConfError(f'"{prefix}_max_temp_file_size" {never} {at_least}')
