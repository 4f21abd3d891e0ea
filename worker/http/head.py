"""[2] One request head: its parts, and what its fields say of framing and persistence (sans-IO, over httptools).

A head that is not usual (`wire`) is checked and split by httptools; what it means is decided here (RFC 9112 sections 2,
6, 7). `BadRequest` refuses it. Heads are parsed whole, so one httptools parser serves all connections of the worker.
"""

import re
from collections.abc import Callable
from typing import Final

from headgate.worker.http.llhttp import Collector, Header, lenient
from headgate.worker.http.wire import decimal, without
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

HTTP_09: Final = 9
HTTP_10: Final = 10
HTTP_11: Final = 11

_REQUEST_LINE: Final = re.compile(rb"([A-Z_-]+) +([^\x00-\x20\x7f]+) +HTTP/([1-9]\d?)\.(\d{1,3}) *\r?\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r?\n")
_PLAIN_NAME: Final = re.compile(rb"[A-Za-z0-9-]+")


class BadRequest(Exception):
    """A request that cannot be read: the status to answer with, and the reason for the error log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class RequestHead:
    """A request's line and fields as they came; `headers` keeps order and spelling."""

    __slots__ = (
        "chunked",
        "close",
        "coding",
        "content_length",
        "expect",
        "headers",
        "host",
        "keep_alive",
        "method",
        "odd",
        "once",
        "raw",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self, raw: bytes, method: bytes, target: bytes, version: int, headers: list[Header]) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.chunked = False
        self.coding = b""
        self.close = False
        self.keep_alive = False
        self.expect = False
        self.upgrade: bytes | None = None
        self.once: tuple[bytes, ...] = ()  # fields seen that may stand only once
        self.odd = False  # a field name has other characters than letters, digits and "-"

    @property
    def line(self) -> bytes:
        """The request line without its line end, as $request gives it."""
        return self.raw.lstrip(b"\r\n").split(b"\n", 1)[0].rstrip(b"\r")


_collector: Final = Collector()


def _new_parser() -> HttpRequestParser:
    return lenient(HttpRequestParser(_collector))


_parser = _new_parser()


def parse_head(raw: bytes) -> RequestHead:
    """Parse one whole head, up to and with the empty line; raises BadRequest."""
    global _parser
    collector = _collector
    headers: list[Header] = []
    collector.headers = headers
    collector.complete = False
    method = raw[: raw.find(b" ")]
    try:
        _parser.feed_data(raw)
        end = raw.find(b"\n", len(method) + len(collector.target))
        if raw[end - 9 : end] == b"HTTP/1.1\r":
            head = RequestHead(raw, method, collector.target, HTTP_11, headers)
        else:
            head = _odd_line(raw, headers)
    except HttpParserUpgrade:
        _parser = _new_parser()
        head = _odd_line(raw, headers)
    except HttpParserError:
        _parser = _new_parser()
        head = _retry(raw)
    else:
        if not collector.complete:
            _parser = _new_parser()
    return understand(head)


def understand(head: RequestHead) -> RequestHead:
    """Note what the fields say of framing and persistence; raises BadRequest."""
    for name, value in without(head.headers, _plain):
        if name == b"Host":  # it comes with every head
            _on_host(head, name, value)
            continue
        learn = _FRAMING.get(name.lower())
        if learn is not None:
            learn(head, name, value)
        elif not _PLAIN_NAME.fullmatch(name):
            head.odd = True
        elif len(_plain) < 1024 and len(name) < 64:
            _plain.add(name)
    if head.chunked:
        _check_coding(head)
    return head


def _odd_line(raw: bytes, headers: list[Header]) -> RequestHead:
    """A head whose line is not the usual `METHOD target HTTP/1.1`."""
    text = raw.lstrip(b"\r\n")
    match = _REQUEST_LINE.match(text)
    if match is None:
        raise BadRequest(400, "client sent invalid request")
    major, minor = int(match[3]), int(match[4])
    if major != 1:
        if major > 1:
            raise BadRequest(505, "client sent invalid version in request line")
        raise BadRequest(400, "client sent invalid version in request line")
    return RequestHead(text, match[1], match[2], HTTP_11 if minor >= 1 else HTTP_10, headers)


def _retry(raw: bytes) -> RequestHead:
    """A head that httptools refused. Its request line is judged by nginx's rules (any method, bytes
    above 0x7f in the target, a bare LF); the fields must satisfy httptools all the same."""
    global _parser
    text = raw.lstrip(b"\r\n")
    match = _REQUEST_LINE.match(text)
    if match is None:
        if re.match(rb"[A-Z_-]+ ", text) is None:
            raise BadRequest(400, "client sent invalid method")
        if re.match(rb"[A-Z_-]+ +[^\x00-\x20\x7f]+ +HTTP/[2-9]", text):
            raise BadRequest(505, "client sent invalid version")
        raise BadRequest(400, "client sent invalid request")
    headers: list[Header] = []
    _collector.headers = headers
    try:
        _parser.feed_data(b"GET / HTTP/1.1\r\n" + text[match.end() :])
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise BadRequest(400, f"client sent invalid header line: {error}") from None
    finally:
        _parser = _new_parser()
    return _odd_line(text, headers)


def broken_head(data: bytes) -> RequestHead:
    """What is known of a head that could not be read: its line and the fields up to the broken one.

    Without method and target when not even the line makes sense.
    """
    lines = data.lstrip(b"\r\n").splitlines(keepends=True) or [b""]
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None or match[3] != b"1":
        return RequestHead(lines[0], b"", b"", HTTP_10, [])
    head = RequestHead(lines[0], match[1], match[2], HTTP_10 if match[4] == b"0" else HTTP_11, [])
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None and line not in (b"\r\n", b"\n"):
            break
        head.raw += line
        if field is not None:
            head.headers.append((field[1], field[2]))
            if head.host is None and field[1].lower() == b"host":
                head.host = field[2]
    return head


# -- fields that decide framing and persistence --------------------------------------------------


def _on_host(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.host is not None:
        raise BadRequest(400, f'client sent duplicate host header: "Host: {_text(value)}"')
    head.host = value


def _on_content_length(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.content_length is not None:
        raise BadRequest(400, f'client sent duplicate header line: "Content-Length: {_text(value)}"')
    length = decimal(value)
    if length < 0:
        raise BadRequest(400, 'client sent invalid "Content-Length" header')
    head.content_length = length


def _on_transfer_encoding(head: RequestHead, name: bytes, value: bytes) -> None:
    _on_unique(head, name, value)
    if not value:
        raise BadRequest(400, "client sent invalid header line: Empty Transfer-Encoding")
    head.chunked = True
    head.coding = value.lower()


def _on_connection(head: RequestHead, name: bytes, value: bytes) -> None:
    low = value.lower()
    if low == b"keep-alive":  # by far the most frequent, and `in` takes long to say no
        head.keep_alive = True
    elif b"close" in low:
        head.close = True
    elif b"keep-alive" in low:
        head.keep_alive = True


def _on_expect(head: RequestHead, name: bytes, value: bytes) -> None:
    _on_unique(head, name, value)
    head.expect = value.lower() == b"100-continue"


def _on_unique(head: RequestHead, name: bytes, value: bytes) -> None:
    """A field that may stand only once: two different values would mean two different requests."""
    low = name.lower()
    if low in head.once:
        raise BadRequest(400, f'client sent duplicate header line: "{_text(name)}: {_text(value)}"')
    head.once = (*head.once, low)


def _on_upgrade(head: RequestHead, name: bytes, value: bytes) -> None:
    head.upgrade = value


Learn = Callable[[RequestHead, bytes, bytes], None]
_ONCE = (
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-match",
    b"if-none-match",
    b"content-range",
    b"if-range",
    b"authorization",
)
_FRAMING: Final[dict[bytes, Learn]] = {
    b"host": _on_host,
    b"content-length": _on_content_length,
    b"transfer-encoding": _on_transfer_encoding,
    b"connection": _on_connection,
    b"expect": _on_expect,
    b"upgrade": _on_upgrade,
    **dict.fromkeys(_ONCE, _on_unique),
}
_plain: Final[set[bytes]] = set()  # names that mean nothing here, by the client's spelling


def _check_coding(head: RequestHead) -> None:
    if head.coding != b"chunked":
        raise BadRequest(501, f'client sent unknown "Transfer-Encoding": "{_text(head.coding)}"')
    if head.version < HTTP_11:
        raise BadRequest(400, 'client sent HTTP/1.0 request with "Transfer-Encoding" header')
    if head.content_length is not None:
        raise BadRequest(400, 'client sent "Content-Length" and "Transfer-Encoding" headers at the same time')


def _text(value: bytes) -> str:
    return value.decode("latin-1")
