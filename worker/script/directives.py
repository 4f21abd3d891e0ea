"""`py_path`, `py_import`, `py_content`, `py_access`, `py_set`, `py_header_filter`, `py_body_filter`, `py_log`.

Python files are read when the configuration is, by the master, so a mistake in one is an error of the configuration
and a reload brings new code, while old workers go on with the old. py_content and py_access take coroutine functions;
the others are asked in the middle of something and take plain functions.
"""

import contextlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.py_module import load
from headgate.masterd.logfile import Level
from headgate.worker.http import phases, special, validators
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.request import NO_RANGES, Replaced
from headgate.worker.script import imports, report
from headgate.worker.script.api import InternalRedirect, Request
from headgate.worker.script.fields import encode
from headgate.worker.script.known import Known
from headgate.worker.script.session import Session, for_user
from headgate.worker.script.watch import Watch

if TYPE_CHECKING:
    from types import ModuleType

    from headgate.conf.build import Scope
    from headgate.worker.http import request as http
    from headgate.worker.http.conf import Location
    from headgate.worker.http.server import HttpWorker

_CONTENT = Ctx.LOCATION | Ctx.LOCATION_IF | Ctx.LIMIT_EXCEPT


@dataclass(slots=True)
class Import:
    """`py_import FILE [as NAME]`."""

    call: Call
    file: str
    name: str


def _import(call: Call) -> Import:
    file = call.args[0]
    name = os.path.basename(file).removesuffix(".py")
    if len(call.args) == 3 and call.args[1] == "as":
        name = call.args[2]
    elif len(call.args) != 1:
        raise call.error_at(f'invalid number of arguments in "{call.name}" directive')
    if not name.isidentifier():
        raise call.error_at(f'"{name}" is no name for a module: say "py_import {file} as NAME"')
    return Import(call, file, name)


class ScriptConf(Conf, level=Ctx.HTTP):
    """The Python files of the http block. `blocking_limit` in seconds, 0: the event loop is not watched."""

    paths: list[str] = directive("py_path", Ctx.HTTP, "1", lambda call: call.path(call.args[0]), many=True)
    imports: list[Import] = directive("py_import", Ctx.HTTP, "1|3", _import, many=True)
    blocking_limit: float = directive("py_blocking_limit", Ctx.HTTP, "1", slots.msec, default=0.1)

    modules: "dict[str, ModuleType]"

    def finish(self, scope: "Scope") -> None:
        self.modules = {}
        folders = self.paths or [scope.config.prefix]
        if self.imports:
            imports.renew(folders)
        for each in self.imports:
            if each.name in self.modules:
                raise each.call.error_at(f'a module named "{each.name}" has been imported already')
            self.modules[each.name] = load(each.call, _find(each, folders))
        if self.imports and self.blocking_limit:
            scope.config.http.starters.append(self._watch)

    def _watch(self, worker: "HttpWorker") -> None:
        Watch(worker.loop, worker.log, self.blocking_limit).start()


def _find(each: Import, folders: list[str]) -> str:
    for folder in folders:
        path = os.path.join(folder, each.file)
        if os.path.exists(path):
            return path
    raise each.call.error_at(f'"{each.file}" is not in {", ".join(folders)}')


class Function:
    """`name.fn` of the configuration; the function once the modules are loaded."""

    __slots__ = ("call", "fn", "known", "name", "wants_coroutine")

    def __init__(self, call: Call, name: str, wants_coroutine: bool) -> None:
        module, dot, fn = name.rpartition(".")
        if not dot or not module.isidentifier() or not fn.isidentifier():
            raise call.error_at(f'invalid function "{name}": it must be MODULE.FUNCTION')
        self.call = call
        self.name = name
        self.wants_coroutine = wants_coroutine
        self.fn: Callable[..., Any] = _not_bound
        self.known: Known = None  # type: ignore[assignment]  # set by bind()
        http = call.scope.above(Ctx.HTTP)
        http.node.finishers.append(lambda: self.bind(http))

    def bind(self, scope: "Scope") -> None:
        """Find the function. Raises ConfError."""
        module, _, name = self.name.rpartition(".")
        conf = scope.conf(ScriptConf)
        if module not in conf.modules:
            raise self.call.error_at(f'no module "{module}" has been imported: py_import is missing')
        fn = getattr(conf.modules[module], name, None)
        if not callable(fn):
            raise self.call.error_at(f'"{self.name}" is not a function of "{conf.modules[module].__file__}"')
        if inspect.isasyncgenfunction(fn) or _is_coroutine(fn) is not self.wants_coroutine:
            form = f'"async def {name}" without "yield"' if self.wants_coroutine else f'a plain "def {name}"'
            raise self.call.error_at(f'"{self.call.name}" takes {form}, "{self.name}" is none')
        assert scope.variables is not None
        self.fn = fn
        self.known = Known(scope.variables)

    def request(self, r: "http.Request") -> Request:
        """The request as Python sees it: the same object in all phases."""
        return r.kept(Request) or r.keep(Request(r, self.known))

    def ask(self, r: "http.Request", *arguments: object) -> Any:
        """Call a plain function. An exception is logged, and raised as Failed."""
        try:
            return self.fn(self.request(r), *arguments)
        except (Exception, SystemExit) as error:
            report.failed(r, self.name, error)
            raise Failed from None

    def data(self, r: "http.Request", *arguments: object) -> bytes:
        """As `ask`, for a function that returns text or bytes, or None for nothing."""
        out = self.ask(r, *arguments)
        try:
            return b"" if out is None else encode(out)
        except TypeError as error:
            report.failed(r, self.name, error)
            raise Failed from None

    async def run(self, r: "http.Request") -> Any:
        """Run a coroutine function in a task. An exception is logged, and raised as Failed."""
        script = self.request(r)
        session = Session(r)
        outer, script._session = script._session, session
        try:
            return await session.run(self.fn(script), lambda error: report.failed(r, self.name, error))
        except Exception as error:
            if not for_user(error):
                raise
            report.failed(r, self.name, error)
            raise Failed from None
        finally:
            script._session = outer
            script._abandoned = session.abandoned


def _is_coroutine(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or (not inspect.isroutine(fn) and inspect.iscoroutinefunction(fn.__call__))


class Failed(Exception):
    """User code has failed; the error log says how."""


def _not_bound(*_: object) -> Any:
    raise AssertionError("a function was used before the configuration was complete")


def _coroutine(call: Call) -> Function:
    return Function(call, call.args[0], wants_coroutine=True)


def _plain(call: Call) -> Function:
    return Function(call, call.args[0], wants_coroutine=False)


def _set(call: Call) -> None:
    """`py_set $NAME MODULE.FUNCTION`: asked when the variable is first wanted, once a request."""
    name = call.args[0]
    if not name.startswith("$"):
        raise call.error_at(f'invalid variable name "{name}"')
    function = Function(call, call.args[1], wants_coroutine=False)

    def get(r: "http.Request") -> bytes | None:
        try:
            value = function.ask(r)
        except Failed:
            return None
        return None if value is None else encode(value if isinstance(value, str | bytes) else str(value))

    assert call.scope.variables is not None
    try:
        call.scope.variables.define(name[1:], get)
    except ValueError as error:
        raise call.error_at(str(error)) from None


class PyConf(Conf, level=Ctx.LOCATION):
    """The Python handlers of a location."""

    content: Function | None = directive("py_content", _CONTENT, "1", _coroutine, inherit=False)
    access: Function | None = directive("py_access", HSL, "1", _coroutine)
    variables: list[None] = directive("py_set", HSL, "2", _set, many=True)
    header_filter: Function | None = directive("py_header_filter", HSL, "1", _plain)
    body_filter: Function | None = directive("py_body_filter", HSL, "1", _plain)
    log: Function | None = directive("py_log", HSL, "1", _plain)

    def attach(self, node: "Location") -> None:
        if self.content is not None and node.kind != "server":
            node.handler = Content(self.content)
        if self.access is not None:
            node.access += (Access(self.access),)
        if self.header_filter is not None or self.body_filter is not None:
            node.filters += (Filter(self.header_filter, self.body_filter),)
        if self.log is not None:
            node.access_logs += (Log(self.log),)


class Content:
    """py_content: the handler answers, or returns text, a status, or an internal redirect."""

    __slots__ = ("function",)

    def __init__(self, function: Function) -> None:
        self.function = function

    async def __call__(self, r: "http.Request") -> int:
        try:
            result = await self.function.run(r)
        except Failed:
            return 500
        if r.header_sent:
            return phases.DONE
        if isinstance(result, InternalRedirect):
            return int(result)
        if isinstance(result, str | bytes):
            return special.respond(r, 200, encode(result), _type(r))
        if isinstance(result, int) and 200 <= result <= 599:
            return result if result >= 300 else special.respond(r, result, b"", None)
        text = "gave no answer (is an await missing?)" if result is None else f"returned {result!r}, which is no answer"
        r.log(Level.ERROR, f'"{self.function.name}" {text}')
        return 500


def _type(r: "http.Request") -> bytes | None:
    from headgate.worker.http.types import content_type

    return content_type(r)


class Access:
    """py_access: None lets the request pass on, a status refuses it."""

    __slots__ = ("function",)

    def __init__(self, function: Function) -> None:
        self.function = function

    async def __call__(self, r: "http.Request") -> int | None:
        try:
            result = await self.function.run(r)
        except Failed:
            return 500
        if r.header_sent:
            return phases.DONE
        if result is None or isinstance(result, InternalRedirect):
            return result
        if isinstance(result, int) and 200 <= result <= 599:
            return phases.ALLOWED if result < 300 else result
        r.log(Level.ERROR, f'"{self.function.name}" returned {result!r}: None or a status is wanted')
        return 500


class Filter:
    """py_header_filter and py_body_filter of a location."""

    __slots__ = ("body", "head")

    def __init__(self, head: Function | None, body: Function | None) -> None:
        self.head = head
        self.body = body

    def __call__(self, r: "http.Request") -> None:
        if self.head is not None and not self.head.request(r)._filter_failed:
            try:
                self.head.ask(r)
            except Failed:
                self.head.request(r)._filter_failed = True  # the page that says so goes out as it is
                raise Replaced(500) from None
        if self.body is not None and r.status != 304 and r.status >= 200:
            r.content_length = None
            r.allow_ranges = NO_RANGES
            validators.drop_etag(r)
            validators.drop(r, b"accept-ranges", b"content-length")
            r.add_body_filter(PyBodyFilter(r, self.body))


class PyBodyFilter(BodyFilter):
    """py_body_filter: `fn(r, data, last) -> bytes`."""

    __slots__ = ("function",)

    def __init__(self, r: "http.Request", function: Function) -> None:
        super().__init__(r)
        self.function = function

    def __call__(self, data: bytes, last: bool) -> None:
        try:
            out = self.function.data(self.request, data, last)
        except Failed:  # the head has gone: the client must see that something is missing
            self.request.keepalive = False
            self.request.conn.abort()
            return
        if out or last:
            self.push(out, last)


class Log:
    """py_log: asked when the request has ended, beside the access logs."""

    __slots__ = ("function",)

    def __init__(self, function: Function) -> None:
        self.function = function

    def write(self, r: "http.Request") -> None:
        with contextlib.suppress(Failed):
            self.function.ask(r)
