"""`memcached_pass`: the value of the key in $memcached_key, `memcached_gzip_flag` (nginx: ngx_http_memcached_module).

One `get` a request. A missing key is a 404, which is the location's own: its error_page may make the answer elsewhere.
"""

import re
from typing import TYPE_CHECKING, Final

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Ctx, directive
from headgate.masterd.logfile import Level
from headgate.worker.http import types, uri
from headgate.worker.http.wire import decimal
from headgate.worker.upstream.errors import GiveUp, Kind, UpstreamError
from headgate.worker.upstream.header import ResponseHead
from headgate.worker.upstream.passing import PassConf, Target
from headgate.worker.upstream.protocol import Protocol

if TYPE_CHECKING:
    from headgate.conf.template import Getter
    from headgate.worker.upstream.upstream import Upstream

END: Final = b"\r\nEND\r\n"
_WORDS = {
    "error": Kind.ERROR, "timeout": Kind.TIMEOUT, "invalid_response": Kind.INVALID_HEADER, "not_found": Kind.HTTP_404,
    "off": Kind.OFF,
}  # fmt: skip
_ONLY = frozenset((
    "_bind", "_socket_keepalive", "_connect_timeout", "_send_timeout", "_read_timeout", "_buffer_size",
    "_next_upstream_tries", "_next_upstream_timeout",
))  # fmt: skip
_VALUE = re.compile(rb"VALUE (?P<key>.*) (?P<flags>[^ ]*) (?P<length>[^ ]*)", re.DOTALL)


class Place(Target):
    """A memcached_pass."""

    __slots__ = ("key",)

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self.key: Getter
        assert call.scope.variables is not None
        call.scope.variables.want("memcached_key", self._found)

    def _found(self, getter: "Getter") -> None:
        self.key = getter


class Memcached(Protocol):
    """One request; made anew for each."""

    __slots__ = ("_key", "_rest")

    def __init__(self) -> None:
        self._key = b""
        self._rest = END  # what is still to come behind the value

    def create_request(self, u: "Upstream") -> bytes:
        r = u.request
        if r.method not in (b"GET", b"HEAD"):
            raise GiveUp(405)
        conf = u.conf
        assert isinstance(conf, MemcachedConf) and conf.pass_ is not None
        key = conf.pass_.key(r)
        if not key:
            r.log(Level.ERROR, 'the "$memcached_key" variable is not set')
            raise GiveUp(500)
        u.scheme = "memcached"
        r.content_type = types.content_type(r)
        self._key = uri.escape_memcached(key)
        return b"get %b\r\n" % self._key

    def reinit_request(self, u: "Upstream") -> None:
        u.head = None
        self._rest = END

    def process_header(self, u: "Upstream", data: bytes) -> int | None:
        end = data.find(b"\n")
        if end < 0:
            if len(data) < u.conf.buffer_size:
                return None
            raise UpstreamError(Kind.INVALID_HEADER, "upstream sent too big header")
        line = data[:end]
        if line == b"END\r":
            u.request.log(Level.INFO, f'key: "{self._shown(self._key)}" was not found by memcached')
            u.head = ResponseHead(404, b"404 Not Found", 11, [])
            u.head.length = 0
            u.keepalive = True
            return end + 1
        value = _VALUE.fullmatch(line[:-1]) if line.endswith(b"\r") else None
        if value is None:
            raise UpstreamError(Kind.INVALID_HEADER, f'memcached sent invalid response: "{self._shown(line)}"')
        if value["key"] != self._key:
            raise self._invalid("key", line)
        length = decimal(value["length"])
        if length < 0:
            raise self._invalid("length", line)
        fields = []
        conf = u.conf
        assert isinstance(conf, MemcachedConf)
        if conf.gzip_flag:
            flags = decimal(value["flags"])
            if flags < 0:
                raise self._invalid("flags", line)
            if flags & conf.gzip_flag:
                fields.append((b"Content-Encoding", b"gzip"))
        u.head = ResponseHead(200, b"200 OK", 11, fields)
        u.head.length = length
        return end + 1

    def _invalid(self, what: str, line: bytes) -> UpstreamError:
        text = f'memcached sent invalid {what} in response "{self._shown(line)}" for key "{self._shown(self._key)}"'
        return UpstreamError(Kind.INVALID_HEADER, text)

    @staticmethod
    def _shown(text: bytes) -> str:
        return text.removesuffix(b"\r").decode("utf-8", "surrogateescape")

    def input_filter_init(self, u: "Upstream") -> None:
        assert u.head is not None
        u.length = u.head.length
        u.keepalive = u.head.status == 404
        u.body_done = u.keepalive or u.request.method == b"HEAD"

    def input_filter(self, u: "Upstream", data: bytes) -> bytes:
        assert u.length is not None
        body, rest = data[: u.length], data[u.length :]
        u.length -= len(body)
        if not self._rest.startswith(rest):
            u.request.log(Level.ERROR, "memcached sent invalid trailer")
            u.body_done = True
        elif rest:
            self._rest = self._rest[len(rest) :]
            u.body_done = u.keepalive = not self._rest
        return body

    def eof(self, u: "Upstream") -> bool:
        return False

    def finalize_request(self, u: "Upstream", status: int) -> None:
        pass


class MemcachedConf(PassConf, level=Ctx.LOCATION, prefix="memcached", only=_ONLY):
    """memcached_pass and its kin. Responses are never buffered, and nothing of the request goes to the server."""

    pass_: Place | None = directive("memcached_pass", Ctx.LOCATION | Ctx.LOCATION_IF, "1", Place, inherit=False)
    next_upstream_kinds: list[Kind] = directive(
        "memcached_next_upstream",
        HSL,
        "1+",
        slots.bitmask(Kind, _WORDS),
        default=[Kind.ERROR | Kind.TIMEOUT],
        many=True,
    )
    gzip_flag: int = directive("memcached_gzip_flag", HSL, "1", slots.number, default=0)
    buffering = False
    pass_request_body = False
    intercept_errors = True
    force_ranges = True

    PROTOCOL = Memcached
    INTERCEPT_404 = True
