"""The frozen http configuration as a worker reads it: listens, servers, locations.

Built by `headgate.worker.http.directives`; nothing here knows how a configuration is written.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from headgate.conf.directive import Conf
from headgate.worker.http.listen import Listen
from headgate.worker.http.names import Names
from headgate.worker.http.regex import Regex

if TYPE_CHECKING:
    from headgate.masterd.logfile import ErrorLog, LogFile
    from headgate.masterd.zones import TableSpec, ZoneSpec
    from headgate.worker.http.directives import CoreHttp, CoreLocation, CoreServer
    from headgate.worker.http.location import LocationTree
    from headgate.worker.http.log import Buffer
    from headgate.worker.http.log_format import LogFormat
    from headgate.worker.http.request import Request
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.upstream.directives import ZoneUse
    from headgate.worker.upstream.group import Group

C = TypeVar("C", bound=Conf)

# A phase handler or content handler: a plain function, or a coroutine function. Its result is None
# (declined: go on), DONE (the response is complete), or a status to answer with.
Result = int | None
Handler = Callable[["Request"], Result | Awaitable[Result]]
Rule = Callable[["Request"], Result]  # of the rewrite phases: a plain function, whose result may be STOP too
HeaderFilter = Callable[["Request"], None]


class LogWriter(Protocol):
    """What hears of a request at its end."""

    def write(self, r: "Request") -> None: ...


class Location:
    """One location (or a server's own level, where a request stands before a location is found).

    `handler` gives the content; without one the `content` handlers (index, static files) are asked in turn.
    `rewrite`, `preaccess`, `access` and `precontent` hold the handlers of those phases; `filters` the header
    filters in order. All are filled by `Conf.attach` hooks when the configuration is built, so a location that
    needs none has empty tuples.
    """

    __slots__ = (
        "access",
        "access_logs",
        "auto_redirect",
        "client_max_body_size",
        "confs",
        "content",
        "core",
        "error_log",
        "filters",
        "handler",
        "internal",
        "keepalive_disable",
        "keepalive_header",
        "keepalive_requests",
        "keepalive_time",
        "keepalive_timeout",
        "kind",
        "limit",
        "name",
        "post_action",
        "preaccess",
        "precontent",
        "regex",
        "rewrite",
        "server",
        "server_tokens",
        "text",
        "tree",
    )  # fmt: skip

    def __init__(self, kind: str, name: bytes, text: str, server: "Server") -> None:
        self.kind = kind  # "=", "", "^~", "~", "~*", "@" or "server", "if", "limit_except"
        self.name = name
        self.text = text
        self.server = server
        self.regex: Regex | None = None
        self.confs: dict[type[Conf], Conf] = {}
        self.core: CoreLocation = None  # type: ignore[assignment]  # set when merged, and with it:
        self.internal = False
        self.client_max_body_size = 0
        self.keepalive_timeout = 0.0
        self.keepalive_header = 0.0
        self.keepalive_requests = 0
        self.keepalive_time = 0.0
        self.keepalive_disable: frozenset[str] = frozenset()
        self.server_tokens = ""
        self.post_action: bytes | None = None
        self.handler: Handler | None = None
        self.limit: tuple[frozenset[bytes], Location] | None = None  # limit_except: methods, what the others get
        self.auto_redirect = False
        self.rewrite: tuple[Rule, ...] = ()
        self.preaccess: tuple[Handler, ...] = ()
        self.access: tuple[Handler, ...] = ()
        self.precontent: tuple[Handler, ...] = ()
        self.content: tuple[Handler, ...] = ()
        self.filters: tuple[HeaderFilter, ...] = ()
        self.access_logs: tuple[LogWriter, ...] = ()
        self.error_log: ErrorLog = None  # type: ignore[assignment]
        self.tree: LocationTree | None = None

    def set_core(self, core: "CoreLocation") -> None:
        """The core configuration is merged; what every request asks for becomes attributes of this compiled class."""
        self.core = core
        self.internal = core.internal
        self.client_max_body_size = core.client_max_body_size
        self.keepalive_timeout, self.keepalive_header = core.keepalive_timeout
        self.keepalive_requests = core.keepalive_requests
        self.keepalive_time = core.keepalive_time
        self.keepalive_disable = core.keepalive_disable
        self.server_tokens = core.server_tokens
        self.post_action = core.post_action

    def get(self, cls: type[C]) -> C:
        """The configuration of a module in force here."""
        return self.confs[cls]  # type: ignore[return-value]


class Server:
    """One server block: its names, its own level, its locations."""

    __slots__ = ("core", "file", "line", "location", "locations", "named", "names")

    def __init__(self, file: str, line: int) -> None:
        self.file = file
        self.line = line
        self.core: CoreServer = None  # type: ignore[assignment]  # set when merged
        self.names: list[str] = []
        self.location: Location = Location("server", b"", "", self)
        self.locations: list[Location] = []
        self.named: dict[bytes, Location] = {}


class VirtualHosts:
    """The servers of one listening address, found by name: exact, `*.wild`, `wild.*`, then regexes in order."""

    __slots__ = ("_seen", "default", "names", "regexes")

    def __init__(self, default: Server) -> None:
        self.default = default
        self.names: Names[Server] = Names()
        self.regexes: list[tuple[Regex, Server]] = []
        self._seen: dict[bytes, Server] = {}

    def find(self, host: bytes) -> tuple[Server, Any]:
        """The server for a lower-case host name without port, and the match when a regex chose it."""
        known = self._seen.get(host)
        if known is not None:
            return known, None
        server = self.names.find(host)
        if server is None:
            for regex, candidate in self.regexes:
                match = regex.search(host)
                if match is not None:
                    return candidate, (regex, match)
            server = self.default
        if len(self._seen) < 1024:
            self._seen[host] = server
        return server, None


class HttpConf:
    """The http block. `listens` are the addresses to bind; each has its `hosts`."""

    __slots__ = (
        "core", "finishers", "groups", "listens", "locations", "log_buffers", "log_formats", "servers", "starters",
        "tables", "tls", "zone_uses", "zones",
    )  # fmt: skip

    def __init__(self) -> None:
        self.core: CoreHttp = None  # type: ignore[assignment]
        self.servers: list[Server] = []
        self.listens: list[Listen] = []
        self.locations: list[Location] = []  # all, at any depth, with those of servers and `if`
        self.log_formats: dict[str, LogFormat] = {}
        self.log_buffers: dict[LogFile | None, Buffer] = {}
        self.groups: dict[str, Group] = {}
        self.tls: dict[Any, Any] = {}  # TLS contexts by what they were made of, so that each is made once
        self.zone_uses: dict[str, ZoneUse] = {}  # `zone` directives
        self.zones: dict[str, ZoneSpec] = {}  # what the cycle opens
        self.tables: dict[str, TableSpec] = {}  # of the same, those that need no slots
        # run, in order, once names are resolved and everything is merged
        self.finishers: list[Callable[[], None]] = []
        # run in each worker before it accepts
        self.starters: list[Callable[[HttpWorker], None]] = []
