"""`listen`: an address and its options, in nginx's syntax.

Several servers may name one address; the options of the socket are set in one of them.
"""

import ipaddress
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
    "deferred": "deferred accept",
}


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
    def wildcard(self) -> bool:
        return self.family != socket.AF_UNIX and self.sockaddr[0] in ("0.0.0.0", "::")


@dataclass(slots=True)
class Listen:
    """One listening socket. `backlog` is what listen(2) gets; `rcvbuf` and `sndbuf` are bytes or None."""

    address: Address
    backlog: int = 511
    reuseport: bool = False
    ipv6only: bool = True
    rcvbuf: int | None = None
    sndbuf: int | None = None
    fastopen: int | None = None
    so_keepalive: "bool | tuple[int, int, int] | None" = None
    ssl: bool = False
    default: bool = False  # default_server was given
    explicit: bool = False  # options of the socket were given
    places: list[tuple[str, int]] = field(default_factory=list)
    hosts: "VirtualHosts" = None  # type: ignore[assignment]  # set when the http block is complete


def parse(call: Call) -> list[Listen]:
    """All sockets of one `listen` directive: a name may stand for several addresses."""
    options = Listen(Address(0, None, ""))
    for word in call.args[1:]:
        _option(call, options, word)
    out = []
    for address in addresses(call, call.args[0]):
        if options.explicit and address.family == socket.AF_UNIX and options.reuseport:
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
    listen.explicit = word != "bind"
    if word == "reuseport":
        listen.reuseport = True
    elif word == "bind":
        pass  # every address has a socket of its own here, so this is always so
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
    """`80`, `*:80`, `127.0.0.1`, `[::1]:80`, `unix:/path`, `name:80` -> addresses, port 80 by default."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path or len(path) > 107:
            what = "no path" if not path else "too long path"
            raise call.error_at(f'{what} in the unix domain socket in "{text}" of the "listen" directive')
        return [Address(socket.AF_UNIX, path, text)]
    host, port = _split(call, text)
    if host in ("", "*"):
        return [Address(socket.AF_INET, ("0.0.0.0", port), f"0.0.0.0:{port}")]
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _resolve(call, text, host, port)
    return [_address(str(ip), port)]


def _address(ip: str, port: int) -> Address:
    if ":" in ip:
        return Address(socket.AF_INET6, (ip, port, 0, 0), f"[{ip}]:{port}")
    return Address(socket.AF_INET, (ip, port), f"{ip}:{port}")


def _split(call: Call, text: str) -> tuple[str, int]:
    bracket = text.find("]")
    if text.startswith("["):
        if bracket < 0:
            raise call.error_at(f'invalid host in "{text}" of the "listen" directive')
        host, rest = text[: bracket + 1], text[bracket + 1 :]
        if rest and not rest.startswith(":"):
            raise call.error_at(f'invalid host in "{text}" of the "listen" directive')
        digits = rest[1:] if rest else "80"
    elif text.isdigit():
        host, digits = "", text
    else:
        host, colon, digits = text.partition(":")
        digits = digits if colon else "80"
        if not host:
            raise call.error_at(f'no host in "{text}" of the "listen" directive')
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise call.error_at(f'invalid port in "{text}" of the "listen" directive')
    return host, int(digits)


def _resolve(call: Call, text: str, host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise call.error_at(f'host not found in "{text}" of the "listen" directive') from None
    return [_address(str(sockaddr[0]), port) for sockaddr in dict.fromkeys(entry[4] for entry in found)]
