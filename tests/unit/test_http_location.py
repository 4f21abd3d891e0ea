"""Which location is found: nginx's order of exact names, prefixes, `^~`, regular expressions, and nesting."""

from typing import Any

import pytest
from headgate.worker.http.conf import Location, Server
from headgate.worker.http.location import FINAL, PREFIX, REDIRECT, LocationTree
from headgate.worker.http.regex import Regex

SERVER = Server("nginx.conf", 1)


def location(text: str, *nested: Location, redirect: bool = False) -> Location:
    """The location of `location TEXT { ... }`; with `redirect` one whose name without "/" is answered with it."""
    kind, _, name = text.rpartition(" ")
    out = Location(kind, name.encode(), text, SERVER)
    if kind.startswith("~"):
        out.regex = Regex(name, caseless=kind == "~*")
    out.auto_redirect = redirect
    if nested:
        out.tree = LocationTree(nested)
    return out


def find(tree: LocationTree, uri: bytes) -> tuple[str | None, int]:
    found, how = tree.find(uri, lambda regex, match: None)
    return (found.text if found is not None else None), how


USUAL = LocationTree(
    [
        location("/"),
        location("/images/"),
        location("^~ /images/raw/"),
        location("= /images/"),
        location("~ \\.php$"),
        location("~* \\.(gif|jpg)$"),
        location("/images/deep/er"),
        location("@ @named"),
    ]
)


@pytest.mark.parametrize(
    "uri, text, how",
    [
        (b"/", "/", PREFIX),
        (b"/x", "/", PREFIX),
        (b"/images/", "= /images/", FINAL),
        (b"/images/x", "/images/", PREFIX),
        (b"/images", "/", PREFIX),
        (b"/images/raw/", "^~ /images/raw/", PREFIX),
        (b"/images/raw/x.php", "^~ /images/raw/", PREFIX),
        (b"/images/x.php", "~ \\.php$", FINAL),
        (b"/images/x.PHP", "/images/", PREFIX),
        (b"/images/x.GIF", "~* \\.(gif|jpg)$", FINAL),
        (b"/images/deep/error", "/images/deep/er", PREFIX),
        (b"/images/deep/", "/images/", PREFIX),
        (b"no-slash", None, PREFIX),
        (b"@named", None, PREFIX),
    ],
)
def test_of_one_level(uri: bytes, text: str | None, how: int) -> None:
    assert find(USUAL, uri) == (text, how)


def test_the_first_regex_that_matches_wins() -> None:
    tree = LocationTree([location("~ b"), location("~ a"), location("~ ab")])
    assert find(tree, b"/ab") == ("~ b", FINAL)
    assert find(tree, b"/a") == ("~ a", FINAL)
    assert find(tree, b"/") == (None, PREFIX)


def test_a_regex_tells_its_match() -> None:
    told: list[tuple[Any, Any]] = []
    tree = LocationTree([location("~ ^/(?<x>a+)")])
    tree.find(b"/aab", lambda regex, match: told.append((regex, match)))
    ((regex, match),) = told
    assert regex is tree.regexes[0].regex and match.group(1) == b"aa"


NESTED = LocationTree(
    [
        location("/a/", location("/a/b/"), location("^~ /a/final/"), location("= /a/exact"), location("~ x$")),
        location("^~ /closed/", location("/closed/in/"), location("~ y$")),
        location("~ \\.php$", location("/a/b/in-regex"), location("~ z\\.php$")),
        location("~ [xyb]$"),
    ]
)


@pytest.mark.parametrize(
    "uri, text",
    [
        (b"/a/c", "/a/"),
        (b"/a/b/c", "/a/b/"),
        (b"/a/b/b", "~ [xyb]$"),  # regexes outside may still replace a nested prefix
        (b"/a/final/b", "~ [xyb]$"),  # "^~" holds off those of its own level alone
        (b"/a/final/x", "~ [xyb]$"),
        (b"/a/exact", "= /a/exact"),
        (b"/a/x", "~ x$"),  # a nested regex before those outside
        (b"/closed/c", "^~ /closed/"),
        (b"/closed/in/x", "/closed/in/"),
        (b"/closed/y", "~ y$"),
        (b"/q.php", "~ \\.php$"),
        (b"/z.php", "~ z\\.php$"),
        (b"/a/b/in-regex.php", "/a/b/in-regex"),
        (b"/none", None),
    ],
)
def test_of_nested_levels(uri: bytes, text: str | None) -> None:
    assert find(NESTED, uri)[0] == text


def test_a_name_without_its_slash_is_redirected() -> None:
    tree = LocationTree([location("/"), location("/app/", redirect=True), location("~ p$")])
    assert find(tree, b"/app") == ("/app/", REDIRECT)
    assert find(tree, b"/app/") == ("/app/", PREFIX)
    assert find(tree, b"/app/p") == ("~ p$", FINAL)


@pytest.mark.parametrize("other, how", [("/app", PREFIX), ("= /app", FINAL)])
def test_no_redirect_where_the_name_is_a_location_of_its_own(other: str, how: int) -> None:
    tree = LocationTree([location("/app/", redirect=True), location(other)])
    assert find(tree, b"/app") == (other, how)


def test_a_single_prefix_needs_no_search() -> None:
    assert LocationTree([location("/")]).only is not None
    for more in ("= /x", "~ x", "/x"):
        assert LocationTree([location("/"), location(more)]).only is None
    assert LocationTree([location("/", location("/x"))]).only is None
    assert find(LocationTree([location("/")]), b"/any/x.php") == ("/", PREFIX)
    assert find(LocationTree([location("/")]), b"any") == (None, PREFIX)
