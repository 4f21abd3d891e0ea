"""TLS to upstream servers: which context a request uses, the handshake and its checks, sessions to resume.

`Policy` is what a location's configuration says, `Use` what one request makes of it. A `Use` is equal to another one
only where context and names are, so it is part of the key of cached connections: they never mix.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.http.request import UPSTREAM
from headgate.worker.tls.context import ContextError, Mismatch, Pem, read_pem
from headgate.worker.tls.errors import text
from headgate.worker.tls.layer import TlsLayer
from headgate.worker.tls.names import matches
from headgate.worker.upstream.errors import GiveUp, Kind, UpstreamError

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.certificates import CertificateCache
    from headgate.worker.upstream.connect import UpstreamConnection
    from headgate.worker.upstream.upstream import Upstream

MAX_SESSIONS = 1024  # of a context in a worker; the oldest go
MAX_CONTEXTS = 64  # with certificates that variables name

# no bytes of the context but its identity count: one is made for each distinct configuration
Key = tuple[str, bytes, str]  # group, address, server name


class ClientContext:
    """An SSLContext with the sessions of the peers it has spoken to. `verify`: names are checked."""

    __slots__ = ("context", "sessions", "verify")

    def __init__(self, context: ssl.SSLContext, verify: bool, reuse: bool) -> None:
        self.context = context
        self.verify = verify
        self.sessions: dict[Key, ssl.SSLSession] | None = {} if reuse else None

    def keep(self, key: Key, layer: TlsLayer) -> None:
        """Note the session of a connection on which the server has begun to answer: its tickets are there by then."""
        session = layer.tls.session
        if session is None or self.sessions is None or not (session.has_ticket or session.id):
            return
        if layer.tls.version() == "TLSv1.3" and not session.has_ticket:
            return
        self.sessions.pop(key, None)
        if len(self.sessions) >= MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.sessions[key] = session


@dataclass(frozen=True, slots=True)
class Use:
    """One request's TLS: `name` is checked in the server's certificate, `sni` is sent (None: none)."""

    client: ClientContext
    name: str
    sni: str | None

    def layer(self, u: "Upstream", conn: "UpstreamConnection", address: bytes) -> TlsLayer:
        """The layer for a new connection to the peer at `address`. Raises GiveUp when the name cannot be sent."""
        client = self.client
        session = None
        key = (u.group.name, address, self.sni or "")
        if client.sessions is not None:
            session = client.sessions.get(key)
        request = u.request

        def changed() -> None:
            request.wake(UPSTREAM)

        sni = self.sni.encode("utf-8", "surrogateescape") if self.sni is not None else None
        try:
            layer = TlsLayer(conn, client.context, changed, server_hostname=sni, session=session)
        except (ssl.SSLError, ValueError) as error:
            request.log(Level.ERROR, f'SSL_set_tlsext_host_name("{self.sni}") failed ({text(error)})')
            raise GiveUp(500) from None
        if client.sessions is not None:
            layer.first = lambda layer: client.keep(key, layer)
        return layer

    async def handshake(self, u: "Upstream", conn: "UpstreamConnection", layer: TlsLayer, timeout: float) -> None:
        """Wait for the handshake and check whom we speak to. Raises UpstreamError; the caller closes."""
        u.request.action = "SSL handshaking to upstream"
        if not layer.done:
            u.worker.timers.set(conn, timeout)
            while not layer.done:
                if layer.error is not None:
                    raise UpstreamError(Kind.ERROR, _refused(layer.error))
                await u.request.wait(UPSTREAM)
            conn.deadline = 0.0
        if self.client.verify and not matches(layer.tls.getpeercert() or {}, self.name):
            raise UpstreamError(Kind.ERROR, f'upstream SSL certificate does not match "{self.name}"')


def _refused(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"upstream SSL certificate verify error: ({error.verify_code}:{error.verify_message})"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, OSError):
        return "peer closed connection in SSL handshake"
    if not isinstance(error, ssl.SSLError):
        reason = f" ({error.errno}: {error.strerror})" if error.errno else ""
        return f"peer closed connection in SSL handshake{reason}"
    return f"SSL_do_handshake() failed ({text(error)})"


@dataclass(slots=True)
class Certificate:
    """A client certificate whose name has variables: read and made into a context when a request wants it."""

    certificate: Template
    key: Template
    directory: str  # that relative names start from
    cache: "CertificateCache | None"
    build: Callable[[Pem | None, Pem | None], ClientContext]
    contexts: dict[tuple[bytes, bytes], ClientContext]

    def client(self, r: "Request") -> ClientContext | None:
        """The context with the certificate for this request, None for none. Raises ContextError."""
        name = self.certificate.get(r)
        if not name:
            return None
        key_name = self.key.get(r)
        try:
            return self._load(self._path(name), self._path(key_name), fresh=False)
        except Mismatch:
            if self.cache is None:
                raise
            return self._load(self._path(name), self._path(key_name), fresh=True)  # one of the two was replaced

    def _path(self, name: bytes) -> str:
        text = name.decode("utf-8", "surrogateescape")
        return text if text.startswith(("/", "data:")) else self.directory + text

    def _load(self, certificate: str, key: str, fresh: bool) -> ClientContext:
        cert_pem = self._pem(certificate, "certificate", fresh)
        key_pem = self._pem(key, "certificate key", fresh)
        digests = (cert_pem.digest, key_pem.digest)
        # a key that needs a password is not shared with locations that do not know it
        known = self.contexts.get(digests)
        if known is None:
            known = self.build(cert_pem, key_pem)
            if len(self.contexts) >= MAX_CONTEXTS:
                del self.contexts[next(iter(self.contexts))]
            self.contexts[digests] = known
        return known

    def _pem(self, name: str, what: str, fresh: bool) -> Pem:
        if self.cache is None or name.startswith("data:"):
            return read_pem(name, what)
        return self.cache.get(name, what, fresh)


class Policy:
    """What a location says of TLS to its upstream servers."""

    __slots__ = ("_uses", "certificate", "client", "name", "server_name")

    def __init__(
        self, client: ClientContext, name: Template | None, server_name: bool, certificate: Certificate | None
    ) -> None:
        self.client = client
        self.name = name
        self.server_name = server_name
        self.certificate = certificate
        self._uses: dict[bytes, Use] = {}

    def use(self, r: "Request", host: str) -> Use | None:
        """This request's TLS; `host` is the upstream's name. None, and it is logged, when a certificate is missing."""
        client = self.client
        if self.certificate is not None:
            try:
                client = self.certificate.client(r) or client
            except ContextError as error:
                r.log(Level.ERROR, str(error))
                return None
            return self._make(client, self.name.get(r) if self.name is not None else fsencode(host))
        name = self.name.get(r) if self.name is not None else fsencode(host)
        known = self._uses.get(name)
        if known is None:
            known = self._make(client, name)
            if len(self._uses) < MAX_SESSIONS:
                self._uses[name] = known
        return known

    def _make(self, client: ClientContext, name: bytes) -> Use:
        host = without_port(name.decode("utf-8", "surrogateescape"))
        return Use(client, host, host if self.server_name and _may_be_sent(host) else None)


def without_port(name: str) -> str:
    """`$proxy_host` and `$http_host` come with a port, which is no part of a name."""
    end = name.find("]") if name.startswith("[") else 0
    at = name.find(":", max(end, 0))
    return name[:at] if at >= 0 else name


def _may_be_sent(host: str) -> bool:
    """Literal addresses are no server names (RFC 6066 section 3)."""
    return bool(host) and not host.startswith("[") and not host.replace(".", "").isdigit()
