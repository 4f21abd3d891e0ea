"""Tokens -> a tree of statements, with `include` expanded in place.

A syntax error does not raise here: it stands in the tree as a statement with `error` set, so that
the builder meets errors in the order of the file, as nginx (which parses and applies in one pass)
reports them.
"""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from headgate.conf.errors import COMMAND_LINE, ConfError
from headgate.conf.lexer import Token, tokens, unfinished

MAX_INCLUDES = 64  # nesting; a file that includes itself would otherwise never end


@dataclass(slots=True)
class Statement:
    """One directive as written: `line` is where its `;` or `{` stands, as nginx reports it."""

    words: list[str]
    file: str
    line: int
    block: "list[Statement] | None" = None
    end_line: int = 0
    error: ConfError | None = None

    @property
    def name(self) -> str:
        return self.words[0]


@dataclass(slots=True)
class Source:
    """A parsed configuration: its statements and the files read, in order, each once (for -T)."""

    statements: list[Statement]
    files: list[tuple[str, str]] = field(default_factory=list)


def parse_text(text: str, file: str = COMMAND_LINE, base: str = "") -> list[Statement]:
    """Parse text that is in no file, such as -g; `file` is how errors name it, includes start at `base`."""
    return _Parser(base, Source([])).parse(text, file)


def parse_file(path: str) -> Source:
    """Parse a file and what it includes; relative includes start at its own directory.

    Errors, an unreadable file among them, stand in the tree.
    """
    source = Source([])
    parser = _Parser(os.path.dirname(path), source)
    source.statements = parser.parse_path(path, None)
    return source


class _Parser:
    def __init__(self, base: str, source: Source) -> None:
        self.base = base
        self.source = source
        self.depth = 0

    def parse_path(self, path: str, included_by: Statement | None) -> list[Statement]:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as f:
                text = f.read()
        except OSError as e:
            reason = f'open() "{path}" failed ({e.errno}: {e.strerror})'
            where = (included_by.file, included_by.line) if included_by else ("", 0)
            return [_broken(ConfError(reason, *where))]
        if all(known != path for known, _ in self.source.files):
            self.source.files.append((path, text))
        return self.parse(text, path)

    def parse(self, text: str, file: str) -> list[Statement]:
        stream = _Stream(tokens(text, file), text.count("\n") + 1)
        out: list[Statement] = []
        self._block(stream, file, out, nested=False)
        return out

    def _block(self, stream: "_Stream", file: str, out: list[Statement], nested: bool) -> tuple[bool, int]:
        """Fill `out` up to the closing brace or the end; returns (go on, line of the brace)."""
        words: list[str] = []
        line = 1
        while True:
            try:
                token = next(stream, None)
            except ConfError as error:
                out.append(_broken(error))
                return False, line
            if token is None:
                if words:
                    out.append(_broken(ConfError(unfinished(file), file, stream.line)))
                    return False, line
                if nested:
                    out.append(_broken(ConfError('unexpected end of file, expecting "}"', file, stream.line)))
                    return False, line
                return True, line
            line = token.line
            if token.quoted or token.text not in (";", "{", "}"):
                words.append(token.text)
                continue
            if token.text == "}" and not words and nested:
                return True, line
            if token.text == "}" or not words:
                out.append(_broken(ConfError(f'unexpected "{token.text}"', file, line)))
                return False, line
            statement = Statement(words, file, line)
            words = []
            if token.text == "{" and file == COMMAND_LINE:
                out.append(_broken(ConfError("block directives are not supported in -g option", file)))
                return False, line
            if token.text == "{":
                statement.block = []
                out.append(statement)
                go_on, statement.end_line = self._block(stream, file, statement.block, nested=True)
                if not go_on:
                    return False, line
            elif statement.name == "include":
                out.extend(self._include(statement))
            else:
                out.append(statement)

    def _include(self, statement: Statement) -> Iterator[Statement]:
        if len(statement.words) != 2:
            error = ConfError('invalid number of arguments in "include" directive', statement.file, statement.line)
            yield _broken(error)
            return
        pattern = os.path.join(self.base, statement.words[1])
        # nginx: a mask that matches nothing is fine, a plain name that does not exist is not
        paths = sorted(glob.glob(pattern)) if any(c in pattern for c in "*?[") else [pattern]
        if self.depth >= MAX_INCLUDES:
            reason = f'"include" nesting deeper than {MAX_INCLUDES} at "{pattern}"'
            yield _broken(ConfError(reason, statement.file, statement.line))
            return
        self.depth += 1
        for path in paths:
            yield from self.parse_path(path, statement)
        self.depth -= 1


class _Stream:
    """An iterator over tokens that remembers the line it has come to."""

    def __init__(self, source: Iterator[Token], last: int) -> None:
        self._source = source
        self._last = last  # line
        self.line = 1

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> Token:
        token = next(self._source, None)
        if token is None:
            self.line = self._last
            raise StopIteration
        self.line = token.line
        return token


def _broken(error: ConfError) -> Statement:
    return Statement(["?"], error.file, error.line, error=error)
