"""Response heads of HTTP upstream servers (sans-IO, over httptools), checked before they are believed.

`read_head(data)` returns (head, bytes taken), None for "need more", or raises `HeadError`. What makes framing
doubtful (RFC 9112 section 6.3) is refused: repeated or malformed Content-Length, Content-Length with
Transfer-Encoding, an unknown transfer coding, folded lines, control bytes.
"""

import re
from collections.abc import Callable

from headgate.worker.http.reader import HTTP_10, HTTP_11, Header
from headgate.worker.upstream.header import ResponseHead
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r?\n")
_LENGTH = re.compile(rb"\d{1,18}")


class HeadError(Exception):
    """The head is invalid; the text is for the error log."""


class _Collector:
    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        self.complete = True


_collector = _Collector()


def _new_parser() -> HttpResponseParser:
    parser = HttpResponseParser(_collector)
    parser.set_dangerous_leniencies(
        lenient_keep_alive=True,
        lenient_data_after_close=True,
        lenient_transfer_encoding=True,
        lenient_chunked_length=True,
        lenient_optional_cr_before_lf=True,
    )
    return parser


_parser = _new_parser()


def read_head(data: bytes, no_body: bool = False) -> tuple[ResponseHead, int] | None:
    """The head at the start of `data`; `no_body`: the request was a HEAD."""
    global _parser
    end = data.find(b"\r\n\r\n")
    if end < 0:
        found = re.search(rb"\n\r?\n", data)
        if found is None:
            return None
        end = found.end()
    else:
        end += 4
    line = _STATUS_LINE.match(data)
    if line is None:
        raise HeadError("upstream sent invalid status line")
    collector = _collector
    collector.headers = fields = []
    collector.complete = False
    try:
        _parser.feed_data(data[:end] if end < len(data) else data)
    except HttpParserUpgrade:
        _parser = _new_parser()
    except HttpParserError as error:
        _parser = _new_parser()
        raise HeadError(f"upstream sent invalid header: {error}") from None
    else:
        if not collector.complete:
            _parser = _new_parser()  # it waits for a body, which is framed here
    head = ResponseHead(int(line[2]), line[0][9:].rstrip(b"\r\n"), HTTP_11 if line[1] == b"1" else HTTP_10, fields)
    for field in fields:
        check = _known.get(field[0], _learn)
        if check is not None:
            check(head, field[0], field[1])
    if head.chunked and head.length is not None:
        raise HeadError('upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time')
    return head, end


def _content_length(head: ResponseHead, name: bytes, value: bytes) -> None:
    if head.length is not None:
        raise HeadError(f'upstream sent duplicate header line: "Content-Length: {value.decode("latin-1")}"')
    if not _LENGTH.fullmatch(value):
        raise HeadError(f'upstream sent invalid "Content-Length" header: "{value.decode("latin-1")}"')
    head.length = int(value)


def _transfer_encoding(head: ResponseHead, name: bytes, value: bytes) -> None:
    if head.chunked:
        raise HeadError(f'upstream sent duplicate header line: "Transfer-Encoding: {value.decode("latin-1")}"')
    if value.lower() != b"chunked":
        raise HeadError(f'upstream sent unknown "Transfer-Encoding": "{value.decode("latin-1")}"')
    head.chunked = True


def _connection(head: ResponseHead, name: bytes, value: bytes) -> None:
    if b"close" in value.lower():
        head.close = True


Check = Callable[[ResponseHead, bytes, bytes], None]
_CHECKS: dict[bytes, Check] = {
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
}
_known: dict[bytes, Check | None] = {}  # by the server's spelling


def _learn(head: ResponseHead, name: bytes, value: bytes) -> None:
    check = _CHECKS.get(name.lower())
    if len(_known) < 1024 and len(name) < 64:
        _known[name] = check
    if check is not None:
        check(head, name, value)
