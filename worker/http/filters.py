"""Body filters: what stands between whoever answers and the client.

A header filter decides that a response needs one and hangs it into the request (`Request.add_body_filter`); when
the head is made the filters are linked, in the order in which they were added. That order is the order of the header
filters in conf/modules.py, which is nginx's. A response that needs none has no chain at all.

A filter is called with what comes next of the body and hands on what it makes of it with `push`: as often as it
likes, with nothing at all, or later. It may start a subrequest between two pushes: the subrequest's output stands
between them then. Whoever keeps input back because it waits for something sets `HELD_FILTER` in `request.held`, so
that no more of it is made meanwhile; it owes a `push` with `last` once it was given one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

Push = Callable[[bytes, bool], None]  # body bytes, and whether they are the last

# Request.held: why its output has to wait, whatever the client does
HELD_ORDER, HELD_FILTER = 1, 2


class BodyFilter(ABC):
    """One response's body filter."""

    __slots__ = ("push", "request")

    push: Push  # what comes next, from when the head is made

    def __init__(self, request: "Request") -> None:
        self.request = request

    @abstractmethod
    def __call__(self, data: bytes, last: bool) -> None:
        """What comes next of the body; `last`: that was all."""


def link(filters: list[BodyFilter], end: Push) -> None:
    """Make each filter push to the next one, and the last one to `end`."""
    push = end
    for each in reversed(filters):
        each.push = push
        push = each
