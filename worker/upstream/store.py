"""`NAME_store`: complete 200 responses become files, all at once or not at all (nginx: ngx_http_upstream_store).

The body goes to a temporary file while it goes to the client, also when the client leaves. Complete, the file gets
its access rights and the response's Last-Modified, and then its name; a body cut short, or one that cannot be
written, leaves nothing. Where temporary files lie on another file system the file is copied beside its place first.
"""

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.conf.template import Template
from headgate.masterd.logfile import Level, failed
from headgate.worker.http import httpdate
from headgate.worker.http.static import map_path
from headgate.worker.http.tempfile import TempFile

if TYPE_CHECKING:
    from headgate.worker.upstream.upstream import Upstream

_SHIFTS = {"user": 6, "group": 3, "all": 0}
_RIGHTS = {"r": 4, "rw": 6}


def path(call: Call) -> Template | bool:
    """`on` (where `root` and `alias` say), `off`, or a path with variables."""
    text = call.args[0]
    if text in ("on", "off"):
        return text == "on"
    if not text:
        raise call.error_at("empty path")
    return call.template(text)


def access(call: Call) -> int:
    """`user:rw group:rw all:r`: the file's mode; the user reads and writes unless told otherwise."""
    mode = 0 if any(word.startswith("user:") for word in call.args) else 0o600
    for word in call.args:
        who, _, what = word.partition(":")
        if who not in _SHIFTS or what not in _RIGHTS:
            raise call.error_at(f'invalid value "{word}"')
        mode |= _RIGHTS[what] << _SHIFTS[who]
    return mode


class Store:
    """A response on its way to its file: a `Keeper`."""

    __slots__ = ("_u", "file")

    def __init__(self, u: "Upstream", file: TempFile) -> None:
        self._u = u
        self.file = file

    def done(self, complete: bool) -> None:
        """Give the file its name, or remove it."""
        try:
            target = self._target() if complete else b""
            if target:
                self._place(target)
            else:
                self.file.unlink()
        finally:
            self._u.request.on_finish(self.file.close)  # the client may still be served from it

    def _target(self) -> bytes:
        u = self._u
        if isinstance(u.conf.store, Template):
            return u.conf.store.get(u.request)
        return map_path(u.request) or b""

    def _place(self, target: bytes) -> None:
        u = self._u
        name = os.fsencode(self.file.name)
        mode = u.conf.store_access
        try:
            os.fchmod(self.file.fd, mode)
            assert u.head is not None
            date = u.head.get(b"last-modified")
            seconds = httpdate.parse(date) if date is not None else None
            if seconds is not None:
                os.utime(self.file.fd, (seconds, seconds))
            _rename(name, target, mode)
        except OSError as error:
            what = f'rename() "{self.file.name}" to "{os.fsdecode(target)}"'
            u.request.log(Level.CRIT, failed(what, error))
            with contextlib.suppress(OSError):
                os.unlink(name)


def _rename(name: bytes, target: bytes, mode: int) -> None:
    """As rename(2), the directories on the way made, and across file systems. Raises OSError."""
    try:
        os.rename(name, target)
    except FileNotFoundError:
        _make_directories(os.path.dirname(target), mode | (mode & 0o444) >> 2)
        _rename(name, target, mode)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = b"%b.%b" % (target, os.path.basename(name))
        try:
            shutil.copy2(name, beside)
            os.rename(beside, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        os.unlink(name)


def _make_directories(folder: bytes, mode: int) -> None:
    if os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # so it is the file that is not there
    parent = os.path.dirname(folder)
    if not os.path.isdir(parent):
        _make_directories(parent, mode)
    os.mkdir(folder, mode)


def keeper(u: "Upstream") -> Store | None:
    """Who keeps this response, if it is to be kept; None as well when there is no file to be had (which is logged)."""
    r = u.request
    assert u.head is not None
    if u.head.status != 200 or r.method == b"HEAD" or not u.buffering:
        return None
    file = TempFile(r, u.conf.temp_path)
    return Store(u, file) if file.open(keep=True) else None
