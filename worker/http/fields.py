"""Request fields by nginx's rules: which names are kept, and what a Host may look like."""

import re
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http.reader import BadRequest, Header

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_VALID = re.compile(rb"[A-Za-z0-9-]+")
_VALID_UNDERSCORES = re.compile(rb"[A-Za-z0-9_-]+")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/:\[\]]+)(?::(\d*))?")

_hosts: dict[bytes, bytes] = {}


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
    if match is None or b".." in match[1] or match[1] == b".":
        raise BadRequest(400, "client sent invalid host header")
    name = match[1].lower().removesuffix(b".")
    if len(_hosts) >= 1024:
        _hosts.clear()
    _hosts[host] = name
    return name
