"""[4] The phases of a request, in nginx's order, and the coroutine that runs them.

server rewrite -> find location -> rewrite -> preaccess -> access -> precontent -> content -> (log, in
Request.finish). A handler declines with None, or ends the request with DONE (answered) or a status; a
status becomes an error page, which may be an internal redirect and start over.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from headgate.masterd.logfile import Level
from headgate.worker.http import special
from headgate.worker.http.conf import Handler, Rule
from headgate.worker.http.head import BadRequest
from headgate.worker.http.location import REDIRECT as NAME_WITH_SLASH
from headgate.worker.http.regex import RegexError
from headgate.worker.http.request import Interrupted, Replaced, Request
from headgate.worker.http.uri import escape_uri

DONE: Final = 0  # the response is complete
REDIRECT: Final = -1  # r.redirect() was called: start over with the new URI
NAMED: Final = -2  # r.location is a named location: go on with its rewrite phase
STOP: Final = -3  # of a rewrite rule: the rest of the rules is left out
CONTENT: Final = -4  # r.location is known and its access granted: go on with the content phase
ALLOWED: Final = -5  # of an access handler: the request may come in


_CHALLENGES = (b"www-authenticate", b"proxy-authenticate")


async def run(r: Request, status: int | None = None) -> None:
    """Serve one request to its end. `status`: it could not be read, answer with this."""
    try:
        await serve(r, status if status is not None else REDIRECT)
        if r.part is not None:
            await r.part.settle()
        if r.conn.paused:  # the next pipelined request waits until the client has taken this answer
            await r.drain()
    except Interrupted as stop:
        r.status = r.status if r.header_sent else stop.status
        r.keepalive = False
        r.conn.abort(late=stop.status == 408)
    if r.part is not None and r.conn.lost:
        await r.part.abandon()
    if r.location.post_action is not None:
        await _post_action(r)


async def _post_action(r: Request) -> None:
    """Once the client has its response, the request goes to another location, whose answer nobody sees."""
    r.post_action = r.header_sent = r.header_only = True
    target = r.location.post_action
    while target is not None:
        r.body_filters = None
        rc = special.to_named(r, target) if target.startswith(b"@") else internal_redirect(r, target, b"")
        if rc >= 0:
            return
        try:
            await serve(r, rc, lambda r, rc: DONE)
            if r.part is not None:
                await r.part.settle()
        except Interrupted:
            return
        target = r.location.post_action


async def serve(r: Request, rc: int, judge: Callable[[Request, int], int] | None = None) -> None:
    """Run the phases from where `rc` says until the response is made.

    `judge` hears what the phases end with, DONE or a status, and says what stands of it.
    """
    while True:
        try:
            if rc < 0:
                rc = await _phases(r, rc)
            if judge is not None and rc >= 0:
                rc = judge(r, rc)
            if rc == DONE:
                return
            if rc > 0:
                rc = special.answer(r, rc)
                if rc.__class__ is not int:
                    rc = await rc  # type: ignore[misc]
                if rc == DONE:
                    return
        except Replaced as other:
            rc = other.status
            r.err_status = 0
            r.body_filters = None
            r.fields = [field for field in r.fields if field[0] == b"Content-Range"]  # that of a 416


async def _phases(r: Request, start: int) -> int:
    """Run the phases from the server's rewrites (REDIRECT) or a named location's (NAMED) on."""
    try:
        while start != CONTENT:
            if start == REDIRECT:
                r.location = r.server.location
                rc = _rewrite(r, r.location.rewrite)
                if rc is not None:
                    return rc
            if start != NAMED:
                rc = find_location(r)
                if rc is not None:
                    return rc
            location = r.location
            r.uri_changed = False
            if location.rewrite and location.kind != "server":
                rc = _rewrite(r, location.rewrite)
                if rc is not None:
                    return rc
                if r.uri_changed:
                    rc = count_change(r)
                    if rc is not None:
                        return rc
                    start = 0  # look for a location again, without the server's rewrites
                    continue
                location = r.location
            if location.preaccess:
                rc = await _chain(r, location.preaccess)
                if rc is not None:
                    return rc
            if location.access and r.parent is None:
                rc = await _access(r, location.access)
                if rc is not None:
                    return rc
            if location.precontent:
                rc = await _chain(r, location.precontent)
                if rc is not None:
                    return rc
            break
        handler = r.location.handler
        if handler is None:
            rc = await _chain(r, r.location.content)
        else:
            result = handler(r)
            rc = result if result is None or isinstance(result, int) else await result
        return special.no_content(r) if rc is None else rc
    except RegexError as error:
        r.log(Level.ALERT, str(error))
        return 500
    except BadRequest as error:  # a body that cannot be read
        if error.reason:
            r.log(Level.ERROR, error.reason)
        return error.status


def _rewrite(r: Request, rules: tuple[Rule, ...]) -> int | None:
    for rule in rules:
        rc = rule(r)
        if rc is not None:
            return None if rc == STOP else rc
    return None


async def _chain(r: Request, handlers: tuple[Handler, ...]) -> int | None:
    for handler in handlers:
        result = handler(r)
        rc = result if result is None or isinstance(result, int) else await result
        if rc is not None:
            return rc
    return None


async def _access(r: Request, handlers: tuple[Handler, ...]) -> int | None:
    """Ask who may refuse a request: all must allow it, or (`satisfy any`) one; who declines has no say."""
    core = r.location.core
    refused: int | None = None
    for handler in handlers:
        result = handler(r)
        rc = result if result is None or isinstance(result, int) else await result
        if rc is None or (rc == ALLOWED and not core.satisfy_any):
            continue
        if not core.satisfy_any:
            refused = rc
            break
        if rc == ALLOWED:
            r.fields = [field for field in r.fields if field[0].lower() not in _CHALLENGES]
            return None
        if rc not in (401, 403, 407):
            return rc
        if refused in (None, 403):
            refused = rc
    else:
        if refused == 403:
            r.log(Level.ERROR, "access forbidden by rule")
    if refused in (401, 407) and core.auth_delay:
        r.log(Level.INFO, "delaying unauthorized request")
        await asyncio.sleep(core.auth_delay)
    return refused


def count_change(r: Request, doing: str = "processing", what: bytes | None = None) -> int | None:
    """One more internal redirect; 500 when it goes round in circles."""
    r.uri_changes -= 1
    if r.uri_changes > 0:
        return None
    text = (r.uri if what is None else what).decode("utf-8", "replace")
    r.log(Level.ERROR, f'rewrite or internal redirection cycle while {doing} "{text}"')
    return 500


def internal_redirect(r: Request, uri: bytes, args: bytes) -> int:
    """Start over with another URI (index, try_files): REDIRECT, or 500 when it goes round in circles."""
    rc = count_change(r, "internally redirecting to", uri)
    if rc is not None:
        return rc
    r.redirect(uri, args)
    return REDIRECT


def find_location(r: Request) -> int | None:
    """[5] Set r.location for r.uri, or return the status to answer with."""
    server = r.server.location
    r.location = server
    tree = server.tree
    redirect = b""
    if tree is not None:
        found, how = tree.find(r.uri, r.matched)
        if found is not None:
            r.location = found
            if how == NAME_WITH_SLASH:
                redirect = escape_uri(found.name)
    limit = r.location.limit
    if limit is not None and r.method not in limit[0]:
        r.location = limit[1]
    location = r.location
    if location.internal and not r.internal:
        return 404
    length = r.head.content_length
    if length is not None and 0 < location.client_max_body_size < length and r.parent is None and not r.body_begun:
        r.log(Level.ERROR, f"client intended to send too large body: {length} bytes")
        r.head.expect = False  # no 100 Continue for a body that will not be read
        return 413
    if redirect:
        r.clear_response()
        r.location_field = redirect + (b"?" + r.args if r.args else b"")
        return 301
    return None
