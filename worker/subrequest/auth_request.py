"""`auth_request`, `auth_request_set`: another location says whether a request is let in (nginx: auth_request).

A status from 200 to 299 lets it in, 401 and 403 are the answer, anything else is a failure.
"""

from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Getter, Setter, Template, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.http import phases
from headgate.worker.http.conf import Location
from headgate.worker.http.request import CHILD
from headgate.worker.subrequest.subrequest import SubrequestError, subrequest

if TYPE_CHECKING:
    from headgate.worker.http.llhttp import Header
    from headgate.worker.http.request import Request


class Variable:
    """One `auth_request_set`."""

    __slots__ = ("name", "set", "value")

    def __init__(self, name: str, value: Template, set: Setter | None) -> None:
        self.name = name
        self.value = value
        self.set = set


def _not_found(name: str) -> Getter:
    return lambda r: None


def _set(call: Call) -> Variable:
    name, text = call.args
    if not name.startswith("$"):
        raise call.error_at(f'invalid variable name "{name}"')
    variables = call.scope.variables
    assert variables is not None
    try:
        variable = variables.define(name[1:], _not_found(name))
    except ValueError as error:
        raise call.error_at(str(error)) from None
    return Variable(name[1:].lower(), call.template(text), variable.set)


class AuthRequestConf(Conf, level=Ctx.LOCATION):
    """Who is asked; empty: nobody."""

    uri: bytes = directive(
        "auth_request", HSL, "1", lambda call: b"" if call.args[0] == "off" else fsencode(call.args[0]), default=b""
    )
    variables: list[Variable] = directive("auth_request_set", HSL, "2", _set, many=True)

    def attach(self, node: Location) -> None:
        if self.uri:
            node.access += (auth_request,)


class _Verdict:
    """What came of the subrequest."""

    __slots__ = ("asks", "done", "status", "values")

    def __init__(self) -> None:
        self.done = False
        self.status = 0
        self.asks: list[Header] = []
        self.values: list[bytes] = []


async def auth_request(r: "Request") -> int | None:
    """The access handler."""
    conf = r.location.get(AuthRequestConf)
    verdict = _Verdict()

    def done(sr: "Request", rc: int) -> int:
        verdict.done = True
        verdict.status = sr.status
        verdict.asks = _asks(sr)
        verdict.values = [each.value.get(sr) for each in conf.variables]  # $upstream_* are the subrequest's
        return rc

    try:
        subrequest(r, conf.uri, header_only=True, pass_body=False, done=done)
    except SubrequestError:
        return 500
    while not verdict.done:
        await r.wait(CHILD)
    for each, value in zip(conf.variables, verdict.values, strict=True):
        if each.set is not None:
            each.set(r, value)
        else:
            r.vars[each.name] = value
    status = verdict.status
    if 200 <= status < 300:
        return phases.ALLOWED
    if status == 401:
        r.fields += verdict.asks
    if status in (401, 403):
        return status
    r.log(Level.ERROR, f"auth request unexpected status: {status}")
    return 500


def _asks(sr: "Request") -> "list[Header]":
    """The challenges; an upstream server's even where they are hidden or an error page took their place."""
    found = [field for field in sr.fields if field[0].lower() == b"www-authenticate"]
    head = sr.upstream.head if sr.upstream is not None else None
    if not found and head is not None:
        found = [field for field in head.fields if field[0].lower() == b"www-authenticate"]
    return found
