"""Requests by nginx's rules: which methods and field names are taken, what a Host may look like, old browsers."""

import re
from typing import TYPE_CHECKING, Final

from headgate.masterd.logfile import Level
from headgate.worker.http.head import BadRequest, RequestHead
from headgate.worker.http.llhttp import Header
from headgate.worker.http.uri import is_authority

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_VALID: Final = re.compile(rb"[A-Za-z0-9-]+")
_VALID_UNDERSCORES: Final = re.compile(rb"[A-Za-z0-9_-]+")
_HOST: Final = re.compile(rb"(\[[^\x00-\x20\x7f/\\\[\]]+\]|[^\x00-\x20\x7f/\\:\[\]]+)(?::(\d*))?")

_OLD_MSIE: Final = re.compile(rb"MSIE [456]\.")
REFUSED: Final = frozenset((b"TRACE", b"CONNECT"))

_SENDABLE: Final = (re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*"))

_hosts: Final[dict[bytes, bytes]] = {}


def keep(r: "Request") -> list[Header]:
    """The fields without those whose names nginx ignores (ignore_invalid_headers, underscores_in_headers)."""
    core = r.server.core
    if not core.ignore_invalid_headers:
        return r.head.headers
    valid = _VALID_UNDERSCORES if core.underscores_in_headers else _VALID
    out = []
    action, r.action = r.action, "reading client request headers"
    for header in r.head.headers:
        if valid.fullmatch(header[0]):
            out.append(header)
        else:
            text = b": ".join(header).decode("latin-1")
            r.log(Level.INFO, f'client sent invalid header line: "{text}"')
    r.action = action
    return out


def host_name(host: bytes) -> bytes:
    """A Host value -> the lower-case name without port and final dot; raises BadRequest (400)."""
    known = _hosts.get(host)
    if known is not None:
        return known
    match = _HOST.fullmatch(host)
    if match is None or b".." in match[1] or match[1] == b"." or (match[2] and int(match[2][:6]) > 65535):
        raise BadRequest(400, "client sent invalid host header")
    name = match[1].lower().removesuffix(b".")
    if len(_hosts) >= 1024:
        _hosts.clear()
    _hosts[host] = name
    return name


def refuse(head: RequestHead) -> BadRequest:
    """The answer to a method that is not served: 405, or 400 for a CONNECT without `host:port`."""
    if head.method == b"CONNECT" and not is_authority(head.target):
        return BadRequest(400, "client sent invalid CONNECT request")
    return BadRequest(405, f"client sent {head.method.decode()} method")


def distrusted(r: "Request", disable: frozenset[str]) -> bool:
    """keepalive_disable: whether a browser of these kinds cannot be trusted with a kept connection."""
    if r.method != b"POST" and "safari" not in disable:
        return False
    agent = r.header(b"user-agent")
    if agent is None:
        return False
    if "safari" in disable and b"Safari/" in agent and b"Mac OS X" in agent and b"Chrome/" not in agent:
        return True
    if "msie6" not in disable or r.method != b"POST":
        return False
    return _OLD_MSIE.search(agent) is not None and b"SV1" not in agent


def sendable(field: Header) -> bool:
    """Whether a field can be sent: a line break in it would start another one."""
    return all(rule.fullmatch(part) is not None for rule, part in zip(_SENDABLE, field, strict=True))
