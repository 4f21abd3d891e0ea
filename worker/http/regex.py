"""nginx's regular expressions: PCRE2 with its match limit, over bytes.

A pattern that runs into the limit raises `RegexError`; the request is answered with 500 and the worker
lives on.
"""

import os
import re
from typing import TYPE_CHECKING, Any

import pcre2
from headgate.conf.template import fsencode
from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


class RegexError(Exception):
    """A pattern that does not compile, or a match that hit PCRE's limits."""


_POSITION = re.compile(r"compilation failed at position (\d+); (.*)", re.DOTALL)


def _compile_error(text: str, error: str) -> str:
    """nginx's text: what is wrong, and the rest of the pattern from where it is."""
    found = _POSITION.fullmatch(error)
    if found is None:
        return f'pcre2_compile() failed: {error} in "{text}"'
    rest = os.fsdecode(os.fsencode(text)[int(found[1]) :])
    return f'pcre2_compile() failed: {found[2]} in "{text}"' + (f' at "{rest}"' if rest else "")


_HEX = re.compile(r"\\Q.*?(?:\\E|$)|\\x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{0,2}))|\\.", re.DOTALL)


def _perl_hex(match: re.Match[str]) -> str:
    """The binding reads \\x as JavaScript does, with two digits only: other forms are written in octal."""
    digits = match[1] if match[1] is not None else match[2]
    if digits is None or (match[1] is None and len(digits) == 2):
        return match[0]
    return f"\\o{{{int(digits or '0', 16):o}}}"


class Regex:
    """A compiled pattern. `names` are its named groups, which become variables."""

    __slots__ = ("_pattern", "names", "text")

    def __init__(self, text: str, caseless: bool = False) -> None:
        self.text = text
        flags = pcre2.IGNORECASE if caseless else pcre2.NOFLAG
        try:
            self._pattern = pcre2.compile(fsencode(_HEX.sub(_perl_hex, text)), flags=flags)
        except pcre2.LibraryError as error:
            raise RegexError(_compile_error(text, str(error))) from None
        self.names: dict[str, int] = dict(self._pattern.groupindex)

    def search(self, subject: bytes) -> Any:
        """A match object, or None; raises RegexError when the limit is hit."""
        try:
            return self._pattern.search(subject)
        except pcre2.LibraryError as error:
            raise RegexError(f'pcre2_match() failed: {error} on "{os.fsdecode(subject)}" using "{self.text}"') from None

    def test(self, request: "Request", subject: bytes, log: bool) -> bool:
        """Whether `subject` matches; its captures, or none, are the request's then. `log`: rewrite_log."""
        match = self.search(subject)
        if log:
            verb = "does not match" if match is None else "matches"
            request.log(Level.NOTICE, f'"{self.text}" {verb} "{os.fsdecode(subject)}"')
        if match is None:
            request.captures = None
            return False
        self.capture(request, match)
        return True

    def capture(self, request: "Request", match: Any) -> None:
        """Make a match's groups the request's $1... and set the named ones."""
        request.captures = match
        if self.names:
            for name, index in self.names.items():
                request.vars[name.lower()] = match.group(index)
