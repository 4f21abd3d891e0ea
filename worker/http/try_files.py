"""`try_files`: the first name that is there becomes the URI; else the last argument says where to go.

nginx: ngx_http_try_files_module. It is not inherited, not even by an `if` inside its location.
"""

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.masterd.logfile import Level, failed
from headgate.worker.http import special
from headgate.worker.http.conf import Location, Result
from headgate.worker.http.phases import internal_redirect
from headgate.worker.http.static import NOT_FOUND, StaticConf, map_path

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


@dataclass(slots=True, frozen=True)
class TryFiles:
    """Names to look for, each a file or (True) a directory; then a status, or a URI or `@name` to go on with."""

    names: list[tuple[Template, bool]]
    status: int | None
    last: Template


def _try_files(call: Call) -> TryFiles:
    *names, last = call.args
    status = None
    if last.startswith("="):
        code = last[1:]
        if not (code.isascii() and code.isdigit()) or int(code) > 999:
            raise call.error_at(f'invalid code "{last}"')
        status = int(code)
    tried = [(call.template(name.removesuffix("/")), name.endswith("/")) for name in names]
    return TryFiles(tried, status or None, call.template(last))


class TryFilesConf(Conf, level=Ctx.LOCATION):
    """try_files of a location, or of a server's requests that no location takes."""

    try_files: TryFiles | None = directive("try_files", Ctx.SERVER | Ctx.LOCATION, "2+", _try_files, inherit=False)

    def attach(self, node: Location) -> None:
        if self.try_files is not None and node.kind not in ("if", "limit_except"):
            node.precontent += (try_files,)


def try_files(r: "Request") -> Result:
    """The handler of the precontent phase."""
    conf = r.location.get(TryFilesConf).try_files
    assert conf is not None
    root = r.location.get(StaticConf).root
    if root.alias and map_path(r) is None:
        return 500
    base = root.base(r)
    for template, directory in conf.names:
        name = _name(r, template, root.skip)
        path = base + name
        try:
            found = stat.S_ISDIR(os.stat(path).st_mode) is directory
        except OSError as error:
            if error.errno not in NOT_FOUND:
                r.log(Level.CRIT, failed(f'stat() "{os.fsdecode(path)}"', error))
            continue
        if not found:
            continue
        if root.whole:
            if not directory:
                r.uri = name
                r.add_uri_to_alias = True
        else:
            r.uri = r.uri[: root.skip] + name
        return None
    if conf.status is not None:
        return conf.status
    target = _name(r, conf.last, root.skip)
    if target.startswith(b"@"):
        return special.to_named(r, target)
    uri, _, args = target.partition(b"?")
    return internal_redirect(r, uri, args)


def _name(r: "Request", template: Template, skip: int) -> bytes:
    """The name behind root or alias: what variables made begin with the location's name loses it."""
    name = template.get(r)
    if skip and template.const is None and name.startswith(r.uri[:skip]):
        return name[skip:]
    return name
