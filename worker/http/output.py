"""[12] The write filter: a response head, its framing, and the bytes to the client's connection.

The head is kept until the first body bytes are there, so that both leave in one write. Status line,
Server and Date are made once a second for each status.
"""

import re
from functools import lru_cache
from time import gmtime, time
from typing import TYPE_CHECKING, Final

from headgate.masterd.cli import VERSION
from headgate.worker.http.chunked import LAST_CHUNK, last_chunk
from headgate.worker.http.head import HTTP_11
from headgate.worker.http.wire import join_head

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

REASONS: Final = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 302: "Moved Temporarily", 303: "See Other", 304: "Not Modified",
    307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Time-out",
    409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Request Entity Too Large",
    414: "Request-URI Too Large", 415: "Unsupported Media Type", 416: "Requested Range Not Satisfiable",
    421: "Misdirected Request", 429: "Too Many Requests",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Temporarily Unavailable", 504: "Gateway Time-out", 505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}  # fmt: skip

NAME: Final = b"headgate"
SERVER: Final = {"on": NAME + b"/" + VERSION.encode(), "off": NAME, "build": NAME + b"/" + VERSION.encode()}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_COALESCE: Final = 16384  # bytes: up to here head and body are joined into one buffer


@lru_cache(1024)
def http_date(seconds: int) -> bytes:
    """An IMF-fixdate (RFC 9110 section 5.6.7)."""
    t = gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    ).encode()


class _Starts:
    """The first lines of heads, valid for one second: status line, Server and Date."""

    __slots__ = ("date", "lines", "second")

    def __init__(self) -> None:
        self.second = 0
        self.date = b""
        self.lines: dict[tuple[int, str], bytes] = {}

    def renew(self, second: int) -> None:
        self.second = second
        self.date = http_date(second)
        self.lines.clear()


_starts: Final = _Starts()
_CHARSET: Final = re.compile(rb" *; *charset=[^;]*", re.IGNORECASE)


def status_text(status: int) -> bytes:
    """`404 Not Found`; a status without a known phrase stands alone, with the space the grammar wants."""
    return f"{status} {REASONS.get(status, '')}".encode()


def _start(r: "Request") -> bytes:
    second = int(time())
    if second != _starts.second:
        _starts.renew(second)
    tokens = r.location.server_tokens
    key = (r.status, tokens)
    if r.status_line is None and not _own_server_or_date(r):
        start = _starts.lines.get(key)
        if start is None:
            start = b"HTTP/1.1 %b\r\nServer: %b\r\nDate: %b" % (status_text(r.status), SERVER[tokens], _starts.date)
            _starts.lines[key] = start
        return start
    names = {name.lower() for name, _ in r.fields}
    r.fields = [field for field in r.fields if field[1] or field[0].lower() not in (b"server", b"date")]
    start = b"HTTP/1.1 " + (r.status_line or status_text(r.status))
    if b"server" not in names:
        start += b"\r\nServer: " + SERVER[tokens]
    if b"date" not in names:
        start += b"\r\nDate: " + _starts.date
    return start


def _own_server_or_date(r: "Request") -> bool:
    """Whether an upstream server's Server or Date is passed on (proxy_pass_header)."""
    for name, _ in r.fields:
        size = len(name)
        if (size == 6 or size == 4) and name.lower() in (b"server", b"date"):
            return True
    return False


def make_head(r: "Request") -> None:
    """Decide the framing and put the head together; nothing is written yet."""
    status = r.status
    if r.method == b"HEAD" or status == 204 or status == 304 or status < 200:
        r.header_only = True
        if status == 204:
            r.content_length = None  # RFC 9110 section 8.6; nginx passes on an upstream server's
            if r.status_line is None:  # ours
                r.content_type = None
    if r.version < 10:  # HTTP/0.9 has no head
        r.keepalive = False
        r.out = b""
        return
    start = _start(r)
    lines: list[bytes] = []
    if r.content_type:
        if r.charset is not None and status not in (301, 302):
            r.content_type = _CHARSET.sub(b"", r.content_type) + b"; charset=" + r.charset
        lines.append(b"Content-Type: " + r.content_type)
    length = r.content_length
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    if r.last_modified is not None:
        if status == 200 or status == 206 or status == 304:
            lines.append(b"Last-Modified: " + http_date(r.last_modified))
        else:  # not that of an error page
            r.last_modified = None
    if r.location_field is not None:
        lines.append(b"Location: " + r.location_field)
    if length is None and not r.header_only:
        if r.version >= HTTP_11 and r.location.core.chunked_transfer_encoding:
            r.chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        else:
            r.keepalive = False
    conn = r.conn
    if status == 101:
        lines.append(b"Connection: upgrade")
    elif r.keepalive and conn.may_keep(r):
        lines.append(b"Connection: keep-alive")
        header = r.location.keepalive_header
        if header:
            lines.append(b"Keep-Alive: timeout=%d" % header)
    else:
        r.keepalive = False
        lines.append(b"Connection: close")
    if r.etag is not None:
        lines.append(b"ETag: " + r.etag)
    r.out = head = join_head(start, lines, r.fields)
    r.head_size = len(head)


def write(r: "Request", data: bytes, last: bool) -> None:
    """Frame `data` and write it, with the head before it; `last` ends the body."""
    if r.header_only:
        data = b""
    elif r.chunked:
        if data:
            data = b"%x\r\n%b\r\n%b" % (len(data), data, _end(r) if last else b"")
        elif last:
            data = _end(r)
    send = r.conn.write if r.limiter is None else r.limiter.write
    head = r.out
    if head is not None:
        if not last and (not data or len(head) + len(data) < r.postpone):
            r.out = head + data
            return
        r.out = None
        if len(data) <= _COALESCE:
            data = head + data
        else:
            send(head)
    if data:
        send(data)


def _end(r: "Request") -> bytes:
    return LAST_CHUNK if r.trailers is None else last_chunk(r.trailers)


def flush(r: "Request") -> None:
    """Write a head that still waits for body bytes."""
    head = r.out
    if head is not None:
        r.out = None
        if head:
            (r.conn if r.limiter is None else r.limiter).write(head)
