"""Pages with server side includes: bytes in, texts and commands out (sans-IO; nginx: ngx_http_ssi_parse).

    <!--# COMMAND NAME="VALUE" NAME='VALUE' -->

`feed` takes bytes, `next` returns what comes next of them, or None when more is needed. A command that makes no sense
is a `Problem` when that is seen, and a `Broken` where it ends. A page that ends inside a command, or in what may be
the start of one, loses that, as nginx has it.
"""

import re
from dataclasses import dataclass

START = b"<!--#"
_COMMAND_SIZE, _NAME_SIZE = 32, 32  # bytes

_word = re.compile(rb"[^ \r\n\t-]*").match  # a command's name, from its second character
_name = re.compile(rb"[^ \r\n\t=-]*").match  # a parameter's, likewise
_spaces = re.compile(rb"[ \r\n\t]*").match
_value = {quote: re.compile(rb"(?:[^\\%b]|\\.)*" % quote, re.DOTALL).match for quote in (b'"', b"'")}
_skip = re.compile(rb"-(?:[^-]|-(?:[^>]|(>)))", re.DOTALL).finditer


@dataclass(slots=True, frozen=True)
class Command:
    """A whole command; values are as written, with their backslashes."""

    name: bytes
    params: list[tuple[bytes, bytes]]


@dataclass(slots=True, frozen=True)
class Problem:
    """What is wrong with the command that is being read, for the error log."""

    text: str


@dataclass(slots=True, frozen=True)
class Broken:
    """A command with a problem ends here."""


class _More(Exception):
    """The command is not complete yet."""


class _Wrong(Exception):
    """The command makes no sense; it is skipped from `at` on, from the character before when that may end it."""

    def __init__(self, text: str, at: int, dash: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.at = at - 1 if dash else at


Event = bytes | Command | Problem | Broken


class SsiReader:
    """Reads one page. `value_size`: the most bytes that a parameter's value may have."""

    __slots__ = ("_at", "_data", "_skipping", "value_size")

    def __init__(self, value_size: int) -> None:
        self.value_size = value_size
        self._data = b""
        self._at = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Take more of the page."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> Event | None:
        """What comes next; None when more is needed."""
        data, at = self._data, self._at
        if at == len(data):
            return None
        if self._skipping:
            return self._broken()
        start = data.find(START, at)
        if start < 0:
            return self._text(_partial_start(data, at))
        if start > at:
            return self._text(start)
        try:
            command, self._at = self._command(start + len(START))
        except _More:
            return None
        except _Wrong as wrong:
            self._skipping = True
            self._at = wrong.at
            return Problem(wrong.text)
        return command

    def _text(self, end: int) -> bytes | None:
        text = self._data[self._at : end]
        self._at = end
        return text or None

    def _broken(self) -> Broken | None:
        """Skip to where the command ends."""
        at = self._at
        for match in _skip(self._data, at):
            at = match.end()
            if match[1]:
                self._at = at
                self._skipping = False
                return Broken()
        dash = self._data.find(b"-", at)
        self._at = len(self._data) if dash < 0 else dash
        return None

    # -- one command -----------------------------------------------------------------------------

    def _command(self, at: int) -> tuple[Command, int]:
        data = self._data
        at = self._begin(at)
        end = _word(data, at + 1).end()  # type: ignore[union-attr]
        name = data[at : min(end, at + _COMMAND_SIZE)]
        if end - at > _COMMAND_SIZE:
            char = chr(data[at + _COMMAND_SIZE])
            raise _Wrong(f'the "{_show(name)}{char}..." SSI command is too long', at + _COMMAND_SIZE + 1)
        params: list[tuple[bytes, bytes]] = []
        at = end
        while True:
            at = self._begin(at)
            if data[at] == 45:  # "-"
                return Command(name, params), self._end(at + 1, name)
            key, at = self._key(at, name)
            value, at = self._param(at, name, key)
            params.append((key, value))
            following = self._char(at)
            if following not in b" \r\n\t-":
                text = f'unexpected "{_show(following)}" symbol after "{_show(value)}" value'
                raise _Wrong(f"{text} {_of(key, name)}", at + 1)

    def _char(self, at: int) -> bytes:
        char = self._data[at : at + 1]
        if not char:
            raise _More
        return char

    def _begin(self, at: int) -> int:
        """Where the next character that is no space is."""
        at = _spaces(self._data, at).end()  # type: ignore[union-attr]
        if at == len(self._data):
            raise _More
        return at

    def _end(self, at: int, name: bytes) -> int:
        for wanted in (b"-", b">"):
            char = self._char(at)
            at += 1
            if char != wanted:
                raise _Wrong(f'unexpected "{_show(char)}" symbol in "{_show(name)}" SSI command', at)
        return at

    def _key(self, at: int, name: bytes) -> tuple[bytes, int]:
        data = self._data
        end = _name(data, at + 1).end()  # type: ignore[union-attr]
        key = data[at : min(end, at + _NAME_SIZE)]
        if end - at > _NAME_SIZE:
            following = chr(data[at + _NAME_SIZE])
            text = f'too long "{_show(key)}{following}..." parameter in "{_show(name)}" SSI command'
            raise _Wrong(text, at + _NAME_SIZE + 1)
        self._char(end)
        equal = self._begin(end)
        char = data[equal : equal + 1]
        if char != b"=":
            text = f'unexpected "{_show(char)}" symbol after "{_show(key)}" parameter in "{_show(name)}" SSI command'
            raise _Wrong(text, equal + 1, char == b"-")
        return key, equal + 1

    def _param(self, at: int, name: bytes, key: bytes) -> tuple[bytes, int]:
        data = self._data
        at = self._begin(at)
        quote = data[at : at + 1]
        if quote not in (b'"', b"'"):
            text = f'unexpected "{_show(quote)}" symbol before value'
            raise _Wrong(f"{text} {_of(key, name)}", at + 1, quote == b"-")
        at += 1
        end = _value[quote](data, at).end()  # type: ignore[union-attr]
        limit = at + self.value_size
        if end > limit:
            value = data[at:limit]
            text = f'too long "{_show(value)}{chr(data[limit])}..." value'
            raise _Wrong(f"{text} {_of(key, name)}", limit + 1)
        if data[end : end + 1] != quote:
            raise _More
        return data[at:end], end + 1


def _of(key: bytes, name: bytes) -> str:
    return f'of "{_show(key)}" parameter in "{_show(name)}" SSI command'


def _show(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _partial_start(data: bytes, at: int) -> int:
    """Where text ends that is certainly text: before what may be a start whose rest is still to come."""
    for size in range(min(len(START) - 1, len(data) - at), 0, -1):
        if START.startswith(data[len(data) - size :]):
            return len(data) - size
    return len(data)
