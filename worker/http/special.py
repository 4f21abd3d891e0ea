"""Error pages and redirects: `error_page`, `return`'s bodies, nginx's built-in pages in headgate's name."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.masterd.logfile import Level
from headgate.worker.http import phases
from headgate.worker.http.output import REASONS, SERVER, status_text
from headgate.worker.http.static import map_path

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_LOCATION_IF = HSL | Ctx.LOCATION_IF
# pages whose text is not the status line's
_TITLES = {302: b"302 Found", 401: b"401 Authorization Required"}
_SILENT = (408, 444, 499)  # the connection is closed without a word
# after these nginx does not trust what else may come on the connection
_NO_KEEPALIVE = frozenset((400, 413, 414, 494, 495, 496, 497, 500, 501))
# codes that are only nginx's own: what the client is told, and the page's title where it differs
_OWN = {494: (400, "Request Header Or Cookie Too Large"), 495: (400, "The SSL certificate error"),
        496: (400, "No required SSL certificate was sent"),
        497: (400, "The plain HTTP request was sent to HTTPS port")}  # fmt: skip


@dataclass(slots=True, frozen=True)
class ErrorPage:
    """What to do for a status: `overwrite` None keeps it, 0 takes the page's own, else becomes the status."""

    page: Template
    overwrite: int | None


def _error_page(call: Call) -> dict[int, ErrorPage]:
    codes, page = call.args[:-1], call.args[-1]
    overwrite: int | None = None
    if codes and codes[-1].startswith("="):
        text = codes.pop()[1:]
        if text and not (text.isdigit() and len(text) == 3):
            raise call.error_at(f'invalid value "={text}"')
        overwrite = int(text) if text else 0
    if not codes:
        raise call.error_at(f'invalid number of arguments in "{call.name}" directive')
    out = {}
    for code in codes:
        if not code.isdigit():
            raise call.error_at(f'invalid value "{code}"')
        status = int(code)
        if status == 499:
            raise call.error_at(f'invalid value "{code}"')
        if not 300 <= status <= 599:
            raise call.error_at(f'value "{code}" must be between 300 and 599')
        forced = overwrite
        if forced is None and status in (494, 495, 496, 497):
            forced = 400
        out[status] = ErrorPage(call.template(page), forced)
    return out


class SpecialConf(Conf, level=Ctx.LOCATION):
    """Error pages of a location."""

    pages: list[dict[int, ErrorPage]] = directive("error_page", _LOCATION_IF, "2+", _error_page, many=True)
    recursive: bool = directive("recursive_error_pages", HSL, "flag", slots.flag, default=False)

    def page(self, status: int) -> ErrorPage | None:
        for pages in self.pages:  # the first that names the status
            if status in pages:
                return pages[status]
        return None


def answer(r: "Request", status: int) -> int:
    """Answer with `status`: an error page if there is one, else the built-in page. Returns DONE or a redirect.

    The fields that the answer has so far (a challenge, those of an X-Accel-Redirect) stay.
    """
    if status in _SILENT:
        r.status = status
        r.keepalive = False
        r.conn.abort(late=True)
        return phases.DONE
    if r.header_sent:  # too late for a page: the client must see that something is missing
        r.keepalive = False
        r.conn.abort()
        return phases.DONE
    conf = r.location.get(SpecialConf)
    if status in _NO_KEEPALIVE:
        r.keepalive = False
    if conf.pages and not r.error_page:
        r.error_page = not conf.recursive
        page = conf.page(status)
        if page is not None:
            return _to_page(r, status, page)
    return _builtin(r, status)


def _to_page(r: "Request", status: int, page: ErrorPage) -> int:
    r.err_status = status if page.overwrite is None else page.overwrite
    target = page.page.get(r)
    fields = r.fields
    if target.startswith(b"/"):
        rc = phases.count_change(r)
        if rc is not None:
            return _builtin(r, rc)
        path, _, args = target.partition(b"?")
        if r.method != b"HEAD":
            r.method = b"GET"
        location = r.location_field
        r.clear_response()
        r.fields = fields
        r.location_field = location if 300 <= status < 400 else None
        r.redirect(path, args)
        return phases.REDIRECT
    if target.startswith(b"@"):
        location = r.location_field
        r.clear_response()
        r.fields = fields
        r.location_field = location
        return to_named(r, target)
    r.clear_response()
    r.fields = fields
    r.location_field = target
    code = page.overwrite if page.overwrite in (301, 302, 303, 307, 308) else 302
    return _builtin(r, code or 302)


def to_named(r: "Request", name: bytes) -> int:
    """Go on in a named location, or 500 when the server has none of that name."""
    rc = phases.count_change(r)
    if rc is not None:
        return rc
    location = r.server.named.get(name)
    if location is None:
        r.log(Level.ERROR, f'could not find named location "{name.decode("latin-1")}"')
        return 500
    r.internal = True
    r.named = True
    r.ctx = None
    r.location = location
    return phases.NAMED


def _builtin(r: "Request", status: int) -> int:
    shown, title = _OWN.get(status, (status, ""))
    location = r.location_field
    if location is not None and 300 <= status < 400:
        location = absolute(r, location)
    fields = r.fields
    r.clear_response()
    r.err_status = 0
    r.fields = fields
    r.status = shown
    r.location_field = location if 300 <= status < 400 or status == 201 else None
    body = _page(r, shown, title) if shown in REASONS and shown > 300 and shown != 304 else b""
    if body:
        r.content_type = b"text/html"
    r.content_length = len(body)
    r.send_head()
    r.send(body, last=True)
    if status in (494, 495, 496, 497):
        r.status = status  # the log shows nginx's own code
    return phases.DONE


def _page(r: "Request", status: int, title: str) -> bytes:
    text = _TITLES.get(status) or status_text(status)
    head = b"%d %b" % (status, title.encode()) if title else text
    center = b"<center><h1>%b</h1></center>\r\n" % text
    if title:
        center += b"<center>%b</center>\r\n" % title.encode()
    name = SERVER[r.location.core.server_tokens]
    return (
        b"<html>\r\n<head><title>%b</title></head>\r\n<body>\r\n%b<hr><center>%b</center>\r\n</body>\r\n</html>\r\n"
        % (head, center, name)
    )


def absolute(r: "Request", location: bytes) -> bytes:
    """A Location of ours made absolute as absolute_redirect, server_name_in_redirect and port_in_redirect say."""
    core = r.location.core
    if not location.startswith(b"/") or not core.absolute_redirect:
        return location
    names = r.server.names
    if core.server_name_in_redirect and names and names[0]:
        host = names[0].encode("utf-8", "surrogateescape")
    else:
        host = r.host or r.conn.local_host
    port = r.conn.local_port
    scheme, usual = (b"http", 80) if r.conn.tls is None else (b"https", 443)
    if core.port_in_redirect and port and port != usual:
        host += b":%d" % port
    return scheme + b"://" + host + location


def no_content(r: "Request") -> int:
    """Every content handler declined."""
    if r.uri.endswith(b"/"):
        path = map_path(r)
        if path is not None:
            r.log(Level.ERROR, f'directory index of "{os.fsdecode(path)}" is forbidden')
        return 403
    r.log(Level.ERROR, "no handler found")
    return 404


def respond(r: "Request", status: int, body: bytes, content_type: bytes | None) -> int:
    """A whole answer at once (`return 200 text`). Raises BadRequest for a body that is no body."""
    if r.body is not None and r.parent is None:
        r.body.drop()
    r.status = status
    r.content_type = content_type
    r.content_length = len(body)
    r.send_head()
    r.send(body, last=True)
    return phases.DONE
