"""[8] A group of peers as the workers use it: addresses, shared state, cached connections.

One `Group` stands for an `upstream` block, or for the host of a proxy_pass that names none (an implicit
group). Peers are known by their index; what they share with other workers is in the zone (`Peers`).
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.shm.peers import Health, Outliers, Peers, Retries
from headgate.shm.zone import GroupSpec, PeerSpec
from headgate.worker.upstream.balancer import round_robin
from headgate.worker.upstream.balancer.method import Method, Plain
from headgate.worker.upstream.balancer.outliers import Ejecting, OutlierConf, Sweeper
from headgate.worker.upstream.balancer.queue import Queue, QueueConf, Queued
from headgate.worker.upstream.balancer.sticky import StickyConf
from headgate.worker.upstream.keepalive import Keepalive, KeepaliveConf
from headgate.worker.upstream.prober import Check, Prober
from headgate.worker.upstream.retries import BudgetConf

if TYPE_CHECKING:
    from headgate.masterd.zones import Zones
    from headgate.worker.http.request import Request
    from headgate.worker.http.server import HttpWorker
    from headgate.worker.resolver.conf import ResolverSpec
    from headgate.worker.upstream.contract import Choice
    from headgate.worker.upstream.live import LiveGroup


AUTOMATIC_ZONE = "(automatic)"  # shared by the groups without a `zone` directive; no name can be this


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer is: `name` as nginx writes it in $upstream_addr."""

    family: int
    sockaddr: Any
    name: bytes
    text: str


def numeric(host: str, port: int) -> PeerAddress:
    """The address of a literal IP."""
    if ":" in host:
        text = f"[{host}]:{port}"
        return PeerAddress(socket.AF_INET6, (host, port, 0, 0), text.encode(), text)
    text = f"{host}:{port}"
    return PeerAddress(socket.AF_INET, (host, port), text.encode(), text)


def unix(path: str) -> PeerAddress:
    """The address of a Unix-domain socket."""
    text = f"unix:{path}"
    return PeerAddress(socket.AF_UNIX, path, text.encode("utf-8", "surrogateescape"), text)


@dataclass(slots=True)
class ServerSpec:
    """One `server` line: a peer for each address its name stands for. `fail_timeout`, `slow_start` in seconds."""

    name: str
    addresses: list[PeerAddress]
    weight: int = 1
    max_conns: int = 0
    max_fails: int = 1
    fail_timeout: float = 10.0
    backup: bool = False
    down: bool = False
    slow_start: float = 0.0
    drain: bool = False
    route: str = ""  # the server's name to sticky, instead of a digest of the address
    place: tuple[str, int] = ("", 0)
    resolve: bool = False  # `host` stands for whatever the resolver says, `service` is what to ask for
    service: str = ""
    host: str = ""
    port: int = 0
    resolved: bool = False  # the addresses are what the resolver said


@dataclass(slots=True)
class Group:
    """Peers in the order of shared memory: primaries first, then backups.

    `dynamic` are servers to resolve while the server runs; what they stand for is `live` then.
    """

    name: str
    servers: list[ServerSpec]
    zone: str = AUTOMATIC_ZONE
    keepalive_conf: "KeepaliveConf | None" = None
    implicit: bool = False
    addresses: list[PeerAddress] = field(default_factory=list)
    peers: Peers = None  # type: ignore[assignment]  # set when the zone is open
    keepalive: "Keepalive | None" = None
    method: Method | None = None  # None: round robin
    sticky: StickyConf | None = None
    queue_conf: QueueConf | None = None
    queue: Queue | None = None
    outlier_conf: OutlierConf | None = None
    outliers: Outliers | None = None
    budget_conf: BudgetConf | None = None
    retries: Retries | None = None
    checks: list[Check] = field(default_factory=list)  # of the peers' health
    health: Health | None = None  # what the checks have found
    prober: Prober | None = None
    table: "Callable[[str], object]" = None  # type: ignore[assignment]  # set after the fork: finds a zone's table
    balancer: Any = None  # set after the fork: what chooses for all requests, when `init` is None
    init: "Callable[[Request], Choice] | None" = None  # makes what chooses for one request
    notifies: bool = False  # what chooses wants to know of a response's head
    worker: "HttpWorker" = None  # type: ignore[assignment]  # set after the fork
    backup_exists: bool = False
    dynamic: list[ServerSpec] = field(default_factory=list)
    resolver: "ResolverSpec | None" = None
    resolver_timeout: float = 30.0
    live: "LiveGroup | None" = None
    nobody: PeerAddress = None  # type: ignore[assignment]  # stands for no peer, in logs and $upstream_addr

    def __post_init__(self) -> None:
        name = self.name.encode("utf-8", "surrogateescape")
        self.nobody = PeerAddress(socket.AF_UNSPEC, None, name, self.name)

    def order(self) -> None:
        """Put the peers in order, once all servers are known."""
        self.dynamic = [server for server in self.servers if server.resolve and not server.resolved]
        fixed = [server for server in self.servers if server.resolved or not server.resolve]
        servers = [s for s in fixed if not s.backup] + [s for s in fixed if s.backup]
        self.backup_exists = any(s.backup for s in servers)
        self.servers = servers
        self.addresses = [address for server in servers for address in server.addresses]

    def spec(self) -> GroupSpec:
        """What the shared zone needs to know."""
        peers = [
            PeerSpec(
                server=server.name,
                address=address.text,
                weight=server.weight,
                max_conns=server.max_conns,
                max_fails=server.max_fails,
                fail_timeout=int(server.fail_timeout * 1000),
                backup=server.backup,
                down=server.down,
                slow_start=int(server.slow_start * 1000),
                drain=server.drain,
                resolved=server.resolved,
                checks=tuple((check.id, check.mandatory, check.persistent) for check in self.checks),
                ejection=self.outlier_conf is not None,
            )
            for server in self.servers
            for address in server.addresses
        ]
        return GroupSpec(self.name, peers, board=bool(self.dynamic))

    def start(self, worker: "HttpWorker", zones: "Zones") -> None:
        """In a worker, after the fork."""
        self.worker = worker
        self.table = zones.table
        if self.keepalive_conf is not None and self.keepalive_conf.connections:
            self.keepalive = Keepalive(self.keepalive_conf, worker)
        if self.dynamic:
            from headgate.worker.upstream.live import LiveGroup

            self.live = LiveGroup(self, worker, zones[self.zone])
        else:
            self.use(zones[self.zone].peers(self.name))
        if self.outlier_conf is not None:
            Sweeper(self.outlier_conf, self, worker)
        if self.checks:
            self.prober = Prober(self, worker)

    def use(self, peers: Peers) -> None:
        """Balance over these peers, which are those of `addresses`."""
        self.peers = peers
        balancer = self.method.make(peers) if self.method is not None else round_robin.make(peers)
        if self.sticky is not None:
            balancer = self.sticky.wrap(balancer, self, self.table)
        if self.outlier_conf is not None:
            self.outliers = self.outlier_conf.outliers(peers)
            balancer = Ejecting(balancer, self.outliers, self, self.worker)
        if self.budget_conf is not None:
            self.retries = Retries(peers, self.budget_conf.percent, self.budget_conf.min_retries)
        if self.checks:
            self.health = Health(peers)
        if self.queue_conf is not None:
            self.queue = self.queue or Queue(self.queue_conf, peers, self.worker)
            balancer = Queued(balancer, self.queue)
        self.balancer = balancer
        self.init = None if isinstance(balancer, Plain) else balancer.init
        self.notifies = balancer.notifies
