"""The socket to an upstream server before it connects: `NAME_bind`, keepalive probes, buffer sizes.

A local address comes from the configuration or, with variables, from the request: "" is none, and one that is no
address is logged and left out. `transparent` takes addresses that are not this machine's (the client's); the worker
keeps CAP_NET_RAW for it, and where that may not be the configuration is refused.
"""

import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from headgate.conf.directive import Call
from headgate.conf.template import Template
from headgate.masterd.logfile import Level, failed
from headgate.worker.upstream.errors import GiveUp

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.group import PeerAddress
    from headgate.worker.upstream.upstream import Upstream

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75  # linux/in6.h

Where = tuple[int, Any]  # address family, socket address


def parse(text: str) -> Where | None:
    """`ADDRESS[:PORT]`, an IPv6 address in brackets when a port follows; None when it is neither."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":") or port == ":":
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        return None
    number = int(port or 0)
    if address.version == 6:
        return socket.AF_INET6, (host, number, 0, 0)
    return socket.AF_INET, (host, number)


class Local:
    """`NAME_bind ADDRESS [transparent]`."""

    __slots__ = ("fixed", "template", "transparent")

    def __init__(self, template: Template, fixed: Where | None, transparent: bool) -> None:
        self.template = template
        self.fixed = fixed
        self.transparent = transparent

    def get(self, r: "Request") -> Where | None:
        """The local address for this request."""
        if self.fixed is not None:
            return self.fixed
        text = self.template.get(r).decode("utf-8", "surrogateescape")
        where = parse(text) if text else None
        if text and where is None:
            r.log(Level.ERROR, f'invalid local address "{text}"')
        return where


def local(call: Call) -> Local | None:
    """The directive's value; None for `off`."""
    text = call.args[0]
    if call.args == ["off"]:
        return None
    template = call.template(text)
    fixed = None
    if template.const is not None:
        fixed = parse(text)
        if fixed is None:
            raise call.error_at(f'invalid address "{text}"')
    transparent = len(call.args) == 2
    if transparent:
        if call.args[1] != "transparent":
            raise call.error_at(f'invalid parameter "{call.args[1]}"')
        _permitted(call)
        call.scope.config.transparent = True
    return Local(template, fixed, transparent)


def _permitted(call: Call) -> None:
    """Whether sockets may have foreign addresses here at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        except OSError as error:
            raise call.error_at(
                f'"{call.name} ... transparent" is not permitted: {failed("setsockopt(IP_TRANSPARENT)", error)}, '
                "it needs the super-user or CAP_NET_RAW"
            ) from None


class SocketOptions:
    """What is done to each new socket; made only where there is something to do."""

    __slots__ = ("keepalive", "local", "receive", "send")

    def __init__(self, local: Local | None, keepalive: bool, receive: int, send: int) -> None:
        self.local = local
        self.keepalive = keepalive
        self.receive = receive
        self.send = send

    def apply(self, u: "Upstream", sock: socket.socket, peer: "PeerAddress") -> None:
        """Raises GiveUp (500): an address that cannot be bound is a mistake of ours, not the server's."""
        what = ""
        level = Level.ALERT
        where = self.local.get(u.request) if self.local is not None else None
        try:
            if self.receive:
                what = "setsockopt(SO_RCVBUF)"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive)
            if self.send:
                what = "setsockopt(SO_SNDBUF)"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send)
            if self.keepalive:
                what = "setsockopt(SO_KEEPALIVE)"
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if where is None:
                return
            family, address = where
            if self.local is not None and self.local.transparent:
                what = "setsockopt(IP_TRANSPARENT)"
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
                else:
                    sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            if not address[1] and peer.family != socket.AF_UNIX:  # a port for each pair of addresses, not for each
                what = "setsockopt(IP_BIND_ADDRESS_NO_PORT)"
                sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            what, level = f"bind({_text(address)})", Level.CRIT
            sock.bind(address)
        except OSError as error:
            u.request.log(level, failed(what, error))
            raise GiveUp(500) from None


def _text(address: Any) -> str:
    host = f"[{address[0]}]" if ":" in address[0] and address[1] else address[0]
    return f"{host}:{address[1]}" if address[1] else host
