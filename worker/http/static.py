"""Files: `root` and `alias` map a URI to a path, and the content handler that serves it.

`map_path` and `document_root` are what variables and other modules use too. nginx: ngx_http_static_module
and ngx_http_map_uri_to_path.
"""

import errno
import os
import stat
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, command, directive
from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level, failed
from headgate.worker.http import sendfile, uri
from headgate.worker.http.conf import Location, Result
from headgate.worker.http.request import ANY_RANGES
from headgate.worker.http.types import content_type

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request

METHODS = (b"GET", b"HEAD", b"POST")  # what the content handlers look at; POST to a file is not allowed
NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
FORBIDDEN = (errno.EACCES, errno.EMLINK, errno.ELOOP)
_SLASH = ord("/")
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: opening a FIFO must not wait


@dataclass(slots=True, frozen=True)
class Root:
    """Where a location's files are: `text` is the first part of their paths, then comes the URI from `skip` on.

    An alias leaves out its location's name; in a regex location it is the whole path (`whole`).
    """

    text: Template
    prefix: bytes
    alias: bool = False
    whole: bool = False
    skip: int = 0

    def base(self, r: "Request") -> bytes:
        """The first part; what variables make relative starts at the prefix."""
        path = self.text.get(r)
        return path if path.startswith(b"/") or self.text.const is not None else self.prefix + path


def _root(call: Call, alias: bool = False) -> Root:
    if vars(call.conf(StaticConf)).get("roots"):
        old = call.conf(StaticConf).roots[0]
        if old.alias is alias:
            raise call.error("is duplicate")
        raise call.error(f'is duplicate, "{"alias" if old.alias else "root"}" directive was specified earlier')
    node = call.scope.node
    if alias and node.kind == "@":
        raise call.error_at('the "alias" directive cannot be used inside the named location')
    text = call.args[0]
    for name in ("document_root", "realpath_root"):
        if f"${name}" in text or f"${{{name}}}" in text:
            raise call.error_at(f'the ${name} variable cannot be used in the "{call.name}" directive')
    absolute = text.startswith(("$", "/"))
    if not alias:
        text = text.removesuffix("/")
    template = call.template(text if absolute else call.path(text))
    prefix = fsencode(call.scope.config.prefix)
    if not alias:
        return Root(template, prefix)
    whole = node.kind in ("~", "~*")
    return Root(template, prefix, True, whole, 0 if whole else len(node.name))


def _off(call: Call) -> bool:
    """A directive of which only `off` is there."""
    if call.args != ["off"]:
        raise call.error_at(f'"{call.name} {call.args[0]}" is known to nginx but not implemented by headgate')
    return False


class StaticConf(Conf, level=Ctx.LOCATION):
    """Where the files of a location are."""

    roots: list[Root] = directive("root", HSL | Ctx.LOCATION_IF, "1", _root, many=True)
    etag: bool = directive("etag", HSL, "flag", slots.flag, default=True)
    disable_symlinks: bool = directive("disable_symlinks", HSL, "1|2", _off, default=False)
    open_file_cache: bool = directive("open_file_cache", HSL, "1|2", _off, default=False)
    root: Root
    plain: bytes | None  # the path to put before the whole URI, where that is all

    def finish(self, scope: "Scope") -> None:
        if not self.roots:
            prefix = fsencode(scope.config.prefix)
            html = prefix + b"html"
            self.roots = [Root(Template("html", [html]), prefix)]
        self.root = root = self.roots[0]
        self.plain = None if root.alias else root.text.const

    def attach(self, node: Location) -> None:
        node.content += (serve,)


@command("alias", Ctx.LOCATION, "1")
def alias(call: Call) -> None:
    """`alias`: as `root`, but it stands for the location's name."""
    root = _root(call, alias=True)
    vars(call.conf(StaticConf))["roots"] = [root]


def document_root(r: "Request") -> bytes:
    """$document_root: the `root` or `alias` in force, as an absolute path."""
    return r.location.get(StaticConf).root.base(r)


def map_path(r: "Request") -> bytes | None:
    """$request_filename: the path of r.uri; None when `alias` cannot tell, for the URI was rewritten."""
    conf = r.location.get(StaticConf)
    if conf.plain is not None:
        return conf.plain + r.uri
    root = conf.root
    if root.alias and not r.valid_location:
        where = f'location "{r.location.text}" where URI was rewritten'
        r.log(Level.ALERT, f'"alias" cannot be used in {where}')
        return None
    base = root.base(r)
    if root.whole:
        return base + r.uri if r.add_uri_to_alias else base
    return base + r.uri[root.skip :]


def etag(mtime: int, size: int) -> bytes:
    """A strong validator from a file's modification time (seconds) and size."""
    return b'"%x-%x"' % (mtime, size)


def serve(r: "Request") -> Result | Awaitable[Result]:
    """The content handler: the file that r.uri names."""
    if r.method not in METHODS:
        return 405
    if r.uri.endswith(b"/"):
        return None
    path = map_path(r)
    if path is None:
        return 500
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        return _refused(r, path, error)
    sending = None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return _not_a_file(r, path, info.st_mode)
        if r.method == b"POST":
            return 405
        if r.body is not None and r.parent is None:
            r.body.drop()
        r.action = "sending response to client"
        mtime = int(info[stat.ST_MTIME])  # whole seconds, exactly
        r.status = 200
        r.content_length = size = info.st_size
        r.last_modified = mtime
        if r.location.get(StaticConf).etag:
            r.etag = etag(mtime, size)
        if r.content_type is None:
            r.content_type = content_type(r)
        r.allow_ranges = ANY_RANGES
        r.send_head()
        sending = sendfile.send_file(r, fd, path, size)
        return sending or 0
    finally:
        if sending is None:  # else it closes the file at its end
            os.close(fd)


def _refused(r: "Request", path: bytes, error: OSError) -> int:
    level, status = Level.ERROR, 500
    if error.errno in NOT_FOUND:
        status = 404
    elif error.errno in FORBIDDEN:
        status = 403
    else:
        level = Level.CRIT
    if status != 404 or r.location.core.log_not_found:
        r.log(level, failed(f'open() "{os.fsdecode(path)}"', error))
    return status


def _not_a_file(r: "Request", path: bytes, mode: int) -> int:
    if stat.S_ISDIR(mode):
        r.location_field = uri.escape_uri(r.uri) + b"/" + (b"?" + r.args if r.args else b"")
        return 301
    r.log(Level.CRIT, f'"{os.fsdecode(path)}" is not a regular file')
    return 404
