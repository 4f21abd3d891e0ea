"""httptools' parsers as both sides use them: a whole head at a time; framing and persistence are judged elsewhere."""

from typing import Final, TypeVar

from httptools import HttpRequestParser, HttpResponseParser

Header = tuple[bytes, bytes]
P = TypeVar("P", HttpRequestParser, HttpResponseParser)

_LENIENT: Final = {
    "lenient_keep_alive": True,
    "lenient_data_after_close": True,
    "lenient_transfer_encoding": True,
    "lenient_chunked_length": True,
    "lenient_optional_cr_before_lf": True,
}


class Collector:
    """What httptools calls back; it is told each head's fields once."""

    __slots__ = ("complete", "headers", "target")

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.target = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        self.complete = True


def lenient(parser: P) -> P:
    """The parser, indifferent to what is judged elsewhere."""
    parser.set_dangerous_leniencies(**_LENIENT)
    return parser
