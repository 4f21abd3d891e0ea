"""`set`, `return`, `rewrite`, `break`, `if`: one list of rules a scope, run in the order they were written.

A rule is called with the request. None goes on to the next one, STOP ends the list, anything else ends
the phase with that result. `if` in a location is a location of its own that inherits everything and
becomes the request's when its condition holds; the rules in it belong to the list around it (nginx:
ngx_http_rewrite_module, ngx_http_script).
"""

import os
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, Conf, Ctx, block, command, directive
from headgate.conf.template import Getter, Template
from headgate.masterd.logfile import Level
from headgate.worker.http import phases, special, types
from headgate.worker.http.condition import Match, Test, capture, condition, quoted, template
from headgate.worker.http.conf import Location, Rule, Server
from headgate.worker.http.directives import regex as compile_regex
from headgate.worker.http.regex import Regex
from headgate.worker.http.uri import unescape_redirect

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_PLACES = Ctx.SERVER | Ctx.SERVER_IF | Ctx.LOCATION | Ctx.LOCATION_IF
_LINKS = ("http://", "https://", "$scheme")  # a replacement that starts so is a redirect
_REDIRECTS = (301, 302, 303, 307, 308)


class RewriteConf(Conf, level=Ctx.LOCATION):
    """What the rules of a location write to the error log."""

    log: bool = directive("rewrite_log", Ctx.HTTP | _PLACES, "flag", slots.flag, default=False)
    warn: bool = directive("uninitialized_variable_warn", Ctx.HTTP | _PLACES, "flag", slots.flag, default=True)

    def attach(self, node: Location) -> None:
        _set_log(node.rewrite, self.log)


def _set_log(rules: tuple[Rule, ...], log: bool) -> None:
    """The rules inside `if` log as the location around it says: it is attached last."""
    for rule in rules:
        if isinstance(rule, Rewrite):
            rule.log = log
        elif isinstance(rule, If):
            if isinstance(rule.test, Match):
                rule.test.log = log
            _set_log(rule.node.rewrite, log)


def _place(call: Call) -> Location:
    """The location whose list a directive here belongs to."""
    node = call.scope.node
    place: Location = node.location if isinstance(node, Server) else node
    return place


# -- set, return, break --------------------------------------------------------------------------


class Set:
    """Give a variable a value."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Template) -> None:
        self.name = name
        self.value = value

    def __call__(self, r: "Request") -> None:
        r.vars[self.name] = self.value.get(r)


def _uninitialized(name: str) -> Getter:
    def get(r: "Request") -> bytes:
        if r.location.get(RewriteConf).warn:
            r.log(Level.WARN, f'using uninitialized "{name}" variable')
        return b""

    return get


@command("set", _PLACES, "2")
def set_(call: Call) -> None:
    """`set $NAME VALUE`."""
    name, value = call.args
    if not name.startswith("$"):
        raise call.error_at(f'invalid variable name "{name}"')
    key = name[1:].lower()
    variables = call.scope.variables
    assert variables is not None
    try:
        # where it is not set, $http_x is still the field
        variable = variables.define(name[1:], variables.prefixed(key) or _uninitialized(key))
    except ValueError as error:
        raise call.error_at(str(error)) from None
    text = template(call, value)
    setter = variable.set
    rule: Rule = Set(key, text) if setter is None else lambda r: setter(r, text.get(r))
    _place(call).rewrite += (rule,)


class Return:
    """Answer with a status, and a text or the place to go to."""

    __slots__ = ("status", "text")

    def __init__(self, status: int, text: Template | None) -> None:
        self.status = status
        self.text = text

    def __call__(self, r: "Request") -> int:
        status, text = self.status, self.text
        if status >= 400 and text is None:
            return status
        r.status = status
        body = text.get(r) if text is not None else b""
        if status in _REDIRECTS:
            r.location_field = body
            return status
        return special.respond(r, status, body, r.content_type or types.content_type(r))


@command("return", _PLACES, "1|2")
def return_(call: Call) -> None:
    """`return CODE [TEXT|URL]` or `return URL`."""
    first, text = call.args[0], call.args[-1]
    if first.isascii() and first.isdigit():
        status = int(first)
        if len(call.args) == 1:
            text = ""
    elif len(call.args) == 1 and first.startswith(_LINKS):
        status = 302
    else:
        status = -1
    if not 0 <= status <= 999:
        raise call.error_at(f'invalid return code "{first}"')
    _place(call).rewrite += (Return(status, call.template(text) if text else None),)


def _break(r: "Request") -> int:
    if r.uri_changed:
        r.valid_location = False
        r.uri_changed = False
    return phases.STOP


@command("break", _PLACES, "0")
def break_(call: Call) -> None:
    """End the rules of this phase."""
    _place(call).rewrite += (_break,)


# -- rewrite -------------------------------------------------------------------------------------


class Rewrite:
    """Give a URI that matches another form: a new URI and arguments, or a redirect.

    `path` is the new URI, `args` its arguments when it names some; `add_args` keeps the request's own.
    """

    __slots__ = ("add_args", "args", "breaks", "log", "path", "regex", "stops")

    def __init__(self, regex: Regex, path: Template, args: Template | None, add_args: bool, flag: str) -> None:
        self.regex = regex
        self.path = path
        self.args = args
        self.add_args = add_args
        self.breaks = flag == "break"
        self.stops = bool(flag)
        self.log = False

    def match(self, r: "Request") -> bool:
        """Match the request's URI; without a match there are no captures either."""
        return self.regex.test(r, r.uri, self.log)

    def __call__(self, r: "Request") -> int | None:
        if not self.match(r):
            return None
        r.internal = True
        r.valid_uri = False
        if self.breaks:
            r.valid_location = False
            r.uri_changed = False
        else:
            r.uri_changed = True
        uri = self.path.get(r)
        if self.args is not None:
            args = self.args.get(r)
            r.args = args + b"&" + r.args if self.add_args and r.args else args
        elif not self.add_args:
            r.args = b""
        if self.log:
            r.log(Level.NOTICE, f'rewritten data: "{os.fsdecode(uri)}", args: "{os.fsdecode(r.args)}"')
        if not uri:
            r.log(Level.ERROR, "the rewritten URI has a zero length")
            return 500
        r.uri = uri
        return phases.STOP if self.stops else None


class Redirect(Rewrite):
    """A `rewrite` that answers with 301 or 302."""

    __slots__ = ("mark", "status")

    def __init__(self, regex: Regex, target: Template, add_args: bool, status: int) -> None:
        super().__init__(regex, target, None, add_args, "redirect")
        self.status = status
        self.mark = b"&" if any(b"?" in part for part in target.parts if isinstance(part, bytes)) else b"?"

    def __call__(self, r: "Request") -> int | None:
        if not self.match(r):
            return None
        target = unescape_redirect(self.path.get(r))
        if self.add_args and r.args:
            target += self.mark + r.args
        if self.log:
            r.log(Level.NOTICE, f'rewritten redirect: "{os.fsdecode(target)}"')
        r.location_field = target
        return self.status


_FLAGS = {"last": 0, "break": 0, "redirect": 302, "permanent": 301}


@command("rewrite", _PLACES, "2|3")
def rewrite(call: Call) -> None:
    """`rewrite REGEX REPLACEMENT [last|break|redirect|permanent]`."""
    pattern, text, *flags = call.args
    if not text:
        raise call.error_at("empty replacement")
    regex = compile_regex(call, pattern)
    add_args = not text.endswith("?")  # the last "?" drops the request's arguments
    text = text.removesuffix("?")
    flag = flags[0] if flags else ""
    if flags and flag not in _FLAGS:
        raise call.error_at(f'invalid parameter "{flag}"')
    status = _FLAGS.get(flag) or (302 if text.startswith(_LINKS) else 0)
    rule: Rewrite
    if status:
        rule = Redirect(regex, template(call, text, quoted), add_args, status)
    else:
        path, mark, args = text.partition("?")
        path_template = template(call, path, capture)
        rule = Rewrite(regex, path_template, template(call, args, quoted) if mark else None, add_args, flag)
    _place(call).rewrite += (rule,)


# -- if ------------------------------------------------------------------------------------------


class If:
    """The rules of an `if` block, and its location when it stands in one."""

    __slots__ = ("node", "switch", "test")

    def __init__(self, test: Test, node: Location, switch: bool) -> None:
        self.test = test
        self.node = node
        self.switch = switch

    def __call__(self, r: "Request") -> int | None:
        if not self.test(r):
            return None
        if self.switch:
            if r.location.kind == "if" and r.location.handler is not None and self.node.handler is None:
                # nginx keeps the handler of the `if` before and no longer has what it needs
                r.log(Level.ALERT, "no upstream configuration")
                return 500
            r.location = self.node
        for rule in self.node.rewrite:
            rc = rule(r)
            if rc is not None:
                return rc
        return None


@block("if", Ctx.SERVER | Ctx.LOCATION, "1+")
def if_(call: Call) -> None:
    """`if (CONDITION) { ... }`."""
    place = _place(call)
    in_server = call.scope.ctx is Ctx.SERVER
    node = Location("if", place.name, place.text, place.server)
    place.rewrite += (If(condition(call), node, not in_server),)
    call.build(Ctx.SERVER_IF if in_server else Ctx.LOCATION_IF, node)
