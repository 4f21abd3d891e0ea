"""The SSI reader: every case whole, byte by byte, and with more behind it."""

import pytest
from headgate.worker.subrequest.ssi_reader import Broken, Command, Event, Problem, SsiReader


def read(*pieces: bytes, size: int = 255) -> list[Event]:
    reader = SsiReader(size)
    out: list[Event] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next()) is not None:
            out.append(event)
    return joined(out)


def joined(events: list[Event]) -> list[Event]:
    """Texts that stand side by side are one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += event
        else:
            out.append(event)
    return out


def everyway(data: bytes, size: int = 255) -> list[Event]:
    whole = read(data, size=size)
    assert read(*(data[i : i + 1] for i in range(len(data))), size=size) == whole
    tail = b"<tail>"
    assert read(data, tail, size=size) == read(data + tail, size=size)
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:], size=size) == whole
    return whole


COMMANDS = [
    (b'<!--#echo var="a"-->', Command(b"echo", [(b"var", b"a")])),
    (b"<!--# \r\n\techo  var = 'a'  default\t=\"b\" -->", Command(b"echo", [(b"var", b"a"), (b"default", b"b")])),
    (b"<!--#endif-->", Command(b"endif", [])),
    (b"<!--#endif -->", Command(b"endif", [])),
    (b'<!--#set var="" value="it\'s \\"x\\"" -->', Command(b"set", [(b"var", b""), (b"value", b'it\'s \\"x\\"')])),
    (b'<!--#set var="" value="a\\\\" -->', Command(b"set", [(b"var", b""), (b"value", b"a\\\\")])),
    (b'<!--#if expr="a-->b" -->', Command(b"if", [(b"expr", b"a-->b")])),
    (b"<!--#" + b"x" * 32 + b" -->", Command(b"x" * 32, [])),
]  # fmt: skip


@pytest.mark.parametrize(("text", "command"), COMMANDS)
def test_commands(text: bytes, command: Command) -> None:
    assert everyway(b"before " + text + b" after") == [b"before ", command, b" after"]
    assert everyway(text + text) == [command, command]


@pytest.mark.parametrize(
    "text", [b"plain", b"a < b", b"<!-- comment -->", b"<!DOCTYPE html>", b"<<!-<!--x#", b"a<!--<!-- b -->"]
)
def test_texts(text: bytes) -> None:
    assert everyway(text) == [text]


def test_what_looks_like_a_start() -> None:
    assert everyway(b"<!<!--<!--#endif--><!-- #x") == [b"<!<!--", Command(b"endif", []), b"<!-- #x"]


@pytest.mark.parametrize("end", [b"<", b"<!", b"<!-", b"<!--", b"<!--#", b"<!--# echo", b'<!--#echo var="x" -'])
def test_an_end_inside_a_command_loses_it(end: bytes) -> None:
    assert everyway(b"text" + end) == [b"text"]


PROBLEMS = [
    (b"<!--#" + b"x" * 33 + b" -->", f'the "{"x" * 32}x..." SSI command is too long'),
    (b'<!--#echo var-->', 'unexpected "-" symbol after "var" parameter in "echo" SSI command'),
    (b'<!--#echo var x="1" -->', 'unexpected "x" symbol after "var" parameter in "echo" SSI command'),
    (b"<!--#echo var=x -->", 'unexpected "x" symbol before value of "var" parameter in "echo" SSI command'),
    (b"<!--#echo var=-->", 'unexpected "-" symbol before value of "var" parameter in "echo" SSI command'),
    (b'<!--#echo var="a"b -->', 'unexpected "b" symbol after "a" value of "var" parameter in "echo" SSI command'),
    (b"<!--#echo -x -->", 'unexpected "x" symbol in "echo" SSI command'),
    (b"<!--#echo --x -->", 'unexpected "x" symbol in "echo" SSI command'),
    (b"<!--#echo " + b"p" * 33 + b'="" -->', f'too long "{"p" * 32}p..." parameter in "echo" SSI command'),
    (b'<!--#echo var="1234567890" -->', 'too long "123456789..." value of "var" parameter in "echo" SSI command'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), PROBLEMS)
def test_problems(text: bytes, problem: str) -> None:
    assert everyway(b"a" + text + b"b", size=8) == [b"a", Problem(problem), Broken(), b"b"]


def test_the_end_of_what_is_skipped() -> None:
    text = b"<!--#echo x -->"
    problem = 'unexpected "-" symbol after "x" parameter in "echo" SSI command'
    assert everyway(text) == [Problem(problem), Broken()]
    # nginx's machine takes two dashes and looks at what is behind them
    wrong = 'unexpected "y" symbol after "x" parameter in "echo" SSI command'
    assert everyway(b"<!--#echo x y - - --- --> z") == [Problem(wrong), Broken(), b" z"]
    assert everyway(b"<!--#echo x y ---> z -->") == [Problem(wrong), Broken()]
