"""Configuration text -> tokens, by nginx's rules (ngx_conf_read_token).

A token is a word, or one of the terminators `;` `{` `}`. Words end at white space, `;` or `{`
(but `${` belongs to the word); a backslash keeps the next character from ending a word; quotes
count only at a word's start. Bytes that are not UTF-8 travel as surrogate escapes.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from headgate.conf.errors import COMMAND_LINE, ConfError

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)+")
_WORD = re.compile(r"(?:\\.|\$\{+|[^\s;{\\])+", re.DOTALL | re.ASCII)
_QUOTED = {
    '"': re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL),
    "'": re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL),
}
_ESCAPE = re.compile(r"""\\(["'\\trn])""")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n"}


class Token(NamedTuple):
    """One token: its text, the line (from 1) it ends on, and whether it was quoted."""

    text: str
    line: int
    quoted: bool = False


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), text)


def unfinished(file: str) -> str:
    """What is wrong when the text ends inside a directive."""
    if file == COMMAND_LINE:
        return 'unexpected end of parameter, expecting ";"'
    return 'unexpected end of file, expecting ";" or "}"'


def tokens(text: str, file: str) -> Iterator[Token]:
    """Yield the tokens of `text`; ConfError names `file` and the line when a word is broken."""
    at, line, size = 0, 1, len(text)
    after_quote = False
    while True:
        blank = _BLANK.match(text, at)
        if blank:
            # a comment needs white space before it: after a closing quote "#" is a stray character
            if after_quote and blank[0][0] == "#":
                raise ConfError('unexpected "#"', file, line)
            line += blank[0].count("\n")
            at = blank.end()
            after_quote = False
        if at >= size:
            return
        char = text[at]
        if char in ";{" or (char == "}" and not after_quote):
            yield Token(char, line)
            at += 1
            after_quote = False
            continue
        if after_quote and char != ")":  # nginx allows `if ($a = "b")`
            raise ConfError(f'unexpected "{char}"', file, line)
        quote = _QUOTED.get(char)
        match = quote.match(text, at) if quote else _WORD.match(text, at)
        if match is None or match.end() == at:
            line += text.count("\n", at)
            raise ConfError(unfinished(file), file, line)
        line += match[0].count("\n")
        at = match.end()
        after_quote = quote is not None
        yield Token(_unescape(match[1] if quote else match[0]), line, after_quote)
