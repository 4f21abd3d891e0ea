"""Prints docs/directives.md: every directive with its contexts, arguments, default and file, from the modules' tables.

Defaults are shown as they would be written; where a value does not tell how that is, `WRITTEN` says it. A unit test
holds the file against what this prints.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from headgate.conf import slots
from headgate.conf.directive import Command, Conf, Ctx, Directive
from headgate.conf.modules import MODULES

HEAD = """# Directives

What each one means is in [nginx's documentation](https://nginx.org/en/docs/dirindex.html), or, where nginx has no such
directive, in the file that declares it. `scripts/directives` makes this list from those declarations.

A directive of nginx that is not here is refused: `directive "..." is known to nginx but not implemented by headgate`.

| directive | contexts | arguments | default | file |
| --- | --- | --- | --- | --- |
"""
CONTEXTS = {
    Ctx.MAIN: "main", Ctx.EVENTS: "events", Ctx.HTTP: "http", Ctx.SERVER: "server", Ctx.LOCATION: "location",
    Ctx.UPSTREAM: "upstream", Ctx.SERVER_IF: "if in server", Ctx.LOCATION_IF: "if in location",
    Ctx.LIMIT_EXCEPT: "limit_except",
}  # fmt: skip
WRITTEN = {
    "expires": "off",
    "internal": "",
    "max_ranges": "",
    "proxy_http_version": "1.1",
    "memcached_next_upstream": "error timeout",
    "proxy_next_upstream": "error timeout",
    "proxy_socket_rcvbuf": "",
    "proxy_socket_sndbuf": "",
    "proxy_store_access": "user:rw",
}
UNITS = ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"))


def _size(value: int) -> str:
    for unit, letter in UNITS:
        if value and not value % unit:
            return f"{value // unit}{letter}"
    return str(value)


def _time(value: float) -> str:
    if not value:
        return "0"
    if value < 1:
        return f"{round(value * 1000)}ms"
    return f"{value / 3600:g}h" if not value % 3600 else f"{value:g}s"


def default(declared: Directive) -> str:
    """A default as it would be written in a configuration; "" where there is none."""
    value: Any = declared.default
    parse = declared.parse
    if declared.name in WRITTEN:
        return WRITTEN[declared.name]
    if value is None or value in ("", b"", [], -1):
        return ""
    words = inspect.getclosurevars(parse).nonlocals.get("values", {})
    named = [word for word, meaning in words.items() if meaning == value]
    if named:
        return str(named[0])
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return _time(value)
    if parse in (slots.size, slots.offset):
        return _size(value)
    if isinstance(value, tuple):
        return f"{value[0]} {_size(value[1])}" if parse is slots.buffers else _time(value[0])
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    assert isinstance(value, bytes | str | int), f"{declared.name}: how is {value!r} written?"
    return value.decode() if isinstance(value, bytes) else str(value)


def arguments(command: Command) -> str:
    """How many there may be, and whether a block follows."""
    count = "on or off" if command.arity == "flag" else command.arity.replace("|", " or ").replace("+", " or more")
    if command.block:
        return "block" if count == "0" else f"{count}, block"
    return "none" if count == "0" else count


def declared(name: str) -> Iterator[tuple[Command, str]]:
    """The directives of a module, each with its default."""
    for value in vars(import_module(name)).values():
        if isinstance(value, Command):
            yield value, ""
        elif isinstance(value, type) and issubclass(value, Conf) and value.__module__ == name:
            yield from zip(value.commands(), map(default, value.directives), strict=True)


def render() -> str:
    """The whole document."""
    rows = []
    for module in MODULES:
        file = module.removeprefix("headgate.").replace(".", "/") + ".py"
        for command, shown in declared(module):
            contexts = ", ".join(text for ctx, text in CONTEXTS.items() if ctx in command.contexts)
            value = f"`{shown}`" if shown else ""
            row = f"| `{command.name}` | {contexts} | {arguments(command)} | {value} | [{file}](../{file}) |\n"
            rows.append((command.name, row))
    return HEAD + "".join(row for _, row in sorted(rows))


if __name__ == "__main__":
    print(render(), end="")
