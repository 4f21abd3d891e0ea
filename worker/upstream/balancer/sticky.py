"""`sticky cookie|route|learn`: requests of a client stay with the peer that served it first.

It wraps any method: it finds out which peer is wanted, the method uses that one if it can and chooses as always if not.
A peer is known by the `route` of its server or else by a digest of its address. `cookie` puts that into a cookie of
ours, `route` reads it from variables, `learn` remembers in the zone which peer served which session of the server's.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import Call, command
from headgate.conf.template import Getter, Template, fsencode
from headgate.masterd.logfile import Level
from headgate.masterd.zones import TableSpec
from headgate.shm.peers import OK, now_ms
from headgate.shm.sessions import Sessions
from headgate.worker.upstream.balancer.method import UPS, BalancingConf

if TYPE_CHECKING:
    from headgate.conf.template import Variables
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.contract import Balancer, Choice
    from headgate.worker.upstream.group import Group

MIN_ZONE = 8 * 4096  # nginx: eight pages
FOREVER = -1  # of `expires=max`
LAST_DATE = b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000"
SAMESITE = (b"strict", b"lax", b"none")


@dataclass(slots=True)
class Cookie:
    """The cookie of `sticky cookie`; `expires` in seconds."""

    name: bytes
    domain: Template | None = None
    path: bytes | None = None
    expires: int | None = None
    httponly: bool = False
    secure: bool = False
    samesite: Template | None = None

    def text(self, request: "Request", peer: bytes) -> bytes:
        """The value of Set-Cookie, its attributes in nginx's order."""
        out = self.name + b"=" + peer
        if self.expires == FOREVER:
            out += LAST_DATE
        elif self.expires is not None:
            out += b"; expires=%s; max-age=%d" % (cookie_date(time.time() + self.expires), self.expires)
        domain = self.domain.get(request) if self.domain is not None else b""
        if domain:
            out += b"; domain=" + domain
        if self.httponly:
            out += b"; httponly"
        if self.secure:
            out += b"; secure"
        if self.samesite is not None:
            samesite = self.samesite.get(request)
            if samesite:
                out += b"; samesite=" + (samesite if samesite.lower() in SAMESITE else b"strict")
        return out + b"; path=" + self.path if self.path is not None else out


def cookie_date(moment: float) -> bytes:
    """`Wed, 09-Jun-21 10:18:14 GMT`: the year in two digits as long as that says enough."""
    t = time.gmtime(moment)
    year = b"%d" % t.tm_year if t.tm_year > 2037 else b"%02d" % (t.tm_year % 100)
    day = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")[t.tm_wday]
    month = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")[
        t.tm_mon - 1
    ]
    return b"%s, %02d-%s-%s %02d:%02d:%02d GMT" % (day, t.tm_mday, month, year, t.tm_hour, t.tm_min, t.tm_sec)


@dataclass(slots=True)
class StickyConf:
    """`sticky` as configured: where a request's peer or session is looked up, and what is done with an answer."""

    lookup: list[Getter] = field(default_factory=list)
    create: list[Getter] = field(default_factory=list)
    cookie: Cookie | None = None
    zone: str | None = None  # of `learn`
    timeout: int = 600_000  # ms
    at_header: bool = False  # learn when the head is there, rather than at the end

    def wrap(self, balancer: "Balancer", group: "Group", table: Callable[[str], object]) -> "Sticky":
        """The balancer with stickiness around it; `table` finds the zone of `learn`."""
        sessions = table(self.zone) if self.zone is not None else None
        assert sessions is None or isinstance(sessions, Sessions)
        return Sticky(self, balancer, group, sessions)


# -- the directive -------------------------------------------------------------------------------


@command("sticky", UPS, "2+")
def sticky(call: Call) -> None:
    values = vars(call.conf(BalancingConf))
    if "sticky" in values:
        raise call.error("is duplicate")
    conf = values["sticky"] = StickyConf()
    kind = _KINDS.get(call.args[0])
    if kind is None:
        raise call.error_at(f'unknown parameter "{call.args[0]}"')
    kind(call, conf)


def _want(call: Call, name: str, into: list[Getter]) -> None:
    """Have a variable's getter in its place once names are looked up."""
    variables: Variables | None = call.scope.variables
    assert variables is not None
    place = len(into)
    into.append(lambda request: None)
    variables.want(name, partial(into.__setitem__, place))


def _route(call: Call, conf: StickyConf) -> None:
    for word in call.args[1:]:
        if not word.startswith("$"):
            raise call.error_at(f'invalid variable name "{word}"')
        _want(call, word[1:], conf.lookup)


def _cookie(call: Call, conf: StickyConf) -> None:
    if not call.args[1]:
        raise call.error("empty cookie name")
    conf.cookie = cookie = Cookie(fsencode(call.args[1]))
    for word in call.args[2:]:
        name, eq, value = word.partition("=")
        if name + eq not in ("domain=", "path=", "expires=", "httponly", "secure", "samesite="):
            raise call.error_at(f'unknown parameter "{word}"')
        if getattr(cookie, name) not in (None, False):
            raise call.error(f'parameter "{name}" is duplicate')
        if name in ("domain", "path") and not value:
            raise call.error(f'no value for "{name}"')
        setattr(cookie, name, _attribute(call, name, value))
    _want(call, "cookie_" + call.args[1], conf.lookup)


def _attribute(call: Call, name: str, value: str) -> "Template | bytes | int | bool":
    if name == "path":
        return fsencode(value)
    if name == "expires":
        seconds = FOREVER if value == "max" else slots.parse_time(value, msec=False)
        if seconds is None:
            raise call.error('invalid "expires" parameter value')
        return int(seconds)
    if name in ("httponly", "secure"):
        return True
    template = call.template(value)
    if name == "samesite" and template.const is not None and template.const.lower() not in SAMESITE:
        raise call.error('invalid "samesite" parameter value')
    return template


def _learn(call: Call, conf: StickyConf) -> None:
    size = 0
    timeout = None
    for word in call.args[1:]:
        name, eq, value = word.partition("=")
        if name + eq == "zone=":
            if conf.zone is not None:
                raise call.error("duplicate zone")
            conf.zone, size = _zone(call, value)
        elif name + eq == "timeout=":
            if timeout is not None:
                raise call.error("duplicate timeout")
            timeout = slots.parse_time(value, msec=True)
            if not timeout:
                raise call.error("invalid timeout")
            conf.timeout = int(timeout * 1000)
        elif name + eq in ("create=", "lookup="):
            if not value.startswith("$"):
                raise call.error(f'missing variable in the "{name}" parameter')
            _want(call, value[1:], conf.create if name == "create" else conf.lookup)
        elif word == "header":
            conf.at_header = True
        else:
            raise call.error_at(f'unknown parameter "{word}"')
    for name, given in (("lookup", conf.lookup), ("create", conf.create), ("zone", conf.zone)):
        if not given:
            raise call.error(f'"{name}" parameter is not specified')
    assert conf.zone is not None
    _declare(call, conf.zone, size)


def _zone(call: Call, value: str) -> tuple[str, int]:
    name, colon, text = value.partition(":")
    if not colon:
        raise call.error("zone size is not specified")
    if not name:
        raise call.error("zone name is not specified")
    size = slots.parse_size(text)
    if size is None:
        raise call.error("invalid zone size")
    if size < MIN_ZONE:
        raise call.error("zone is too small")
    return name, size


def _declare(call: Call, name: str, size: int) -> None:
    """The zone is this upstream's and nobody else's."""
    outer = call.scope.parent
    assert outer is not None
    tables: dict[str, TableSpec] = outer.node.tables
    if name in tables:
        raise call.error_at(f'sticky zone "{name}" is already used in upstream "{tables[name].owner}"')
    tables[name] = TableSpec("sticky", call.scope.node, size, Sessions, (call.statement.file, call.statement.line))


_KINDS = {"cookie": _cookie, "route": _route, "learn": _learn}


# -- in a worker ---------------------------------------------------------------------------------


class Sticky:
    """The balancer: another one's, with the peer that a request wants."""

    __slots__ = ("conf", "inner", "names", "notifies", "places", "sessions")

    def __init__(self, conf: StickyConf, inner: "Balancer", group: "Group", sessions: Sessions | None) -> None:
        self.conf = conf
        self.inner = inner
        self.sessions = sessions
        self.notifies = inner.notifies or conf.at_header
        self.names = names = peer_names(group)
        primaries = group.peers.primaries
        # of several peers with one name, the first primary and the first backup are meant
        self.places: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        for i, name in enumerate(names):
            self.places[i >= primaries].setdefault(name, i)

    def init(self, request: "Request") -> "_Tries":
        return _Tries(self, request)


def peer_names(group: "Group") -> list[bytes]:
    """What each peer is called in cookies, routes and sessions."""
    names = []
    for server in group.servers:
        for address in server.addresses:
            digest = hashlib.md5(address.name, usedforsecurity=False).hexdigest().encode()
            names.append(fsencode(server.route) if server.route else digest)
    return names


class _Tries:
    """One request's tries."""

    __slots__ = ("_field", "_inner", "_key", "_request", "_sticky")

    def __init__(self, sticky: Sticky, request: "Request") -> None:
        self._sticky = sticky
        self._request = request
        self._inner: Choice = sticky.inner.init(request)
        self._key = _first(sticky.conf.lookup, request)  # a peer's name, or a session
        self._field: tuple[bytes, bytes] | None = None

    def get(self, tried: bytearray | None, now: int = -1, hint: int = -1, spare: int = -1) -> int:
        sticky, name = self._sticky, self._key
        if name is not None and sticky.sessions is not None:
            name = sticky.sessions.find(_digest(name), now_ms(), sticky.conf.timeout)
        if name is not None:
            primaries, backups = sticky.places
            hint, spare = primaries.get(name, -1), backups.get(name, -1)
        index = self._inner.get(tried, now, hint, spare)
        cookie = sticky.conf.cookie
        if index >= 0 and cookie is not None:
            self._set_cookie(cookie.text(self._request, sticky.names[index]))
        return index

    def _set_cookie(self, value: bytes) -> None:
        fields = self._request.fields
        if self._field is not None and self._field in fields:
            fields.remove(self._field)  # of a peer that has failed
        self._field = (b"Set-Cookie", value)
        fields.append(self._field)

    def notify(self, index: int, event: str) -> None:
        if self._sticky.conf.at_header:
            self._learn(index)
        if self._sticky.inner.notifies:
            self._inner.notify(index, event)

    def free(self, index: int, state: int) -> int:
        conf = self._sticky.conf
        if state == OK and conf.zone is not None and not conf.at_header:
            self._learn(index)
        return self._inner.free(index, state)

    def _learn(self, index: int) -> None:
        sticky, request = self._sticky, self._request
        created = _first(sticky.conf.create, request)
        session = created or self._key
        if session is None or sticky.sessions is None:
            return
        name = sticky.names[index]
        if sticky.sessions.learn(_digest(session), name, created is not None, now_ms(), sticky.conf.timeout):
            text = f'could not allocate node in sticky session zone "{sticky.conf.zone}"'
            request.log(Level.WARN, text + ", expiring least recently used session")


def _first(getters: list[Getter], request: "Request") -> bytes | None:
    """The first of the variables that says anything."""
    for get in getters:
        value = get(request)
        if value:
            return value
    return None


def _digest(session: bytes) -> bytes:
    return hashlib.md5(session, usedforsecurity=False).digest()
