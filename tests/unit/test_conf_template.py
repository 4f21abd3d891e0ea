"""Texts with variables: splitting, compiling, and the rules of what is looked up when."""

from typing import Any

import pytest
from headgate.conf.errors import ConfError
from headgate.conf.template import Getter, Variable, Variables, split


class FakeRequest:
    """What templates ask of a request."""

    def __init__(self, **values: bytes | None) -> None:
        self.vars: dict[str, bytes | None] = dict(values)
        self.asked = 0

    def capture(self, index: int) -> bytes | None:
        return b"<%d>" % index if index < 3 else None


def known(r: Any) -> bytes:
    return b"known"


def counted(r: FakeRequest) -> bytes:
    r.asked += 1
    return b"%d" % r.asked


def prefixed(name: str) -> Getter:
    return lambda r: f"[{name}]".encode()


@pytest.fixture
def variables() -> Variables:
    builtin = [
        Variable("known", known),
        Variable("none", lambda r: None),
        Variable("changeable", known, changeable=True),
        Variable("once", counted, cached=True),
        Variable("always", counted),
        Variable("settable", known, lambda r, value: r.vars.update(seen=value), changeable=True),
    ]
    return Variables(builtin, {"arg_": prefixed})


def render(variables: Variables, text: str, request: FakeRequest | None = None) -> bytes:
    template = variables.template(text, "f", 1)
    variables.resolve()
    return template.get(request or FakeRequest())


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", [b""]),
        ("plain", [b"plain"]),
        ("$a", ["a"]),
        ("a$b${c}d", [b"a", "b", "c", b"d"]),
        ("$Abc_1-", ["abc_1", b"-"]),
        ("$1$2x$12", [1, 2, b"x", 1, b"2"]),
        ("${1}", ["1"]),
        ("$0", ["0"]),
        ("\u00e9\udcff$a", [b"\xc3\xa9\xff", "a"]),
    ],
)
def test_split(text: str, parts: list[object]) -> None:
    assert split(text, "f", 1) == parts


@pytest.mark.parametrize(
    "text, reason",
    [
        ("$", "invalid variable name"),
        ("a$-", "invalid variable name"),
        ("${", "invalid variable name"),
        ("${}", "invalid variable name"),
        ("${a", 'the closing bracket in "a" variable is missing'),
        ("${a-b}", 'the closing bracket in "a" variable is missing'),
        ("x${-}", 'the closing bracket in "" variable is missing'),
    ],
)
def test_bad_names(text: str, reason: str) -> None:
    with pytest.raises(ConfError) as caught:
        split(text, "f", 7)
    assert str(caught.value) == f"{reason} in f:7"


@pytest.mark.parametrize(
    "text, value",
    [
        ("", b""),
        ("plain", b"plain"),
        ("$known", b"known"),
        ("<$known|$none|$1|$3|$arg_x>", b"<known||<1>||[x]>"),
        ("$none", b""),
        ("$KNOWN", b"known"),
    ],
)
def test_render(variables: Variables, text: str, value: bytes) -> None:
    assert render(variables, text) == value


def test_constant_text_needs_no_resolve(variables: Variables) -> None:
    template = variables.template("plain", "f", 1)
    assert (template.const, template.get(None)) == (b"plain", b"plain")
    assert variables.template("$known", "f", 1).const is None


def test_use_before_resolve_is_a_bug(variables: Variables) -> None:
    with pytest.raises(AssertionError):
        variables.template("$known", "f", 1).get(FakeRequest())


def test_defined_after_use(variables: Variables) -> None:
    template = variables.template("$later", "f", 1)
    variables.define("later", lambda r: b"here")
    variables.resolve()
    assert template.get(FakeRequest()) == b"here"


def test_first_unknown_name_in_order_of_use(variables: Variables) -> None:
    variables.want("first", lambda get: None)
    variables.template("$second", "f", 1)
    with pytest.raises(ConfError) as caught:
        variables.resolve()
    assert str(caught.value) == 'unknown "first" variable'


def test_defined_comes_before_a_prefix(variables: Variables) -> None:
    variables.define("arg_own", lambda r: b"own")
    assert render(variables, "$arg_own $arg_other") == b"own [other]"


def test_name_that_is_taken(variables: Variables) -> None:
    for name in ("known", "Known"):
        with pytest.raises(ValueError, match=f'^the duplicate "{name}" variable$'):
            variables.define(name, known)
    with pytest.raises(ValueError, match=r'^invalid variable name "\$"$'):
        variables.define("", known)


def test_defined_twice_is_one(variables: Variables) -> None:
    assert variables.define("mine", known) is variables.define("MINE", counted)


def test_value_that_was_set_comes_first(variables: Variables) -> None:
    variables.define("mine", counted)
    variables.define("changeable", counted)
    request = FakeRequest(mine=b"set", changeable=b"set too")
    assert render(variables, "$mine $changeable", request) == b"set set too"
    assert render(variables, "$changeable") == b"known"


def test_setter_is_kept(variables: Variables) -> None:
    assert variables.define("settable", counted).set is not None
    assert render(variables, "$settable", FakeRequest(settable=b"stored")) == b"known"


def test_cached_once_a_request(variables: Variables) -> None:
    template = variables.template("$once$once$always$always", "f", 1)
    variables.resolve()
    assert template.get(FakeRequest()) == b"1123"
    assert template.get(FakeRequest()) == b"1123"


def test_registries_share_nothing() -> None:
    shared = [Variable("v", known, changeable=True)]
    Variables(shared, {}).define("v", counted)
    assert not shared[0].stored


def test_own_captures(variables: Variables) -> None:
    template = variables.template("$1-$known", "f", 1, lambda index: lambda r: b"cap%d" % index)
    variables.resolve()
    assert template.get(FakeRequest()) == b"cap1-known"
