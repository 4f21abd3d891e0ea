"""`add_trailer`: fields behind the body, worked out when the body is complete.

They need the chunked coding, so this filter comes after the one that answers ranges, which wants to know
the length.
"""

from typing import TYPE_CHECKING

from headgate.conf.directive import Conf, Ctx, directive
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.head import HTTP_11
from headgate.worker.http.headers import CONTEXTS, INHERIT, SAFE, C, Line, inherit, line

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


class TrailersConf(Conf, level=Ctx.LOCATION):
    """Trailer fields of a location's responses."""

    add_trailer: list[Line] = directive("add_trailer", CONTEXTS, "2|3", line, many=True)
    add_trailer_inherit: str = directive("add_trailer_inherit", CONTEXTS, "1", INHERIT, default="on")

    @classmethod
    def merge(cls: type[C], parent: C | None, own: C | None, noname: bool = False) -> C:
        return inherit(cls, parent, own, super().merge(parent, own, noname), "add_trailer")

    def attach(self, node: Location) -> None:
        if self.add_trailer:
            node.filters += (trailers_filter,)


def trailers_filter(r: "Request") -> None:
    """The header filter: choose the lines, and the chunked coding for them."""
    if r.parent is not None or r.method == b"HEAD" or r.status in (204, 304):
        return
    if r.version < HTTP_11 or not r.location.core.chunked_transfer_encoding:
        return
    safe = r.status in SAFE
    lines = [each for each in r.location.get(TrailersConf).add_trailer if safe or each.always]
    if not lines:
        return
    r.content_length = None
    r.add_body_filter(_Trailers(r, lines))


class _Trailers(BodyFilter):
    """Works the fields out at the end of the body."""

    __slots__ = ("lines",)

    def __init__(self, r: "Request", lines: list[Line]) -> None:
        super().__init__(r)
        self.lines = lines

    def __call__(self, data: bytes, last: bool) -> None:
        if last:
            r = self.request
            r.trailers = trailers = list(r.trailers or ())
            for each in self.lines:
                value = each.value.get(r)  # may name the trailers before it
                if value:
                    trailers.append((each.name, value))
        self.push(data, last)
