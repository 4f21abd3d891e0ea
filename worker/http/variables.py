"""The core variables of a request: $host, $uri, $arg_x, $sent_http_x, ...

Each is a function of the request that gives bytes, or None where nginx has "not found" (an empty text in
a template, "-" in a log). `VARIABLES` and `PREFIXES` are what conf/modules.py collects. What cannot change
within a request is computed whenever it is asked; `cached` marks what must stay the same.
"""

import base64
import binascii
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.template import Getter, Variable
from headgate.worker.http.head import HTTP_09
from headgate.worker.http.output import http_date

if TYPE_CHECKING:
    from headgate.worker.http.llhttp import Header
    from headgate.worker.http.request import Request

NGINX_VERSION = b"1.31.5"  # the language level

# struct tcp_info: offsets of u32 fields
_TCP_INFO = {"rtt": 68, "rttvar": 72, "snd_cwnd": 80, "rcv_space": 96}
_TCP_INFO_SIZE = 104

_PORT = re.compile(rb"[^\[\]]*(?:\[[^\[\]]*\])?:(\d{1,5})")
_HOSTNAME = os.uname().nodename.lower().encode()


# -- fields and arguments by name ----------------------------------------------------------------


def named(fields: "list[Header]", name: bytes, separator: bytes = b", ") -> bytes | None:
    """The values of all fields of a name written with underscores, joined."""
    size = len(name)
    values = [value for key, value in fields if len(key) == size and key.lower().replace(b"-", b"_") == name]
    if not values:
        return None
    return values[0] if len(values) == 1 else separator.join(values)


def _http(name: str) -> Getter:
    field = name.encode()
    separator = b"; " if name == "cookie" else b", "
    return lambda r: named(r.headers, field, separator)


def _sent_http(name: str) -> Getter:
    own = _SENT.get(name)
    if own is not None:
        return own
    field = name.encode()
    return lambda r: named(r.fields, field)


def _sent_trailer(name: str) -> Getter:
    field = name.encode()
    return lambda r: named(r.trailers, field) if r.trailers else None


def argument(args: bytes, name: bytes) -> bytes | None:
    """The value of the first `name=` in a query string, any case of the name (ngx_http_arg)."""
    size = len(name)
    for pair in args.split(b"&"):
        if pair[size : size + 1] == b"=" and pair[:size].lower() == name:
            return pair[size + 1 :]
    return None


def _arg(name: str) -> Getter:
    key = name.encode()
    return lambda r: argument(r.args, key) if key and r.args else None


def cookie(headers: "list[Header]", name: bytes) -> bytes | None:
    """The value of a cookie of the request, any case of its name (ngx_http_parse_multi_header_lines)."""
    size = len(name)
    for key, value in headers:
        if len(key) == 6 and key.lower() == b"cookie":
            for pair in value.split(b";"):
                text = pair.lstrip(b" ")
                if text[:size].lower() == name and text[size:].lstrip(b" ")[:1] == b"=":
                    return text[size:].lstrip(b" ")[1:].lstrip(b" ")
    return None


def _cookie(name: str) -> Getter:
    key = name.encode()
    return lambda r: cookie(r.headers, key)


# -- the request ---------------------------------------------------------------------------------


def _host(r: "Request") -> bytes:
    return r.host or _server_name(r)


def _server_name(r: "Request") -> bytes:
    names = r.server.names
    return names[0].encode("utf-8", "surrogateescape") if names else b""


def _uri(r: "Request") -> bytes | None:
    """Empty where a request line was read but its URI is broken; not found where there is no request line."""
    return r.uri if r.head.method else None


def _request_port(r: "Request") -> bytes:
    """The port that the client named, in the target or the Host field."""
    target = r.head.target
    authority = target.split(b"/", 3)[2] if b"://" in target[:16] else r.head.host or b""
    match = _PORT.fullmatch(authority)
    return match[1] if match and 0 < int(match[1]) < 65536 else b""


def _content_length(r: "Request") -> bytes | None:
    length = r.head.content_length
    if length is None:
        body = r.body
        if body is None or not body.whole:
            return None
        length = body.size
    return b"%d" % length


def _protocol(r: "Request") -> bytes | None:
    """As the client wrote it (HTTP/1.2); not found where it wrote none, or no valid request line."""
    return r.line.rstrip(b" ").rpartition(b" ")[2] if r.head.method and r.version > HTTP_09 else None


def _set_args(r: "Request", value: bytes) -> None:
    r.args = value
    r.valid_uri = False


def credentials(r: "Request") -> tuple[bytes, bytes] | None:
    """User and password of Basic credentials (RFC 7617), checked or not."""
    value = r.header(b"proxy-authorization" if r.method == b"CONNECT" else b"authorization")
    if value is None or value[:6].lower() != b"basic ":
        return None
    text = value[6:].strip(b" ").rstrip(b"=")
    try:
        user, colon, password = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True).partition(b":")
    except binascii.Error:
        return None
    return (user, password) if user and colon else None


def _remote_user(r: "Request") -> bytes | None:
    found = credentials(r)
    return found[0] if found is not None else None


def _request_body(r: "Request") -> bytes | None:
    body = r.main.body
    return body.text() if body is not None else None


def _request_body_file(r: "Request") -> bytes | None:
    body = r.main.body
    name = body.file_name() if body is not None else None
    return os.fsencode(name) if name is not None else None


def _request_length(r: "Request") -> bytes:
    body = r.body
    head = len(r.head.raw) if r.head.method else 0  # a line that makes no sense does not count
    return b"%d" % (head + (body.received if body is not None else 0))


def _document_root(r: "Request") -> bytes | None:
    from headgate.worker.http import static

    return static.document_root(r)


def _realpath_root(r: "Request") -> bytes | None:
    from headgate.masterd.logfile import Level, failed
    from headgate.worker.http import static

    root = static.document_root(r)
    try:
        return os.path.realpath(root, strict=True)
    except OSError as error:
        r.log(Level.CRIT, failed(f'realpath() "{os.fsdecode(root)}"', error))
        return None


def _request_filename(r: "Request") -> bytes | None:
    from headgate.worker.http import static

    return static.map_path(r)


# -- the connection ------------------------------------------------------------------------------


def _binary_remote_addr(r: "Request") -> bytes:
    address = r.conn.remote_addr
    if r.conn.is_unix:
        return address
    text = address.decode().partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def _port(number: int) -> bytes:
    return b"%d" % number if number else b""


def _tcp_info(name: str) -> Getter:
    offset = _TCP_INFO[name]

    def get(r: "Request") -> bytes | None:
        sock = r.conn.transport.get_extra_info("socket")
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except (AttributeError, OSError):  # a Unix socket, or closed
            return None
        return b"%d" % struct.unpack_from("=I", info, offset)[0]

    return get


# -- the response --------------------------------------------------------------------------------


def _status(r: "Request") -> bytes:
    return b"%03d" % (r.err_status or r.status or (9 if r.version == 9 else 0))


def _body_bytes_sent(r: "Request") -> bytes:
    sent = r.bytes_sent - r.head_size
    return b"%d" % sent if sent > 0 else b"0"


def _completion(r: "Request") -> bytes:
    return b"OK" if r.main.done and not r.conn.lost else b""


def _sent_length(r: "Request") -> bytes | None:
    return b"%d" % r.content_length if r.content_length is not None else None


def _sent_last_modified(r: "Request") -> bytes | None:
    return http_date(r.last_modified) if r.last_modified is not None else named(r.fields, b"last_modified")


def _sent_connection(r: "Request") -> bytes:
    """As it was sent; nginx's log has "close" for most connections that are kept, for it has let go of them by then."""
    if r.status == 101:
        return b"upgrade"
    return b"keep-alive" if r.keepalive else b"close"


def _sent_keep_alive(r: "Request") -> bytes | None:
    seconds = r.location.core.keepalive_timeout[1]
    return b"timeout=%d" % seconds if r.keepalive and seconds else None


_SENT: dict[str, Getter] = {
    "content_type": lambda r: r.content_type or None,
    "content_length": _sent_length,
    "location": lambda r: named(r.fields, b"location") if r.location_field is None else r.location_field,
    "last_modified": _sent_last_modified,
    "etag": lambda r: named(r.fields, b"etag") if r.etag is None else r.etag,
    "connection": _sent_connection,
    "keep_alive": _sent_keep_alive,
    "transfer_encoding": lambda r: b"chunked" if r.chunked else None,
}


# -- time and process ----------------------------------------------------------------------------

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class _Clock:
    """The time as texts, made once a second."""

    __slots__ = ("_second", "iso8601", "local")

    def __init__(self) -> None:
        self._second = -1
        self.local = b""
        self.iso8601 = b""

    def now(self) -> "_Clock":
        second = int(time.time())
        if second != self._second:
            self._second = second
            t = time.localtime(second)
            minutes = abs(t.tm_gmtoff) // 60
            zone = f"{'-' if t.tm_gmtoff < 0 else '+'}{minutes // 60:02d}"
            clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
            date = f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}"
            self.local = f"{date}:{clock} {zone}{minutes % 60:02d}".encode()
            self.iso8601 = f"{t.tm_year}-{t.tm_mon:02d}-{t.tm_mday:02d}T{clock}{zone}:{minutes % 60:02d}".encode()
        return self


_clock = _Clock()


def _since(r: "Request", start: float) -> bytes:
    """Seconds on the loop's clock since `start`, to the millisecond."""
    milliseconds = round((r.conn.worker.loop.time() - start) * 1000)
    return b"%d.%03d" % divmod(milliseconds, 1000) if milliseconds > 0 else b"0.000"


def _msec(r: "Request") -> bytes:
    return b"%d.%03d" % divmod(time.time_ns() // 1_000_000, 1000)


_GETTERS: dict[str, Getter] = {
    "content_length": _content_length,
    "content_type": lambda r: r.header_all(b"content-type"),
    "host": _host,
    "binary_remote_addr": _binary_remote_addr,
    "remote_addr": lambda r: r.conn.remote_addr,
    "remote_port": lambda r: _port(r.conn.remote_port),
    "server_addr": lambda r: r.conn.local_host,
    "server_port": lambda r: _port(r.conn.local_port),
    "server_protocol": _protocol,
    "scheme": lambda r: b"http" if r.conn.tls is None else b"https",
    "https": lambda r: b"" if r.conn.tls is None else b"on",
    "request_port": _request_port,
    "is_request_port": lambda r: b":" if _request_port(r) else b"",
    "request_uri": lambda r: r.target or None,
    "uri": _uri,
    "document_uri": _uri,
    "request": lambda r: r.line or None,
    "document_root": _document_root,
    "realpath_root": _realpath_root,
    "query_string": lambda r: r.args or None,
    "is_args": lambda r: b"?" if r.args else b"",
    "request_filename": _request_filename,
    "server_name": _server_name,
    "request_method": lambda r: r.main.method or None,
    "remote_user": _remote_user,
    "bytes_sent": lambda r: b"%d" % r.bytes_sent,
    "body_bytes_sent": _body_bytes_sent,
    "pipe": lambda r: b"p" if r.pipelined else b".",
    "request_completion": _completion,
    "request_body": _request_body,
    "request_body_file": _request_body_file,
    "request_length": _request_length,
    "request_time": lambda r: _since(r, r.started),
    "status": _status,
    "connection": lambda r: b"%d" % r.conn.number,
    "connection_requests": lambda r: b"%d" % r.conn.requests,
    "connection_time": lambda r: _since(r, r.conn.made),
    "nginx_version": lambda r: NGINX_VERSION,
    "hostname": lambda r: _HOSTNAME,
    "pid": lambda r: b"%d" % os.getpid(),
    "msec": _msec,
    "time_iso8601": lambda r: _clock.now().iso8601,
    "time_local": lambda r: _clock.now().local,
    "http_host": lambda r: r.header(b"host"),  # as it was sent, also where the target names another host
}

# of those that PREFIXES knows, the ones that no directive may take as a name of its own
_REQUEST_FIELDS = "user_agent referer via x_forwarded_for cookie"
_RESPONSE_FIELDS = (
    "content_type content_length location last_modified connection keep_alive transfer_encoding cache_control link"
)

VARIABLES = [
    *(Variable(name, get) for name, get in _GETTERS.items()),
    *(Variable(f"http_{name}", _http(name)) for name in _REQUEST_FIELDS.split()),
    *(Variable(f"sent_http_{name}", _sent_http(name)) for name in _RESPONSE_FIELDS.split()),
    *(Variable(f"tcpinfo_{name}", _tcp_info(name)) for name in _TCP_INFO),
    Variable("args", lambda r: r.args or None, _set_args, changeable=True),
    Variable("request_id", lambda r: os.urandom(16).hex().encode(), cached=True),
]

PREFIXES: dict[str, Callable[[str], Getter]] = {
    "http_": _http,
    "sent_http_": _sent_http,
    "sent_trailer_": _sent_trailer,
    "cookie_": _cookie,
    "arg_": _arg,
}
