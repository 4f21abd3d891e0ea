"""Directives as fields: the gate, merging down the levels, hooks; and that no file with directives is missing."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from headgate.conf import slots
from headgate.conf.build import Config, Scope
from headgate.conf.directive import HSL, Call, Command, Conf, Ctx, block, command, directive
from headgate.conf.errors import ConfError
from headgate.conf.modules import MODULES, Registry, registry
from headgate.conf.parser import parse_text


class Sample(Conf, level=Ctx.LOCATION):
    """One field of each kind."""

    number: int = directive("number", HSL, "1", slots.number, default=1)
    flag: bool = directive("flag", Ctx.LOCATION, "flag", slots.flag, default=False)
    many: list[str] = directive("many", HSL, "1|2", slots.string, many=True)
    own: str | None = directive("own", Ctx.LOCATION | Ctx.LOCATION_IF, "1", slots.string, inherit=False)
    plus: str | None = directive("plus", HSL, "2+", slots.string)


def sample(**values: Any) -> Sample:
    out = Sample.__new__(Sample)
    vars(out).update(values)
    return out


def reg() -> Registry:
    out = Registry()
    for each in Sample.commands():
        out.commands.setdefault(each.name, []).append(each)

    @block("inner", HSL, "0")
    def inner(call: Call) -> None:
        call.build(Ctx.LOCATION)

    @command("twin", Ctx.HTTP, "0")
    def in_http(call: Call) -> None:
        call.scope.config.warnings.append("http")

    @command("twin", Ctx.LOCATION, "1")
    def in_location(call: Call) -> None:
        call.scope.config.warnings.append("location")

    for each in (inner, in_http, in_location):
        out.commands.setdefault(each.name, []).append(each)
    return out


def read(text: str, ctx: Ctx = Ctx.LOCATION) -> Scope:
    scope = Scope(ctx, None, Config("f", "/prefix"), reg())
    scope.read(parse_text(text, "f"))
    return scope


def test_values_and_merge_with_defaults() -> None:
    conf = Sample.merge(None, read("number 5; many a; many b c; flag on;").conf(Sample))
    assert vars(conf) == {"number": 5, "flag": True, "many": ["a", "b"], "own": None, "plus": None}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("number;", 'invalid number of arguments in "number" directive'),
        ("number 1 2;", 'invalid number of arguments in "number" directive'),
        ("flag;", 'invalid number of arguments in "flag" directive'),
        ("flag on off;", 'invalid number of arguments in "flag" directive'),
        ("plus a;", 'invalid number of arguments in "plus" directive'),
        ("many a b c;", 'invalid number of arguments in "many" directive'),
        ("number { }", 'directive "number" is not terminated by ";"'),
        ("inner;", 'directive "inner" has no opening "{"'),
        ("inner x { }", 'invalid number of arguments in "inner" directive'),
        ("number x;", '"number" directive invalid number'),
        ("number 1; number 2;", '"number" directive is duplicate'),
        ("nosuch;", 'unknown directive "nosuch"'),
        ("ssl_certificate x;", 'directive "ssl_certificate" is known to nginx but not implemented by headgate'),
    ],
)
def test_gate(text: str, reason: str) -> None:
    with pytest.raises(ConfError) as caught:
        read("\n" + text)
    assert str(caught.value) == f"{reason} in f:2"


def test_gate_looks_at_the_context_first() -> None:
    with pytest.raises(ConfError, match=r'^"flag" directive is not allowed here in f:1$'):
        read("flag 1 2 3;", Ctx.HTTP)


def test_one_name_in_two_contexts() -> None:
    assert read("twin;", Ctx.HTTP).config.warnings == ["http"]
    assert read("twin x;", Ctx.LOCATION).config.warnings == ["location"]


def test_errors_come_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfError, match=r'^unknown directive "first" in f:1$'):
        read("first; second")


def test_lists_are_inherited_whole_or_not_at_all() -> None:
    top = Sample.merge(None, sample(many=["a", "b"]))
    assert Sample.merge(top, sample(number=2)).many == ["a", "b"]
    assert Sample.merge(top, sample(many=["c"])).many == ["c"]


def test_values_are_inherited_over_levels() -> None:
    top = Sample.merge(None, sample(number=7))
    server = Sample.merge(top, None)
    location = Sample.merge(server, sample(plus="x"))
    assert (server.number, location.number, location.plus) == (7, 7, "x")


def test_nothing_set_is_the_same_instance() -> None:
    top = Sample.merge(None, sample(number=7))
    assert Sample.merge(top, None) is top
    assert Sample.merge(top, sample()) is top


def test_what_is_not_inherited() -> None:
    outer = Sample.merge(None, sample(own="handler", number=7))
    inner = Sample.merge(outer, None)
    assert (inner.own, inner.number) == (None, 7)
    assert Sample.merge(outer, None, noname=True).own == "handler"
    assert Sample.merge(outer, sample(number=8), noname=True).own == "handler"


def test_defaults_are_not_shared() -> None:
    Sample.merge(None, None).many.append("x")
    assert Sample.merge(None, None).many == []


def test_finish_and_attach_exist_by_default() -> None:
    conf = Sample.merge(None, None)
    scope = Scope(Ctx.MAIN, None, Config("f", "/"), Registry())
    conf.finish(scope)
    conf.attach(object())


def test_paths_start_at_the_prefix() -> None:
    seen: list[str] = []

    @command("path", Ctx.LOCATION, "1")
    def path(call: Call) -> None:
        seen.append(call.path(call.args[0]))

    scope = Scope(Ctx.LOCATION, None, Config("f", "/prefix/"), Registry({"path": [path]}))
    scope.read(parse_text("path a/b; path /c;", "f"))
    assert seen == ["/prefix/a/b", "/c"]


ROOT = Path(__file__).parents[2]
MAY_DECLARE = re.compile(r"^class \w+\(.*, level=|^@(?:command|block)\(|^(?:VARIABLES|PREFIXES)\b", re.M)


def declares(name: str) -> bool:
    """Whether a module has directives or variables of its own; one of a base class has a name such as "_timeout"."""
    module = import_module(name)
    for value in vars(module).values():
        if isinstance(value, Command) and value.handle.__module__ == name:
            return True
        own = isinstance(value, type) and issubclass(value, Conf) and value.__module__ == name
        if own and not any(each.name.startswith("_") for each in value.directives):
            return True
    return bool({"VARIABLES", "PREFIXES"} & set(vars(module)))


def test_every_file_with_directives_is_listed() -> None:
    files = [path for folder in ("conf", "worker") for path in (ROOT / folder).rglob("*.py")]
    names = {
        "headgate." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if MAY_DECLARE.search(path.read_text())
    }
    assert {name for name in names if declares(name)} == set(MODULES)
    assert len(MODULES) == len(set(MODULES))


def test_no_name_is_declared_twice_for_one_context() -> None:
    for name, commands in registry().commands.items():
        contexts = [each.contexts for each in commands]
        for i, one in enumerate(contexts):
            assert all(not one & other for other in contexts[i + 1 :]), name


def test_every_directive_is_nginx_s_or_our_own() -> None:
    theirs = set((ROOT / "conf/nginx_directives.txt").read_text().split())
    ours = set(registry().commands) - theirs
    own = {
        "health_check",
        "match",
        "outlier_ejection",
        "peak_ewma",
        "queue",
        "retry_budget",
        "upstream_status",
        "worker_idle_grace",
    }
    assert {name for name in ours if not name.startswith("py_")} == own
