"""`types` and `default_type`: which Content-Type a URI's extension means.

The extension is what stands behind the last dot of the last path segment, in any case; a segment that
starts with its only dot has none (nginx: ngx_http_set_exten).
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import fsencode

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request

DEFAULT = {b"html": b"text/html", b"gif": b"image/gif", b"jpg": b"image/jpeg"}
_DOT, _SLASH = b".", ord("/")

Entry = tuple[bytes, bytes, str, int]  # extension, type, file, line


def _types(call: Call) -> list[Entry]:
    """`types { TYPE EXTENSION...; ... }`."""
    out: list[Entry] = []
    for line in call.statement.block or ():
        if line.error is not None:
            raise line.error
        if line.block is not None:
            raise ConfError('unexpected "{"', line.file, line.line)
        name, *extensions = map(fsencode, line.words)
        out.extend((extension.lower(), name, line.file, line.line) for extension in extensions)
    return out


class TypesConf(Conf, level=Ctx.LOCATION):
    """Content types of a location. Hash sizes need no tuning here: they are checked, and dicts grow."""

    blocks: list[list[Entry]] = directive("types", HSL, "0", _types, many=True, block=True)
    default_type: bytes = directive(
        "default_type", HSL, "1", lambda call: fsencode(call.args[0]), default=b"text/plain"
    )
    hash_max_size: int = directive("types_hash_max_size", HSL, "1", slots.number, default=1024)
    hash_bucket_size: int = directive("types_hash_bucket_size", HSL, "1", slots.number, default=64)
    table: dict[bytes, bytes]  # by extension, in lower case

    def finish(self, scope: "Scope") -> None:
        self.table = {}
        for extension, name, file, line in (entry for entries in self.blocks for entry in entries):
            old = self.table.get(extension)
            if old is not None:
                what = f'duplicate extension "{extension.decode()}"'
                text = f'{what}, content type: "{name.decode()}", previous content type: "{old.decode()}"'
                _warn_once(scope, str(ConfError(text, file, line)))
            self.table[extension] = name
        if not self.blocks:
            self.table = DEFAULT


def _warn_once(scope: "Scope", text: str) -> None:
    """An inherited table is put together again at each level."""
    if text not in scope.config.warnings:
        scope.config.warnings.append(text)


def content_type(r: "Request") -> bytes:
    """The Content-Type that the location gives r.uri; empty: none."""
    conf = r.location.get(TypesConf)
    uri = r.uri
    dot = uri.rfind(_DOT)
    if dot > 1 and uri[dot - 1] != _SLASH:
        extension = uri[dot + 1 :]
        found = conf.table.get(extension) or conf.table.get(extension.lower())
        if found is not None:
            return found
    return conf.default_type
