"""The conditions of `if`, and how captures are written into the texts of rules.

A capture of a URI that came with escapes (or "+") is escaped again where it goes into a redirect, into
arguments, or into a value before the URI was rewritten: nginx decodes the URI before it matches.
"""

import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.conf.template import Getter, Template
from headgate.masterd.logfile import Level, failed
from headgate.worker.http.directives import regex
from headgate.worker.http.regex import Regex
from headgate.worker.http.uri import escape_args

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

Test = Callable[["Request"], bool]


# -- texts ---------------------------------------------------------------------------------------


def capture(index: int) -> Getter:
    """$1, $2 ... as it matched."""
    return lambda r: r.capture(index)


def quoted(index: int) -> Getter:
    """$1, $2 ... escaped when the request's URI came with escapes (nginx: quoted_uri, plus_in_uri)."""

    def get(r: "Request") -> bytes | None:
        value: bytes | None = r.capture(index)
        return escape_args(value) if value and _had_escapes(r) else value

    return get


def _in_value(index: int) -> Getter:
    """In values of `set` and `if`: as `quoted` until a rule has given the request another URI."""

    def get(r: "Request") -> bytes | None:
        value: bytes | None = r.capture(index)
        return escape_args(value) if value and not r.uri_changed and _had_escapes(r) else value

    return get


def _had_escapes(r: "Request") -> bool:
    path = r.target.partition(b"?")[0]
    return b"%" in path or b"+" in path


def template(call: Call, text: str, captured: Callable[[int], Getter] = _in_value) -> Template:
    """Compile the text of a rule."""
    variables = call.scope.variables
    assert variables is not None
    return variables.template(text, call.statement.file, call.statement.line, captured)


# -- conditions ----------------------------------------------------------------------------------


class Truth:
    """A variable that is set, neither empty nor "0". `get` is bound when names are looked up."""

    __slots__ = ("get",)
    get: Getter

    def __init__(self, call: Call, name: str) -> None:
        variables = call.scope.variables
        assert variables is not None
        variables.want(name, self._bind)

    def _bind(self, get: Getter) -> None:
        self.get = get

    def __call__(self, r: "Request") -> bool:
        value = self.get(r)
        return bool(value) and value != b"0"


class Equal(Truth):
    """`$a = text`, `$a != text`."""

    __slots__ = ("negative", "text")

    def __init__(self, call: Call, name: str, text: str, negative: bool) -> None:
        super().__init__(call, name)
        self.text = template(call, text)
        self.negative = negative

    def __call__(self, r: "Request") -> bool:
        return ((self.get(r) or b"") == self.text.get(r)) is not self.negative


class Match(Truth):
    """`$a ~ regex`, `~*`, `!~`, `!~*`; a match leaves its captures, none leaves none."""

    __slots__ = ("log", "negative", "regex")

    def __init__(self, call: Call, name: str, compiled: Regex, negative: bool) -> None:
        super().__init__(call, name)
        self.regex = compiled
        self.negative = negative
        self.log = False

    def __call__(self, r: "Request") -> bool:
        return self.regex.test(r, self.get(r) or b"", self.log) is not self.negative


class File:
    """`-f`, `-d`, `-e`, `-x` and their opposites."""

    __slots__ = ("kind", "negative", "path")

    def __init__(self, path: Template, kind: str, negative: bool) -> None:
        self.path = path
        self.kind = kind
        self.negative = negative

    def __call__(self, r: "Request") -> bool:
        path = self.path.get(r)
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return self.negative
        except OSError as error:
            r.log(Level.CRIT, failed(f'stat() "{os.fsdecode(path)}"', error))
            return self.negative
        except ValueError:  # a NUL in the path
            return self.negative
        return self._fits(mode) is not self.negative

    def _fits(self, mode: int) -> bool:
        if self.kind == "f":
            return stat.S_ISREG(mode)
        if self.kind == "d":
            return stat.S_ISDIR(mode)
        if self.kind == "x":
            return bool(mode & stat.S_IXUSR)
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def condition(call: Call) -> Test:
    """Compile what stands between the parentheses."""
    words = list(call.args)
    first, last = 0, len(words) - 1
    if not words[0].startswith("("):
        raise call.error_at(f'invalid condition "{words[0]}"')
    if words[0] == "(":
        first = 1
    else:
        words[0] = words[0][1:]
    if not words[last].endswith(")"):
        raise call.error_at(f'invalid condition "{words[last]}"')
    if words[last] == ")":
        last -= 1
    else:
        words[last] = words[last][:-1]
    word = words[first]
    if len(word) > 1 and word[0] == "$" and last - first in (0, 2):
        if first == last:
            return Truth(call, word[1:])
        return _comparison(call, word[1:], words[first + 1], words[last])
    negative = word.startswith("!")
    flag = word.removeprefix("!")
    if len(flag) == 2 and flag[0] == "-" and last - first == 1:
        path = template(call, words[last])
        if flag[1] in "fdex":
            return File(path, flag[1], negative)
    raise call.error_at(f'invalid condition "{word}"')


def _comparison(call: Call, name: str, operator: str, text: str) -> Test:
    negative = operator.startswith("!")
    if operator in ("=", "!="):
        return Equal(call, name, text, negative)
    if operator in ("~", "~*", "!~", "!~*"):
        return Match(call, name, regex(call, text, operator.endswith("*")), negative)
    raise call.error_at(f'unexpected "{operator}" in condition')
