"""`match NAME { status ...; header ...; body ...; }`: what a response to a health check must be (nginx Plus).

A response passes when it meets every condition. Without a `match` it passes with a status of 200 to 399.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, Conf, Ctx, block
from headgate.conf.errors import ConfError
from headgate.conf.template import fsencode
from headgate.worker.http.regex import Regex, RegexError

if TYPE_CHECKING:
    from headgate.conf.parser import Statement
    from headgate.worker.upstream.header import ResponseHead

MOST_BODY = 256 * 1024  # bytes that are looked at
_STATUSES = re.compile(r"([1-9]\d\d)(?:-([1-9]\d\d))?")


@dataclass(slots=True)
class Match:
    """The conditions of one block: each says whether it is met."""

    status: Callable[[int], bool] | None = None
    headers: "list[Callable[[ResponseHead], bool]]" = field(default_factory=list)
    body: Callable[[bytes], bool] | None = None

    def failure(self, head: "ResponseHead", body: bytes) -> str | None:
        """What a response fails by, in the words of the error log; None when it passes."""
        if self.status is not None and not self.status(head.status):
            return f"checking status code ({head.status})"
        try:
            if not all(met(head) for met in self.headers):
                return "checking headers"
            if self.body is not None and not self.body(body):
                return "checking body"
        except RegexError as error:
            return f"checking with a regular expression ({error})"
        return None


DEFAULT = Match(lambda status: 200 <= status < 400)


class MatchConf(Conf, level=Ctx.HTTP):
    """The blocks by name."""

    matches: dict[str, Match] = {}  # replaced where there are any, never changed


@block("match", Ctx.HTTP, "1")
def match(call: Call) -> None:
    """One block."""
    name = call.args[0]
    matches = vars(call.conf(MatchConf)).setdefault("matches", {})
    if name in matches:
        raise call.error_at(f'duplicate match "{name}"')
    matches[name] = made = Match()
    for line in call.statement.block or ():
        if line.error is not None:
            raise line.error
        _add(made, line)


def _add(made: Match, line: "Statement") -> None:
    name, *args = line.words
    if line.block is not None:
        raise _error(line, 'unexpected "{"')
    if name == "require":
        raise _error(line, '"require" of a match is known to nginx but not implemented by headgate')
    if name not in ("status", "header", "body"):
        raise _error(line, f'unknown directive "{name}"')
    if not args:
        raise _error(line, f'invalid number of arguments in "{name}" directive')
    if name == "header":
        made.headers.append(_header(args, line))
        return
    if getattr(made, name) is not None:
        raise _error(line, f'"{name}" directive is duplicate')
    if name == "status":
        made.status = _status(args, line)
    else:
        made.body = _body(args, line)


def _error(line: "Statement", text: str) -> ConfError:
    return ConfError(text, line.file, line.line)


def _status(args: list[str], line: "Statement") -> Callable[[int], bool]:
    """`200 204`, `! 301-303 307`."""
    wanted = args[0] != "!"
    known: set[int] = set()
    for word in args if wanted else args[1:]:
        found = _STATUSES.fullmatch(word)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise _error(line, f'invalid status "{word}"')
        known.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    if not known:
        raise _error(line, 'invalid number of arguments in "status" directive')
    return lambda status: (status in known) is wanted


def _header(args: list[str], line: "Statement") -> "Callable[[ResponseHead], bool]":
    """`NAME`, `! NAME`, `NAME = TEXT`, `NAME != TEXT`, `NAME ~ REGEX`, `NAME !~ REGEX`."""
    if len(args) == 2 and args[0] == "!":
        absent = fsencode(args[1].lower())
        return lambda head: head.get(absent) is None
    name = fsencode(args[0].lower())
    if len(args) == 1:
        return lambda head: head.get(name) is not None
    if len(args) != 3:
        raise _error(line, 'invalid number of arguments in "header" directive')
    met = _text(args[1], args[2], line)
    # a field that is not there is not equal to anything and matches nothing
    negative = args[1].startswith("!")

    def header(head: "ResponseHead") -> bool:
        value = head.get(name)
        return negative if value is None else met(value)

    return header


def _body(args: list[str], line: "Statement") -> Callable[[bytes], bool]:
    """`~ REGEX`, `!~ REGEX`."""
    if len(args) != 2 or args[0] not in ("~", "!~"):
        raise _error(line, f'invalid parameter "{args[0]}"')
    return _text(args[0], args[1], line)


def _text(operator: str, text: str, line: "Statement") -> Callable[[bytes], bool]:
    value = fsencode(text)
    if operator == "=":
        return lambda given: given == value
    if operator == "!=":
        return lambda given: given != value
    if operator not in ("~", "~*", "!~", "!~*"):
        raise _error(line, f'invalid parameter "{operator}"')
    try:
        regex = Regex(text, operator.endswith("*"))
    except RegexError as error:
        raise _error(line, str(error)) from None
    wanted = not operator.startswith("!")
    return lambda given: (regex.search(given) is not None) is wanted
