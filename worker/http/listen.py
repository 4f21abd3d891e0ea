"""`listen`: an address and its options, in nginx's syntax.

Several servers may name one address; the options of the socket are set in one of them. An address without options
of its own has no socket beside `*:port`, which the kernel would refuse: connections to it come through that one.
"""

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.conf.directive import Call
from headgate.conf.slots import parse_size, parse_time

if TYPE_CHECKING:
    from headgate.worker.http.conf import VirtualHosts

NOT_HERE = {
    "http2": "HTTP/2",
    "quic": "QUIC",
    "proxy_protocol": "the PROXY protocol",
}
_PORTS = re.compile(r"\d+(-\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to bind: `sockaddr` for socket.bind(), `text` as nginx prints it."""

    family: int
    sockaddr: Any
    text: str

    @property
    def port(self) -> int:
        return 0 if self.family == socket.AF_UNIX else int(self.sockaddr[1])

    @property
    def wildcard(self) -> "Address | None":
        """`*` with this address's family and port; None for a Unix socket."""
        if self.family == socket.AF_UNIX:
            return None
        return _address("::" if self.family == socket.AF_INET6 else "0.0.0.0", self.port)


@dataclass(slots=True)
class Listen:
    """One address. `backlog` is what listen(2) gets; `rcvbuf` and `sndbuf` are bytes or None."""

    address: Address
    backlog: int = 511
    reuseport: bool = False
    ipv6only: bool = True
    rcvbuf: int | None = None
    sndbuf: int | None = None
    fastopen: int | None = None
    so_keepalive: "bool | tuple[int, int, int] | None" = None
    deferred: bool = False
    ssl: bool = False
    default: bool = False  # default_server was given
    explicit: bool = False  # options of the socket were given, so it has one of its own
    places: list[tuple[str, int]] = field(default_factory=list)
    hosts: "VirtualHosts" = None  # type: ignore[assignment]  # set when the http block is complete
    behind: "dict[str, Listen]" = field(default_factory=dict)  # of a wildcard: by IP, those that come through it


def parse(call: Call) -> list[Listen]:
    """All sockets of one `listen` directive: a name may stand for several addresses."""
    found = addresses(call, call.args[0])
    options = Listen(found[0])
    for word in call.args[1:]:
        _option(call, options, word)
    out = []
    for address in found:
        if address.family == socket.AF_UNIX and options.reuseport:
            raise call.error_at('"reuseport" is not supported for unix sockets')
        listen = Listen(address)
        for name in (
            "ssl",
            "backlog",
            "reuseport",
            "ipv6only",
            "rcvbuf",
            "sndbuf",
            "fastopen",
            "so_keepalive",
            "deferred",
            "default",
            "explicit",
        ):
            setattr(listen, name, getattr(options, name))
        listen.places = [(call.statement.file, call.statement.line)]
        out.append(listen)
    return out


def _option(call: Call, listen: Listen, word: str) -> None:
    name, eq, value = word.partition("=")
    if word in ("default_server", "default"):
        listen.default = True
        return
    if word == "ssl":
        listen.ssl = True
        return
    if word in NOT_HERE:
        raise call.error_at(f'parameter "{word}" of "listen" ({NOT_HERE[word]}) is not implemented by headgate')
    listen.explicit = True
    if word == "reuseport":
        listen.reuseport = True
    elif word == "deferred":
        listen.deferred = True
    elif word == "bind":
        pass
    elif name == "backlog" and eq:
        if not value.isdigit() or not int(value):
            raise call.error_at(f'invalid backlog "{word}"')
        listen.backlog = int(value)
    elif name in ("rcvbuf", "sndbuf") and eq:
        size = parse_size(value)
        if size is None:
            raise call.error_at(f'invalid {name} "{word}"')
        setattr(listen, name, size)
    elif name == "fastopen" and eq:
        if not value.isdigit():
            raise call.error_at(f'invalid fastopen "{word}"')
        listen.fastopen = int(value)
    elif name == "ipv6only" and eq:
        if value not in ("on", "off"):
            raise call.error_at(f'invalid ipv6only flags "{value}"')
        listen.ipv6only = value == "on"
    elif name == "so_keepalive" and eq:
        listen.so_keepalive = _keepalive(call, value)
    else:
        raise call.error_at(f'invalid parameter "{word}"')


def _keepalive(call: Call, value: str) -> "bool | tuple[int, int, int]":
    if value in ("on", "off"):
        return value == "on"
    parts = value.split(":")
    bad = call.error_at(f'invalid so_keepalive value: "{value}"')
    if len(parts) != 3 or not any(parts):
        raise bad
    idle = parse_time(parts[0]) if parts[0] else 0.0
    interval = parse_time(parts[1]) if parts[1] else 0.0
    if idle is None or interval is None or (parts[2] and not parts[2].isdigit()):
        raise bad
    return int(idle), int(interval), int(parts[2] or 0)


def addresses(call: Call, text: str) -> list[Address]:
    """`80`, `*:80-83`, `127.0.0.1`, `[::1]:80`, `unix:/path`, `name:80` -> addresses, port 80 by default."""
    try:
        if text.startswith("unix:"):
            path = text[5:]
            if not path or len(path) > 107:
                raise ValueError(f"{'too long' if path else 'no'} path in the unix domain socket")
            return [Address(socket.AF_UNIX, path, text)]
        host, ports = _split(text)
        ips = _ips(host)
    except ValueError as error:
        raise call.error_at(f'{error} in "{text}" of the "listen" directive') from None
    return [_address(ip, port) for port in ports for ip in ips]


def _address(ip: str, port: int) -> Address:
    if ":" in ip:
        return Address(socket.AF_INET6, (ip, port, 0, 0), f"[{ip}]:{port}")
    return Address(socket.AF_INET, (ip, port), f"{ip}:{port}")


def _split(text: str) -> tuple[str, range]:
    """Host (`*` for any, `[...]` for IPv6) and ports. Raises ValueError with nginx's reason."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or rest[:1] not in ("", ":") or "/" in rest:
            raise ValueError("invalid host")
        ports = _ports(rest[1:] if rest else "80")
    elif "/" in text or "?" in text:
        raise ValueError("invalid host")
    elif _PORTS.fullmatch(text):
        return "*", _ports(text)
    else:
        host, colon, rest = text.partition(":")
        ports = _ports(rest if colon else "80")
    if host in ("", "["):
        raise ValueError("no host")
    return host, ports


def _ports(text: str) -> range:
    low, dash, high = text.partition("-")
    first = _port(low)
    last = _port(high) if dash else first
    if first > last:
        raise ValueError("invalid port range")
    return range(first, last + 1)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError("invalid port")
    return int(text)


def _ips(host: str) -> list[str]:
    """The addresses of a host, as the kernel writes them. Raises ValueError with nginx's reason."""
    if host == "*":
        return ["0.0.0.0"]
    try:
        if host.startswith("["):
            return [socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host[1:]))]
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise ValueError("invalid IPv6 address" if host.startswith("[") else "host not found") from None
    except UnicodeError:
        raise ValueError("host not found") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
