"""$proxy_*: where a request goes, and the framing of its body (nginx: ngx_http_proxy_vars)."""

from typing import TYPE_CHECKING

from headgate.conf.template import Variable
from headgate.worker.proxy.protocol import HttpProtocol
from headgate.worker.proxy.target import Target

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


def _protocol(r: "Request") -> HttpProtocol | None:
    u = r.upstream
    if u is None or not isinstance(u.protocol, HttpProtocol):
        return None
    # another location, which an internal redirect has led to, knows nothing of it
    return u.protocol if r.location.get(type(u.protocol.conf)) is u.protocol.conf else None


def _target(r: "Request") -> Target | None:
    protocol = _protocol(r)
    return protocol.target if protocol is not None else r.kept(Target)


def _host(r: "Request") -> bytes | None:
    target = _target(r)
    return target.host_header if target is not None else None


def _port(r: "Request") -> bytes | None:
    target = _target(r)
    return target.port if target is not None else None


def _add_x_forwarded_for(r: "Request") -> bytes:
    forwarded = r.header_all(b"x-forwarded-for")
    return forwarded + b", " + r.conn.remote_addr if forwarded is not None else r.conn.remote_addr


def _add_via(r: "Request") -> bytes:
    """The client's Via and this hop (RFC 9110 section 7.6.3); nginx has the name, and nothing behind it."""
    via = r.header_all(b"via")
    hop = b"%d.%d headgate" % divmod(r.version, 10)
    return via + b", " + hop if via is not None else hop


def _body_length(r: "Request") -> bytes | None:
    protocol = _protocol(r)
    return b"%d" % protocol.body_length if protocol is not None and protocol.body_length is not None else None


def _chunked(r: "Request") -> bytes | None:
    u = r.upstream
    return b"chunked" if u is not None and u.chunked_body else None


VARIABLES = [
    Variable("proxy_host", _host),
    Variable("proxy_port", _port),
    Variable("proxy_add_x_forwarded_for", _add_x_forwarded_for),
    Variable("proxy_add_via", _add_via),
    Variable("proxy_internal_body_length", _body_length),
    Variable("proxy_internal_chunked", _chunked),
]
