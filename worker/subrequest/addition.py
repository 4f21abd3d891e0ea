"""`add_before_body`, `add_after_body`: other locations' answers around a response (nginx: addition filter)."""

from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import fsencode
from headgate.worker.http import mime, validators
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.mime import Types
from headgate.worker.subrequest.subrequest import SubrequestError, subrequest

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request


def _uri(call: Call) -> bytes:
    return fsencode(call.args[0])


class AdditionConf(Conf, level=Ctx.LOCATION):
    """The URIs whose answers are added; empty: none."""

    before: bytes = directive("add_before_body", HSL, "1", _uri, default=b"")
    after: bytes = directive("add_after_body", HSL, "1", _uri, default=b"")
    type_lines: list[list[bytes]] = directive("addition_types", HSL, "1+", mime.words, many=True)
    types: Types

    def finish(self, scope: "Scope") -> None:
        self.types = mime.types(self.type_lines)

    def attach(self, node: Location) -> None:
        if self.before or self.after:
            node.filters += (addition_filter,)


def addition_filter(r: "Request") -> None:
    """The header filter."""
    if r.status != 200 or r.parent is not None:
        return
    conf = r.location.get(AdditionConf)
    if mime.matches(r, conf.types):
        mime.body_changes(r)
        r.postpone = r.location.core.postpone_output
        validators.weaken_etag(r)
        r.add_body_filter(_Addition(r, conf))


class _Addition(BodyFilter):
    """Puts subrequests before the first and after the last of the body."""

    __slots__ = ("after", "before")

    def __init__(self, r: "Request", conf: AdditionConf) -> None:
        super().__init__(r)
        self.before = conf.before
        self.after = conf.after

    def __call__(self, data: bytes, last: bool) -> None:
        if self.before:
            before, self.before = self.before, b""
            self._include(before)
        if not (last and self.after):
            self.push(data, last)
            return
        if data:
            self.push(data, False)
        self._include(self.after)
        self.push(b"", True)

    def _include(self, uri: bytes) -> None:
        try:
            subrequest(self.request, uri)
        except SubrequestError:  # the page cannot be made whole
            self.request.keepalive = False
            self.request.conn.abort()
