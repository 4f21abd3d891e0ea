"""Subrequests: a request that another one starts, served by the same phases and the same spine.

A subrequest is a `Request` with a parent. It inherits the parent's fields, body, variables, server and version, is a
GET and internal, and runs by a coroutine of its own as soon as the event loop gets to it. Its output stands where the
parent started it (`postpone.py`), or is kept in memory, or is of no interest. Conditions and ranges are about the main
request's response, so a subrequest has none of them. The main request ends when all of its subrequests have.

`subrequest` starts one and tells its end by callbacks, `fetch` gives its answer to whoever awaits it: a request's own
coroutine or any asyncio task.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from headgate.masterd.logfile import Level
from headgate.worker.http import output, phases
from headgate.worker.http.body import RequestBody
from headgate.worker.http.head import RequestHead
from headgate.worker.http.request import Interrupted, Request
from headgate.worker.subrequest.postpone import MAX_DEPTH, MAX_PARTS, Done, Output, Part, Tree

if TYPE_CHECKING:
    import asyncio
    from typing import Unpack

    from headgate.worker.http.llhttp import Header

# of the main request's response: a part of it is not to be left out or cut by them
_NOT_INHERITED = frozenset(
    (b"content-length", b"transfer-encoding", b"range", b"if-range", b"if-modified-since", b"if-unmodified-since",
     b"if-match", b"if-none-match")
)  # fmt: skip


class SubrequestError(Exception):
    """A subrequest cannot be started: why. The error log has said it too."""


def subrequest(
    r: Request,
    uri: bytes,
    args: bytes = b"",
    *,
    in_memory: bool = False,
    clone: bool = False,
    background: bool = False,
    header_only: bool = False,
    method: bytes = b"GET",
    headers: "list[Header] | None" = None,
    body: bytes | None = None,
    pass_body: bool = True,
    keep_errors: bool = False,
    finalize: Done | None = None,
    done: Done | None = None,
) -> Request:
    """Start a subrequest of `r` for a URI (decoded, as Request.uri is); it runs when the event loop comes to it.

    in_memory: the body is kept instead of sent, up to subrequest_output_buffer_size; `body_of` gives it. The body of
    an upstream server's answer from status 300 on is dropped unless `keep_errors`.
    clone: the same location as `r`, entered in the content phase, with `r`'s method.
    background: nothing of the response is sent, `r`'s response does not wait, and the client may leave.
    header_only: the body is dropped.
    headers: the fields instead of the inherited ones. body: instead of the inherited one; `pass_body=False`: none.
    finalize(sr, rc): called with what the phases end with, 0 or a status for which an error page would follow; what it
    returns stands. It may send output of its own.
    done(sr, rc): the end, called exactly once whatever happens. rc is 0, or the status with which it broke off (499:
    it was cancelled); what it returns stands: anything but 0 cuts the client's connection.

    Raises SubrequestError when subrequests go round in circles, for there is a limit to how deep they may stand in
    each other, or when `r` is over.
    """
    if r.done:
        raise SubrequestError("the request is over")
    loop = r.conn.worker.loop
    part = r.part
    if part is None:
        part = Tree(r).main
    _check(r, part, uri)
    sr = Request(r.conn, _head(r), r.server, loop.time())
    sr.parent = r
    sr.bytes_sent_before = r.bytes_sent_before
    sr.method = method
    sr.target = r.target
    sr.headers = _inherited(r) if headers is None else headers
    sr.host = r.host
    sr.uri = uri
    sr.args = args
    sr.vars = r.vars
    sr.internal = True
    sr.valid_uri = False
    start = phases.REDIRECT
    if clone:
        start = phases.CONTENT
        sr.method = r.method
        sr.location = r.location
        sr.valid_location = r.valid_location
        sr.valid_uri = r.valid_uri
        sr.captures = r.captures
    if body is not None:
        sr.body = RequestBody.of(sr, body)
    elif pass_body and r.body is not None and r.body.whole:
        sr.body = r.body
    kind = Output.MEMORY if in_memory else Output.DROPPED if header_only or background else Output.ORDERED
    new = part.tree.add(sr, part, kind, background)
    new.keeps_errors = keep_errors
    new.finalize = finalize
    new.done = done
    sr.client_gone_ok = new.in_background
    loop.call_soon(_start, sr, new, start)
    return sr


def _check(r: Request, part: Part, uri: bytes) -> None:
    text = uri.decode("utf-8", "replace")
    level = Level.ERROR
    if part.depth == MAX_DEPTH:
        problem = f'subrequests cycle while processing "{text}"'
    elif len(part.tree.parts) >= MAX_PARTS:
        level, problem = Level.CRIT, f'request reference counter overflow while processing "{text}"'
    elif part.output is Output.MEMORY:
        problem = f'nested in-memory subrequest "{text}"'
    elif part.tree.cancelled:
        raise SubrequestError("the request is over")
    else:
        return
    r.log(level, problem)
    raise SubrequestError(problem)


def _head(r: Request) -> RequestHead:
    """The client's own line stays; how its body is framed does not concern this one."""
    own = r.head
    head = RequestHead(own.raw, own.method, own.target, own.version, own.headers)
    head.host = own.host
    return head


def _inherited(r: Request) -> "list[Header]":
    return [field for field in r.headers if field[0].lower() not in _NOT_INHERITED]


def _start(sr: Request, part: Part, start: int) -> None:
    if not part.started:  # else it was cancelled before its turn came
        part.started = True
        sr.start(_run(sr, part, start))


async def _run(sr: Request, part: Part, start: int) -> None:
    try:
        await phases.serve(sr, start, part.finalize)
        await part.settle()
    except Interrupted as stop:
        part.rc = stop.status if stop.status >= 400 else 500


# -- for those who await -------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Reply:
    """A subrequest's answer. `rc` is 0, or the status with which it broke off; then body and headers are incomplete."""

    status: int
    headers: "list[Header]"
    body: bytes
    rc: int = 0

    def header(self, name: bytes) -> bytes | None:
        """The value of a field by its lower-case name; the first one when it is repeated."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class Options(TypedDict, total=False):
    """What `fetch` passes on to `subrequest`."""

    clone: bool
    background: bool
    header_only: bool
    method: bytes
    headers: "list[Header] | None"
    body: bytes | None
    pass_body: bool
    keep_errors: bool


async def fetch(r: Request, uri: bytes, args: bytes = b"", **options: "Unpack[Options]") -> Reply:
    """Start a subrequest whose body is kept in memory and wait for its answer.

    It can be awaited in a request's coroutine and in asyncio tasks, several at once with asyncio.gather. A subrequest
    that breaks off is a Reply with that `rc`. Raises SubrequestError; whoever stops waiting cancels it.
    """
    kept = not (options.get("background") or options.get("header_only"))
    return await _ask(r, uri, args, kept, options)


async def include(r: Request, uri: bytes, args: bytes = b"", **options: "Unpack[Options]") -> Reply:
    """As `fetch`, but the body goes to the client in its place; the Reply has none."""
    return await _ask(r, uri, args, False, options)


async def _ask(r: Request, uri: bytes, args: bytes, kept: bool, options: Options) -> Reply:
    future: asyncio.Future[Reply] = r.conn.worker.loop.create_future()

    def done(sr: Request, rc: int) -> int:
        if not future.done():
            future.set_result(_reply(sr, rc))
        return 0

    sr = subrequest(r, uri, args, in_memory=kept, done=done, **options)
    try:
        return await future
    except BaseException:  # the task was cancelled, or the main request is over
        if not options.get("background"):
            cancel(sr)
        raise


def _reply(sr: Request, rc: int) -> Reply:
    return Reply(rc or sr.status, response_fields(sr), body_of(sr), rc)


def cancel(sr: Request) -> None:
    """End a subrequest that nobody wants any more."""
    if sr.part is not None and sr.parent is not None:
        sr.part.cancel()


def body_of(sr: Request) -> bytes:
    """The body of an in-memory subrequest, for callbacks at its end."""
    return b"".join(sr.part.chunks) if sr.part is not None else b""


def response_fields(sr: Request) -> "list[Header]":
    """The response's fields as a client would see them, but for those about the connection."""
    out = list(sr.fields)
    if sr.content_type:
        out.append((b"Content-Type", sr.content_type))
    if sr.content_length is not None:
        out.append((b"Content-Length", b"%d" % sr.content_length))
    if sr.location_field is not None:
        out.append((b"Location", sr.location_field))
    if sr.last_modified is not None:
        out.append((b"Last-Modified", output.http_date(sr.last_modified)))
    if sr.etag is not None:
        out.append((b"ETag", sr.etag))
    return out
