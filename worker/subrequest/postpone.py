"""The output of a request and its subrequests, in order of creation, whichever finishes first.

Each request that has or is a subrequest has a `Part`: what of its output could not be sent yet, its subrequests among
it where they were started. One part of the tree has the turn: its bytes go to the client at once. When it has
ended the turn goes back to its parent, which sends what it had to keep up to its next subrequest, and so on (nginx:
ngx_http_postpone_filter_module, where the turn is called c->data). A part that is not at its turn keeps `LIMIT` bytes,
then whoever feeds it has to wait in `Request.drain`.

Not every part has a place in the output: one may be kept in memory, another's body be of no interest. What has to
run later is left to the event loop's queue, first come, first served: nothing here recurses, however many
subrequests there are.
"""

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level
from headgate.worker.http import output
from headgate.worker.http.filters import HELD_ORDER
from headgate.worker.http.request import CHILD, DRAIN, Interrupted

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

LIMIT = 65536  # bytes of output that a part keeps before its source has to wait
MAX_DEPTH = 51  # subrequests inside each other; the last one may have none itself
MAX_PARTS = 65535 - 1000  # of one tree at a time

Done = Callable[["Request", int], int]  # (subrequest, 0 or the status it broke off with) -> what stands of that


class Output(enum.Enum):
    """Where the body goes: to the client in order, into `Part.chunks`, or nowhere."""

    ORDERED, MEMORY, DROPPED = range(3)


class Part:
    """One request's place among subrequests."""

    __slots__ = (
        "background", "chunks", "depth", "done", "ended", "finalize", "in_background", "items", "keeps_errors", "live",
        "output", "parent", "rc", "request", "size", "started", "tree", "wrote",
    )  # fmt: skip

    def __init__(self, request: "Request", parent: "Part | None", tree: "Tree", kind: Output) -> None:
        self.request = request
        self.parent = parent
        self.tree = tree
        self.output = kind
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.items: deque[bytes | Part] = deque()  # what waits for its turn, or for a part before it
        self.size = 0  # bytes in `items`
        self.chunks: list[bytes] = []  # the body, when it is kept in memory
        self.live = 0  # subrequests of this one that have not ended; those in the background are the tree's
        self.background = False
        self.in_background = False  # this one, or what it is a subrequest of
        self.keeps_errors = False  # the body that is kept in memory may be that of an upstream server's error
        self.started = False
        self.ended = False
        self.wrote = False  # some output came
        self.rc = 0
        self.done: Done | None = None
        self.finalize: Done | None = None

    # -- output ----------------------------------------------------------------------------------

    @property
    def in_order(self) -> bool:
        return self.output is Output.ORDERED

    def head_made(self) -> None:
        """The head of this request's response is decided. Raises Interrupted when the body will be too big."""
        r = self.request
        if self.parent is None:
            self.tree.advance()
            return
        failed = r.status >= 300 and r.upstream is not None and not self.keeps_errors
        if self.output is Output.DROPPED or r.method == b"HEAD" or (self.output is Output.MEMORY and failed):
            r.header_only = True
        elif self.output is Output.MEMORY and (r.content_length or 0) > r.location.core.subrequest_output_buffer_size:
            r.log(Level.ERROR, f"too big subrequest response: {r.content_length}")
            raise Interrupted(500)

    def write(self, data: bytes, last: bool) -> None:
        """Take what is left of the body after the request's own filters."""
        if self.request.header_only:
            data = b""
        if data:
            self.wrote = True
        if self.output is Output.ORDERED:
            tree = self.tree
            if tree.turn is self and not self.items and tree.main.request.header_sent:
                if self is tree.main:
                    output.write(self.request, data, last)
                elif data:
                    output.write(tree.main.request, data, False)
                return
            if data:
                self.items.append(data)
                self.size += len(data)
                if self.size > LIMIT:
                    self.request.held |= HELD_ORDER
            if last and self is tree.main:
                tree.last = True
        elif self.output is Output.MEMORY and data:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        r = self.request
        self.size += len(data)
        if self.size > r.location.core.subrequest_output_buffer_size:
            r.log(Level.ERROR, "too big subrequest response")
            raise Interrupted(500)
        self.chunks.append(data)

    def released(self) -> None:
        """Nothing is kept back here any more: who feeds this part may go on."""
        r = self.request
        if r.held & HELD_ORDER:
            r.held &= ~HELD_ORDER
            r.post(DRAIN)

    # -- the end ---------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until all subrequests of this one have ended, and for the main request those in the background."""
        r = self.request
        while self.live or (self.parent is None and self.tree.background):
            await r.wait(CHILD)

    async def abandon(self) -> None:
        """The main request cannot go on: end what belongs to it; what runs in the background may finish."""
        self.tree.cancel()
        while self.tree.background:
            try:
                await self.request.wait(CHILD)
            except Interrupted:  # it knows
                continue

    def cancel(self) -> None:
        """End this subrequest now, with 499."""
        r = self.request
        if self.ended:
            return
        if not self.started:
            self.started = True
            self.rc = 499
            r.finish()
        else:
            r.interrupt(Interrupted(499))

    def end(self) -> None:
        """The subrequest has ended, in whatever way; called once, by Request.finish."""
        tree = self.tree
        parent = self.parent
        assert parent is not None
        self.ended = True
        tree.parts.pop(self, None)
        rc = self.rc
        if self.done is not None:
            rc = self.done(self.request, rc)
        if rc and not self.background and not tree.cancelled:
            tree.main.request.conn.abort()  # what is missing must be seen
        if self.background:
            tree.background -= 1
            tree.main.request.wake(CHILD)
        else:
            parent.live -= 1
            tree.advance()
            parent.request.wake(CHILD)


class Tree:
    """A main request and its subrequests."""

    __slots__ = ("background", "cancelled", "last", "main", "parts", "turn")

    def __init__(self, request: "Request") -> None:
        self.main = self.turn = Part(request, None, self, Output.ORDERED)
        self.parts: dict[Part, None] = {}  # the subrequests that have not ended, oldest first
        self.background = 0  # how many of them run in the background
        self.cancelled = False
        self.last = False  # the main request's own body is complete
        request.part = self.main

    def add(self, request: "Request", parent: Part, kind: Output, background: bool) -> Part:
        """A new subrequest of `parent`; what is in nobody's output cannot have a place in it either."""
        if parent.output is not Output.ORDERED and kind is Output.ORDERED:
            kind = Output.DROPPED
        request.part = part = Part(request, parent, self, kind)
        self.parts[part] = None
        part.background = background
        part.in_background = background or parent.in_background
        if background:
            self.background += 1
            return part
        parent.live += 1
        if kind is Output.ORDERED:
            if self.turn is parent and not parent.items:
                self.turn = part
            else:
                parent.items.append(part)
        return part

    def advance(self) -> None:
        """Send what may be sent, and give the turn to whoever is next."""
        main = self.main.request
        part = self.turn
        if not main.header_sent:
            return
        while True:
            if part.items:
                item = part.items.popleft()
                if isinstance(item, Part):
                    part = item
                else:
                    part.size -= len(item)
                    output.write(main, item, False)
                continue
            part.released()
            if part.parent is None or not part.ended:
                break
            part = part.parent
        self.turn = part
        if part is self.main and self.last:
            self.last = False
            output.write(main, b"", True)

    def drained(self) -> None:
        """The client takes bytes again."""
        for part in list(self.parts):
            part.request.wake(DRAIN)

    def cancel(self) -> None:
        """End all subrequests but those in the background and what belongs to these."""
        self.cancelled = True
        for part in list(self.parts):
            if not part.in_background:
                part.cancel()
