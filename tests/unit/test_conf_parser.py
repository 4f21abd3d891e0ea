"""Tokens -> statements: blocks, includes, and errors that stand where they were met."""

from pathlib import Path

import pytest
from headgate.conf.parser import MAX_INCLUDES, Statement, parse_file, parse_text


def shape(statements: list[Statement]) -> list[object]:
    """Words, with a block as a list behind them; an error as its text."""
    out: list[object] = []
    for statement in statements:
        if statement.error is not None:
            out.append(str(statement.error))
        else:
            out.append(" ".join(statement.words))
            if statement.block is not None:
                out.append(shape(statement.block))
    return out


def test_blocks() -> None:
    parsed = parse_text("a 1;\nb {\n c { }\n d;\n}\ne;", "f")
    assert shape(parsed) == ["a 1", "b", ["c", [], "d"], "e"]
    assert [(s.name, s.line, s.end_line) for s in parsed] == [("a", 1, 0), ("b", 2, 5), ("e", 6, 0)]


def test_line_is_that_of_the_terminator() -> None:
    assert [s.line for s in parse_text("a\nb\n;\nc\n{\n}", "f")] == [3, 5]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a; }", ["a", 'unexpected "}" in f:1']),
        (";", ['unexpected ";" in f:1']),
        ("{", ['unexpected "{" in f:1']),
        ("a; b {", ["a", "b", ['unexpected end of file, expecting "}" in f:1']]),
        ("a {\n\n", ["a", ['unexpected end of file, expecting "}" in f:3']]),
        ("a; b", ["a", 'unexpected end of file, expecting ";" or "}" in f:1']),
        ("a { b }", ["a", ['unexpected "}" in f:1']]),
        ("a; 'b", ["a", 'unexpected end of file, expecting ";" or "}" in f:1']),
    ],
)
def test_errors_end_the_file(text: str, expected: list[object]) -> None:
    assert shape(parse_text(text + " ", "f")) == expected


@pytest.mark.parametrize(
    "text, error",
    [
        ("daemon off", 'unexpected end of parameter, expecting ";"'),
        ("daemon off; pid 'x", 'unexpected end of parameter, expecting ";"'),
        ("events { }", "block directives are not supported in -g option"),
    ],
)
def test_directives_of_the_command_line(text: str, error: str) -> None:
    assert shape(parse_text(text))[-1] == f"{error} in command line"


def test_include(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("a;\ninclude sub/*.conf;\ninclude none*;\nb { include one; }\n")
    (tmp_path / "one").write_text("one;")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "2.conf").write_text("two;\n")
    (tmp_path / "sub" / "1.conf").write_text("include one;")  # from the main file's directory
    source = parse_file(str(tmp_path / "main"))
    assert shape(source.statements) == ["a", "one", "two", "b", ["one"]]
    assert [Path(path).name for path, _ in source.files] == ["main", "1.conf", "one", "2.conf"]
    assert source.statements[1].file == str(tmp_path / "one")


def test_include_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("\ninclude gone;")
    text = f'open() "{tmp_path}/gone" failed (2: No such file or directory) in {tmp_path}/main:2'
    assert shape(parse_file(str(tmp_path / "main")).statements) == [text]


def test_no_file(tmp_path: Path) -> None:
    assert shape(parse_file(str(tmp_path / "main")).statements) == [
        f'open() "{tmp_path}/main" failed (2: No such file or directory)'
    ]


def test_include_of_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("a; include main;")
    parsed = shape(parse_file(str(tmp_path / "main")).statements)
    assert parsed[: MAX_INCLUDES + 1] == ["a"] * (MAX_INCLUDES + 1)
    assert str(parsed[-1]).startswith('"include" nesting deeper than')


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "main").write_bytes(b"a \xff;")
    assert parse_file(str(tmp_path / "main")).statements[0].words == ["a", "\udcff"]
