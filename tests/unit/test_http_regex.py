"""nginx's regular expressions: PCRE, its captures, its limits, its texts."""

import pytest
from headgate.worker.http.regex import Regex, RegexError


class FakeRequest:
    """What a match leaves its captures in."""

    def __init__(self) -> None:
        self.vars: dict[str, bytes | None] = {}
        self.captures: object = None
        self.lines: list[str] = []

    def log(self, level: int, message: str) -> None:
        self.lines.append(message)


@pytest.mark.parametrize(
    "pattern, subject, groups",
    [
        ("^/a(.*)$", b"/abc", (b"bc",)),
        (r"\.(gif|jpe?g)$", b"/x.jpeg", (b"jpeg",)),
        ("(?<x>a)(?P<y>b)(?'z'c)", b"abc", (b"a", b"b", b"c")),
        ("a++b", b"aaab", ()),
        ("(?>a+)b", b"aab", ()),
        (r"(?i)ABC\d", b"abc1", ()),
        ("(a)?(b)", b"b", (None, b"b")),
        ("a(?=b)", b"ab", ()),
        ("\u00e9", "caf\u00e9".encode(), ()),
        (r"^\x{e9}\x{41}\x41\x9\x$", b"\xe9AA\x09\x00", ()),
        (r"\\x{1}\Q\x{41}\E", rb"\x\x{41}", ()),
        ("^.$", b"\xff", ()),
    ],
)
def test_match(pattern: str, subject: bytes, groups: tuple[bytes | None, ...]) -> None:
    match = Regex(pattern).search(subject)
    assert match is not None and match.groups() == groups


def test_no_match() -> None:
    assert Regex("^/a$").search(b"/b") is None
    assert Regex("a").search(b"A") is None
    assert Regex("a", caseless=True).search(b"A") is not None


def test_names() -> None:
    assert Regex("(?<One>a)(?<two>b)").names == {"One": 1, "two": 2}


@pytest.mark.parametrize(
    "pattern, text",
    [
        ("(", 'missing closing parenthesis in "("'),
        ("a[", 'missing terminating ] for character class in "a["'),
        ("a{2,1}b", 'numbers out of order in {} quantifier in "a{2,1}b" at "}b"'),
    ],
)
def test_errors(pattern: str, text: str) -> None:
    with pytest.raises(RegexError) as caught:
        Regex(pattern)
    assert str(caught.value) == f"pcre2_compile() failed: {text}"


def test_pattern_that_would_run_for_ever() -> None:
    with pytest.raises(RegexError, match="failed"):
        Regex("^(a+)+$").search(b"a" * 40 + b"!")


def test_captures_go_to_the_request() -> None:
    request = FakeRequest()
    regex = Regex("(?<Name>a+)(b)?")
    assert regex.test(request, b"xaay", log=False)  # type: ignore[arg-type]
    assert request.vars == {"name": b"aa"}
    assert request.captures is not None
    assert not regex.test(request, b"x", log=False)  # type: ignore[arg-type]
    assert request.captures is None
    assert request.vars == {"name": b"aa"}
    assert request.lines == []


def test_log_of_tests() -> None:
    request = FakeRequest()
    regex = Regex("^/a")
    regex.test(request, b"/a", log=True)  # type: ignore[arg-type]
    regex.test(request, b"/b", log=True)  # type: ignore[arg-type]
    assert request.lines == ['"^/a" matches "/a"', '"^/a" does not match "/b"']
