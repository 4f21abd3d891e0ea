"""`index`: a URI that ends in a slash is answered by the first of these files that is there.

nginx: ngx_http_index_module. The file is tried before its directory, for requests that succeed should be
the quick ones.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.masterd.logfile import Level, failed
from headgate.worker.http.conf import Location, Result
from headgate.worker.http.phases import internal_redirect
from headgate.worker.http.static import METHODS, map_path

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request


def _index(call: Call) -> list[Template]:
    for name in call.args:
        if name.startswith("/") and name is not call.args[-1]:
            call.warn('only the last index in "index" directive should be absolute')
        if not name:
            raise call.error_at(f'index "{name}" in "index" directive is invalid')
    return [call.template(name) for name in call.args]


class IndexConf(Conf, level=Ctx.LOCATION):
    """The index files of a location, in the order in which they are tried."""

    lines: list[list[Template]] = directive("index", HSL, "1+", _index, many=True)
    names: list[Template]

    def finish(self, scope: "Scope") -> None:
        self.names = [name for line in self.lines for name in line] or [Template("index.html", [b"index.html"])]

    def attach(self, node: Location) -> None:
        node.content += (index,)


def index(r: "Request") -> Result:
    """The content handler."""
    if not r.uri.endswith(b"/") or r.method not in METHODS:
        return None
    base: bytes | None = None
    tested = False
    for template in r.location.get(IndexConf).names:
        name = template.get(r)
        if name.startswith(b"/"):
            return internal_redirect(r, name, r.args)
        if base is None:
            base = map_path(r)
            if base is None:
                return 500
        path = base + name
        try:
            os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return 403
            if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.EACCES):
                return _missing(r, path, error)
            rc = None if tested else _test_directory(r, base, path)
            if rc is not None:
                return rc
            tested = True
            if error.errno != errno.ENOENT:
                r.log(Level.CRIT, failed(f'stat() "{os.fsdecode(path)}"', error))
                return 500
        else:
            return internal_redirect(r, r.uri + name, r.args)
    return None


def _test_directory(r: "Request", base: bytes, path: bytes) -> int | None:
    """404 when the directory is not there either; None to try the next name."""
    directory = base[:-1] if base.endswith(b"/") and len(base) > 1 else base
    try:
        info = os.stat(directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return 403
        if error.errno == errno.ENOENT:
            return _missing(r, path, error)
        if error.errno == errno.EACCES:
            return None  # a file in it could be looked for, so it may be searched
        r.log(Level.CRIT, failed(f'stat() "{os.fsdecode(directory)}"', error))
        return 500
    if stat.S_ISDIR(info.st_mode):
        return None
    r.log(Level.ALERT, f'"{os.fsdecode(directory)}" is not a directory')
    return 500


def _missing(r: "Request", path: bytes, error: OSError) -> int:
    reason = f"({error.errno}: {os.strerror(error.errno or 0)})"
    if error.errno == errno.EACCES:
        r.log(Level.ERROR, f'"{os.fsdecode(path)}" is forbidden {reason}')
        return 403
    if r.location.core.log_not_found:
        r.log(Level.ERROR, f'"{os.fsdecode(path)}" is not found {reason}')
    return 404
