"""`auth_basic`, `auth_basic_user_file`: a name and password for a location (RFC 7617; nginx: auth_basic).

The file has a line `name:password[:comment]` a user; it is read for each request, so that a change counts at once. A
hash that takes long by design is checked in a thread: other requests go on meanwhile.
"""

import asyncio
import errno
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level, failed
from headgate.worker.http import crypt, phases
from headgate.worker.http.conf import Location
from headgate.worker.http.variables import credentials

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

_PLACES = HSL | Ctx.LIMIT_EXCEPT


@dataclass(slots=True, frozen=True)
class Users:
    """The file's name; what is relative starts at the directory of the configuration file."""

    name: Template
    folder: bytes

    def path(self, r: "Request") -> bytes:
        return os.path.join(self.folder, self.name.get(r))


def _file(call: Call) -> Users:
    return Users(call.template(call.args[0]), os.path.dirname(fsencode(call.scope.config.path)))


class AuthBasicConf(Conf, level=Ctx.LOCATION):
    """The realm, `off` for none, and the users' file."""

    realm: Template | None = directive("auth_basic", _PLACES, "1", slots.template)
    file: Users | None = directive("auth_basic_user_file", _PLACES, "1", _file)

    def attach(self, node: Location) -> None:
        if self.realm is not None and self.file is not None and self.realm.const != b"off":
            node.access += (auth_basic,)


async def auth_basic(r: "Request") -> int | None:
    """The access handler."""
    conf = r.location.get(AuthBasicConf)
    assert conf.realm is not None and conf.file is not None
    realm = conf.realm.get(r)
    if realm == b"off":
        return None
    given = credentials(r)
    if given is None:
        r.log(Level.INFO, "no user/password was provided for basic authentication")
        return _ask(r, realm)
    user, password = given
    name = user.decode("utf-8", "replace")
    path = conf.file.path(r)
    try:
        with open(path, "rb") as file:
            stored = _stored(file.read(), user)
    except OSError as error:
        return _unreadable(r, path, error)
    if stored is None:
        r.log(Level.ERROR, f'user "{name}" was not found in "{os.fsdecode(path)}"')
        return _ask(r, realm)
    try:
        if crypt.is_slow(stored):
            right = await asyncio.get_running_loop().run_in_executor(None, crypt.verify, password, stored)
        else:
            right = crypt.verify(password, stored)
    except crypt.CryptError as error:
        r.log(Level.CRIT, str(error))
        return 500
    if right:
        return phases.ALLOWED
    r.log(Level.ERROR, f'user "{name}": password mismatch')
    return _ask(r, realm)


def _ask(r: "Request", realm: bytes) -> int:
    name = b"Proxy-Authenticate" if r.method == b"CONNECT" else b"WWW-Authenticate"
    r.fields.append((name, b'Basic realm="' + realm + b'"'))
    return 407 if r.method == b"CONNECT" else 401


def _stored(text: bytes, user: bytes) -> bytes | None:
    """What stands behind the first line's name that fits, up to the next colon or the line's end."""
    for line in text.split(b"\n"):
        name, colon, rest = line.partition(b":")
        if colon and not line.startswith((b"#", b"\r")) and hmac.compare_digest(name, user):
            return rest.partition(b"\r")[0].partition(b":")[0]
    return None


def _unreadable(r: "Request", path: bytes, error: OSError) -> int:
    missing = error.errno == errno.ENOENT
    r.log(Level.ERROR if missing else Level.CRIT, failed(f'open() "{os.fsdecode(path)}"', error))
    return 403 if missing else 500
