"""[5] Which location serves a URI: exact, longest prefix, `^~`, then regexes in order, nested ones inside.

nginx: ngx_http_core_find_location. Prefixes are looked up in a dict by the lengths that occur, longest
first, so the cost does not grow with the number of locations.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.worker.http.conf import Location

# how a location was found; regexes may still replace a PREFIX one
PREFIX: Final = 0
FINAL: Final = 1
REDIRECT: Final = 2


class LocationTree:
    """The locations of one level: a server's, or those nested in a location."""

    __slots__ = ("all", "exact", "lengths", "only", "prefixes", "redirects", "regexes")

    def __init__(self, locations: "Iterable[Location]") -> None:
        self.all = list(locations)
        self.exact: dict[bytes, Location] = {}
        self.prefixes: dict[bytes, Location] = {}
        self.regexes: list[Location] = []
        self.redirects: dict[bytes, Location] = {}  # "/a" for a location "/a/" that answers it with a redirect
        for location in self.all:
            if location.kind == "=":
                self.exact[location.name] = location
            elif location.kind in ("", "^~"):
                self.prefixes[location.name] = location
            elif location.regex is not None:
                self.regexes.append(location)
            if location.auto_redirect and location.name.endswith(b"/") and location.kind in ("", "^~", "="):
                self.redirects[location.name[:-1]] = location
        self.lengths = sorted({len(name) for name in self.prefixes}, reverse=True)
        # the commonest configuration, a single "/", needs no search at all
        plain = not (self.exact or self.regexes or self.redirects)
        only = self.prefixes.get(b"/") if plain and len(self.prefixes) == 1 else None
        self.only: Location | None = only if only is not None and only.tree is None else None

    def find(self, uri: bytes, capture: Callable[[Any, Any], None]) -> "tuple[Location | None, int]":
        """The location for `uri` and how it was found: PREFIX, FINAL, or REDIRECT (answer with the name and "/").

        `capture(regex, match)` is told the match of a regex location.
        """
        if self.only is not None and uri.startswith(b"/"):
            return self.only, PREFIX
        location = self.exact.get(uri)
        if location is not None:
            return location, FINAL
        if uri in self.redirects and uri not in self.prefixes:
            return self.redirects[uri], REDIRECT
        found = None
        for length in self.lengths:
            found = self.prefixes.get(uri[:length])
            if found is not None:
                break
        noregex = found is not None and found.kind == "^~"
        if found is not None and found.tree is not None:
            inner, how = found.tree.find(uri, capture)
            if inner is not None:
                if how != PREFIX:
                    return inner, how
                found = inner
        if not noregex:
            for location in self.regexes:
                match = location.regex.search(uri)  # type: ignore[union-attr]
                if match is None:
                    continue
                capture(location.regex, match)
                if location.tree is not None:
                    inner, how = location.tree.find(uri, capture)
                    if inner is not None:
                        return inner, max(how, FINAL)
                return location, FINAL
        return found, PREFIX
