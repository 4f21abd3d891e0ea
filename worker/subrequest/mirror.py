"""`mirror`: a copy of each request goes to other locations too; what they answer is of no interest (nginx: mirror).

The client's response does not wait for the copies, but its connection does: the next request on it comes after them.
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import fsencode
from headgate.worker.http.conf import Location
from headgate.worker.subrequest.subrequest import SubrequestError, subrequest

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request


def _mirror(call: Call) -> bytes | None:
    old = vars(call.conf(MirrorConf)).get("uris", [])
    off = call.args[0] == "off"
    if old and (off or None in old):
        raise call.error("is duplicate")
    return None if off else fsencode(call.args[0])


class MirrorConf(Conf, level=Ctx.LOCATION):
    """Where copies go."""

    uris: list[bytes | None] = directive("mirror", HSL, "1", _mirror, many=True)
    request_body: bool = directive("mirror_request_body", HSL, "flag", slots.flag, default=True)
    targets: list[bytes]

    def finish(self, scope: "Scope") -> None:
        self.targets = [uri for uri in self.uris if uri is not None]

    def attach(self, node: Location) -> None:
        if self.targets:
            node.precontent += (mirror,)


async def mirror(r: "Request") -> int | None:
    """The handler of the precontent phase."""
    if r.parent is not None:
        return None
    conf = r.location.get(MirrorConf)
    if conf.request_body and r.body is not None:
        await r.body.read()
    for uri in conf.targets:
        try:
            subrequest(r, uri, r.args, background=True, method=r.method, headers=r.headers, pass_body=conf.request_body)
        except SubrequestError:
            return 500
    return None
