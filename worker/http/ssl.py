"""TLS to clients: `listen ... ssl` and the ssl_* directives of a server, contexts, names, and who may ask.

A connection begins with the context of its address's default server; the name that the client sends (SNI) chooses
another server and its context. A client's certificate is asked for and looked at when a request comes, as nginx does,
so that whoever has none is told in words. `ssl_session_cache shared:` is a cache of each worker's own; tickets, which
are what clients use today, hold in all workers, for their keys are older than the workers.
"""

import os
import ssl
from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import HS, Call, Conf, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.masterd.logfile import Level
from headgate.worker.http.protocol import Connection
from headgate.worker.tls import context, openssl
from headgate.worker.tls.context import ContextError, read_pem
from headgate.worker.tls.errors import text
from headgate.worker.tls.layer import TlsLayer
from headgate.worker.upstream.tls_conf import conf_command, conf_path, password_file, protocols

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.conf import Server
    from headgate.worker.http.listen import Listen
    from headgate.worker.http.request import Request
    from headgate.worker.http.server import HttpWorker

Place = tuple[str, int]
OFF, ON, OPTIONAL, OPTIONAL_NO_CA = "off", "on", "optional", "optional_no_ca"
# errors that only say that we do not know the authority: what optional_no_ca lets pass
_UNKNOWN_CA = frozenset((18, 19, 20, 21, 27))
_SESSIONS_PER_MEGABYTE = 4000  # as nginx's documentation counts them
CERTIFICATE_ERROR, NO_CERTIFICATE, PLAIN_HTTP = 495, 496, 497  # statuses of nginx's own


def _certificate(call: Call) -> tuple[str, Place]:
    name = call.args[0]
    if "$" in name and not name.startswith("data:"):
        raise call.error_at(f'variables in "{call.name}" are known to nginx but not implemented by headgate')
    for kind in ("engine:", "store:"):
        if name.startswith(kind):
            raise call.error_at(f'"{call.name} {kind}" is known to nginx but not implemented by headgate')
    path = name if name.startswith("data:") else conf_path(call, name)
    return path, (call.statement.file, call.statement.line)


def _file(call: Call) -> str:
    return conf_path(call, call.args[0])


def _session_cache(call: Call) -> int | None:
    """Sessions to keep in a worker; 0: as many as OpenSSL wants, None: no cache."""
    count: int | None = None
    for word in call.args:
        kind, colon, rest = word.partition(":")
        if word in ("off", "none"):
            count = None
        elif word == "builtin":
            count = 0
        elif kind == "builtin" and colon and rest.isdigit() and int(rest):
            count = int(rest)
        elif kind == "shared" and colon:
            name, _, size_text = rest.partition(":")
            size = slots.parse_size(size_text)
            if not name or size is None or size < 8 * 4096:
                raise call.error_at(f'invalid session cache "{word}"')
            count = max(size * _SESSIONS_PER_MEGABYTE >> 20, 1)
        else:
            raise call.error_at(f'invalid session cache "{word}"')
    return count


_VERIFY = slots.enum_of({word: word for word in (OFF, ON, OPTIONAL, OPTIONAL_NO_CA)})


class SslConf(Conf, level=Ctx.SERVER):
    """A server's TLS. `context` is None without a certificate; times in seconds."""

    certificate: list[tuple[str, Place]] = directive("ssl_certificate", HS, "1", _certificate, many=True)
    certificate_key: list[tuple[str, Place]] = directive("ssl_certificate_key", HS, "1", _certificate, many=True)
    password_file: tuple[bytes, ...] | None = directive("ssl_password_file", HS, "1", password_file)
    protocols: frozenset[str] = directive("ssl_protocols", HS, "1+", protocols, default=context.DEFAULT_PROTOCOLS)
    ciphers: str = directive("ssl_ciphers", HS, "1", slots.string, default="HIGH:!aNULL:!MD5")
    prefer_server_ciphers: bool = directive("ssl_prefer_server_ciphers", HS, "flag", slots.flag, default=False)
    dhparam: str = directive("ssl_dhparam", HS, "1", _file, default="")
    ecdh_curve: str = directive("ssl_ecdh_curve", HS, "1", slots.string, default="auto")
    verify_client: str = directive("ssl_verify_client", HS, "1", _VERIFY, default=OFF)
    verify_depth: int = directive("ssl_verify_depth", HS, "1", slots.number, default=1)
    client_certificate: str = directive("ssl_client_certificate", HS, "1", _file, default="")
    trusted_certificate: str = directive("ssl_trusted_certificate", HS, "1", _file, default="")
    crl: str = directive("ssl_crl", HS, "1", _file, default="")
    session_cache: int | None = directive("ssl_session_cache", HS, "1|2", _session_cache)
    session_tickets: bool = directive("ssl_session_tickets", HS, "flag", slots.flag, default=True)
    session_timeout: float = directive("ssl_session_timeout", HS, "1", slots.sec, default=300.0)
    buffer_size: int = directive("ssl_buffer_size", HS, "1", slots.size, default=16384)
    conf_command: list[tuple[str, str, Place]] = directive("ssl_conf_command", HS, "2", conf_command, many=True)
    reject_handshake: bool = directive("ssl_reject_handshake", HS, "flag", slots.flag, default=False)
    context: ssl.SSLContext | None

    @property
    def serves(self) -> bool:
        """Whether there is, or will be, a context."""
        return bool(self.certificate or self.reject_handshake)

    def finish(self, scope: "Scope") -> None:
        self.context = None
        if scope.ctx is Ctx.HTTP:  # what no server uses is not loaded either, as on nginx
            http = scope.config.http

            def load_all() -> None:
                for server in http.servers:
                    conf_of(server).load(scope)

            http.finishers.append(load_all)

    def load(self, scope: "Scope") -> None:
        """Make the context, once for all servers that share this. Raises ConfError."""
        if self.context is not None or not self.serves:
            return
        if not self.certificate:
            self.context = context.new_context(True, self.protocols, self.ciphers)
            self.context.sni_callback = _chosen
            return
        cert, place = self.certificate[-1]
        if len(self.certificate_key) < len(self.certificate):
            reason = f'no "ssl_certificate_key" is defined for certificate "{cert}"'
            raise ConfError(reason, *place)
        try:
            self.context = self._build(os.path.join(os.path.dirname(scope.config.path), ""))
        except (ContextError, ssl.SSLError, OSError) as error:
            raise ConfError(str(error), *place) from None

    def _build(self, directory: str) -> ssl.SSLContext:
        made = context.new_context(True, self.protocols, self.ciphers)
        for (cert, _), (key, _) in zip(self.certificate, self.certificate_key, strict=False):
            context.use_certificate(made, read_pem(cert), read_pem(key, "certificate key"), self.password_file or ())
        if not self.prefer_server_ciphers:
            made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        if not self.session_tickets:
            made.options |= ssl.OP_NO_TICKET
        if self.dhparam:
            try:
                made.load_dh_params(self.dhparam)
            except (ssl.SSLError, OSError) as error:
                raise ContextError(f'cannot load DH parameters "{self.dhparam}" ({text(error)})') from None
        made.set_alpn_protocols(["http/1.1", "http/1.0", "http/0.9"])
        openssl.keep_sessions(made, self.session_cache, int(self.session_timeout))
        if self.buffer_size < 16384:
            openssl.limit_records(made, self.buffer_size)
        if self.verify_client != OFF:
            self._ask_for_certificates(made)
        commands = [("Groups", self.ecdh_curve)] if self.ecdh_curve != "auto" else []
        commands += [(name, value) for name, value, _ in self.conf_command]
        if commands:
            context.command(made, commands, directory)
        made.sni_callback = _chosen
        return made

    def _ask_for_certificates(self, made: ssl.SSLContext) -> None:
        if not (self.client_certificate or self.trusted_certificate) and self.verify_client != OPTIONAL_NO_CA:
            raise ContextError("no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client")
        for path in filter(None, (self.client_certificate, self.trusted_certificate)):
            context.trust(made, path, self.verify_depth)
        if self.client_certificate:
            openssl.name_authorities(made, self.client_certificate)
        if self.crl:
            context.revoke(made, self.crl)
        openssl.verify_later(made, self.verify_depth)


def conf_of(server: "Server") -> SslConf:
    """The TLS configuration in force in a server."""
    return server.location.get(SslConf)


def check(listen: "Listen", servers: "list[Server]") -> None:
    """An address that speaks TLS needs a certificate: its default server's or, where that refuses, the others'.

    Raises ConfError.
    """
    if not openssl.available():
        raise ConfError('"listen ... ssl" needs an OpenSSL that this Python does not let through', *listen.places[0])
    default = listen.hosts.default
    wanting = servers if conf_of(default).reject_handshake and not conf_of(default).certificate else [default]
    for server in wanting:
        if not conf_of(server).serves:
            reason = 'no "ssl_certificate" is defined for the "listen ... ssl" directive'
            raise ConfError(reason, server.file, server.line)


# connections


class ServerLayer(TlsLayer):
    """A client's TLS; a client that speaks plain HTTP instead gets its connection without the layer."""

    __slots__ = ("conn", "heard", "server_name")

    RUDE_END = True  # clients often leave so; what ends a request is not the close

    def __init__(self, conn: Connection, made: ssl.SSLContext) -> None:
        super().__init__(conn, made, self._shaken, server_side=True)
        self.conn = conn
        self.server_name: bytes | None = None  # as the client sent it (SNI)
        self.heard = False
        self.tls.layer = self  # for the callback, which is the context's

    def data_received(self, data: bytes) -> None:
        if not self.heard:
            self.heard = True
            if data[0] != 0x16 and not data[0] & 0x80:  # neither a TLS record nor SSLv2's
                conn, raw = self.conn, self._raw
                conn.tls = None
                conn.transport = raw
                raw.set_protocol(conn)
                conn.data_received(data)
                return
        super().data_received(data)

    def _shaken(self) -> None:
        error = self.error
        if error is None:
            return
        if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
            reason = "peer closed connection in SSL handshake"
        else:
            reason = f"SSL_do_handshake() failed ({text(error)})"
        conn = self.conn
        where = f"client: {conn.remote_addr.decode()}, server: {conn.listen.address.text}"
        conn.server.location.error_log.emit(Level.INFO, f"{reason} while SSL handshaking, {where}", conn.number)
        self.abort()


def accept(worker: "HttpWorker", listen: "Listen") -> ServerLayer:
    """The protocol of a new connection to an address that speaks TLS."""
    conn = Connection(worker, listen)
    made = conf_of(listen.hosts.default).context
    assert made is not None, "checked when the configuration was built"
    conn.tls = layer = ServerLayer(conn, made)
    return layer


def _chosen(tls: ssl.SSLObject, name: str | None, made: ssl.SSLContext) -> int | None:
    """The client has named the server that it wants, or has not."""
    layer: ServerLayer = tls.layer  # type: ignore[attr-defined]
    conn = layer.conn
    if name:
        host = name.lower().encode("utf-8", "surrogateescape")
        conn.server = conn.listen.hosts.find(host)[0]
        layer.server_name = host
    conf = conf_of(conn.server)
    if conf.reject_handshake:
        return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
    if conf.context is not None and conf.context is not made:
        tls.context = conf.context
        openssl.take_over(tls, conf.context)
    return None


# requests


def refuse(r: "Request") -> int:
    """The status that a request on an address with TLS is refused with; 0: it is welcome."""
    conn = r.conn
    tls = conn.tls
    if tls is None:
        r.log(Level.INFO, "client sent plain HTTP request to HTTPS port")
        return PLAIN_HTTP
    verify = conf_of(r.server).verify_client
    if verify == OFF:
        return 0
    if tls.server_name is not None and tls.server_name != r.host:
        # who was asked for a certificate in another server's name is none of this one's
        r.log(Level.INFO, "client attempted to request the server name different from the one that was negotiated")
        return 421
    code, why = openssl.verify_result(tls.tls)
    if code and (verify != OPTIONAL_NO_CA or code not in _UNKNOWN_CA):
        r.log(Level.INFO, f"client SSL certificate verify error: ({code}:{why})")
        return CERTIFICATE_ERROR
    if verify == ON and not tls.tls.getpeercert(True):
        r.log(Level.INFO, "client sent no required SSL certificate")
        return NO_CERTIFICATE
    return 0


def layer_of(r: Any) -> ServerLayer | None:
    """The TLS of a request's connection."""
    tls: ServerLayer | None = r.conn.tls
    return tls
