"""Configuration text -> tokens."""

import pytest
from headgate.conf.errors import ConfError
from headgate.conf.lexer import tokens


def words(text: str) -> list[str]:
    return [token.text for token in tokens(text, "f")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        (" \t\r\n ", []),
        ("a b;", ["a", "b", ";"]),
        ("a{b;}", ["a", "{", "b", ";", "}"]),
        ("a }b", ["a", "}", "b"]),
        ("a}b;", ["a}b", ";"]),
        ("# c\na;#d", ["a", ";"]),
        ("a#b;", ["a#b", ";"]),
        ("a #b;\n;", ["a", ";"]),
        ("\"a b\" 'c;d';", ["a b", "c;d", ";"]),
        ('a"b c";', ['a"b', 'c"', ";"]),
        ('"it\'s" \'say "x"\';', ["it's", 'say "x"', ";"]),
        (r'"a\"b" \'c\;', ['a"b', "'c\\;"]),
        (r'"\t\r\n\\\x";', ["\t\r\n\\\\x", ";"]),
        (r"a\ b \;c;", ["a\\ b", "\\;c", ";"]),
        ("${a}b;", ["${a}b", ";"]),
        ("a$b{", ["a$b", "{"]),
        ("a${{b}c;", ["a${{b}c", ";"]),
        ('("a");', ['("a")', ";"]),
        ('= "a");', ["=", "a", ")", ";"]),
        ('""', [""]),
        ("'multi\nline';", ["multi\nline", ";"]),
        ("é\udcff;", ["é\udcff", ";"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_quoted_terminators_are_words() -> None:
    assert [(token.text, token.quoted) for token in tokens("';' \"{\" ;", "f")] == [
        (";", True),
        ("{", True),
        (";", False),
    ]


def test_lines() -> None:
    assert [(token.text, token.line) for token in tokens("a\n'b\nc' # d\n{\r\n}", "f")] == [
        ("a", 1),
        ("b\nc", 3),
        ("{", 4),
        ("}", 5),
    ]


@pytest.mark.parametrize(
    "text, reason, line",
    [
        ('a "b', 'unexpected end of file, expecting ";" or "}"', 1),
        ("a 'b\n\n", 'unexpected end of file, expecting ";" or "}"', 3),
        ("a \\", 'unexpected end of file, expecting ";" or "}"', 1),
        ('"a"b', 'unexpected "b"', 1),
        ("\n'a'\"b\"", 'unexpected """', 2),
        ('"a"}', 'unexpected "}"', 1),
        ('"a"#', 'unexpected "#"', 1),
    ],
)
def test_errors(text: str, reason: str, line: int) -> None:
    with pytest.raises(ConfError) as caught:
        words(text)
    assert str(caught.value) == f"{reason} in f:{line}"
