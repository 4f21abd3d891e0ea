"""Response heads of HTTP upstream servers (sans-IO), checked before they are believed.

A head as nearly all are is split by `headgate.worker.http.wire`, every other one by httptools.

`read_head(data)` returns (head, bytes taken), None for "need more", or raises `HeadError`. What makes framing
doubtful (RFC 9112 section 6.3) is refused: repeated or malformed Content-Length, Content-Length with
Transfer-Encoding, an unknown transfer coding, folded lines, control bytes, names that are no tokens. What does not
even begin as a status line is refused too, where nginx would pass it on as HTTP/0.9.
"""

import re
from typing import Final

from headgate.worker.http.head import HTTP_10, HTTP_11
from headgate.worker.http.llhttp import Collector, Header, lenient
from headgate.worker.http.wire import split_response
from headgate.worker.upstream.header import HeadError, ResponseHead, understand
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r?\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r?\n")
_VALID_PART: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::[^\x00-\x08\x0a-\x1f\x7f]*)?)?")
_START: Final = b"HTTP/1."


_collector: Final = Collector()


def _new_parser() -> HttpResponseParser:
    return lenient(HttpResponseParser(_collector))


_parser = _new_parser()


def read_head(data: bytes) -> tuple[ResponseHead, int] | None:
    """The head at the start of `data`."""
    usual = split_response(data)
    if usual is None:
        return parse_response(data)
    taken, status, reason, version, fields = usual
    return _understood(ResponseHead(status, reason, version, fields)), taken


def _understood(head: ResponseHead) -> ResponseHead:
    if head.status >= 200 or head.status == 101:  # other interim heads frame nothing
        understand(head)
    return head


def parse_response(data: bytes) -> tuple[ResponseHead, int] | None:
    """As `read_head`, by httptools, whatever the head looks like."""
    global _parser
    # the first empty line ends the head, whichever line ends are used before it
    end = data.find(b"\n\r\n") + 3
    bare = data.find(b"\n\n", 0, end if end > 2 else len(data)) + 2
    if bare > 1:
        end = bare
    elif end < 3:
        _check_start(data)
        return None
    line = _STATUS_LINE.match(data)
    if line is None:
        raise _bad_status_line(data)
    collector = _collector
    fields: list[Header] = []
    collector.headers = fields
    collector.complete = False
    try:
        _parser.feed_data(data[:end] if end < len(data) else data)
    except HttpParserUpgrade:
        _parser = _new_parser()
    except HttpParserError:
        _parser = _new_parser()
        fields = _explain(data[line.end() : end])
    else:
        if not collector.complete:
            _parser = _new_parser()  # it waits for a body, which is framed here
    version = HTTP_10 if line[1] == b"0" else HTTP_11
    head = ResponseHead(int(line[2]), line[0][9:].rstrip(b"\r\n"), version, fields)
    return _understood(head), end


def _check_start(data: bytes) -> None:
    """Say at once when this will never be a status line."""
    if b"\n" in data:
        if _STATUS_LINE.match(data) is None:
            raise _bad_status_line(data)
    elif data[: len(_START)] != _START[: len(data)]:
        raise _bad_status_line(data)


def _bad_status_line(data: bytes) -> HeadError:
    line = data.split(b"\n", 1)[0].rstrip(b"\r")[:64]
    return HeadError(f'upstream sent no valid HTTP/1.0 header: "{_shown(line)}"')


def _explain(lines: bytes) -> list[Header]:
    """The parser has refused these field lines: say which in nginx's words.

    What it does not like but is valid (it stops where a protocol is switched) is returned.
    """
    fields: list[Header] = []
    for line in lines.splitlines(keepends=True):
        if line in (b"\r\n", b"\n"):
            break
        field = _FIELD.fullmatch(line)
        if field is None:
            valid = _VALID_PART.match(line)
            assert valid is not None
            end = valid.end()
            raise HeadError(f'upstream sent invalid header: "{_shown(line[:end])}\\x{line[end]:02x}..."')
        fields.append((field[1], field[2]))
    return fields


def _shown(text: bytes) -> str:
    return text.decode("latin-1").encode("unicode_escape").decode()
