"""The `_ssl_*` directives that upstream protocols share, and the contexts made of them when the configuration is built.

A context is made once for each distinct configuration: locations that inherit the same directives share it, and
sessions with it.
"""

import os
import ssl
from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import Template
from headgate.worker.tls import context, openssl
from headgate.worker.tls.context import ContextError, Pem, read_pem
from headgate.worker.upstream.certificates import CertificateCache
from headgate.worker.upstream.tls import Certificate, ClientContext, Policy

if TYPE_CHECKING:
    from headgate.conf.build import Scope

Place = tuple[str, int]


def _place(call: Call) -> Place:
    return call.statement.file, call.statement.line


def conf_path(call: Call, name: str) -> str:
    """A file's name made absolute against the directory of the configuration file (nginx: conf_prefix)."""
    return os.path.join(os.path.dirname(call.scope.config.path), name) if name else ""


def _file(call: Call) -> tuple[str, Place]:
    return conf_path(call, call.args[0]), _place(call)


def _pem(call: Call) -> tuple[Template, Place]:
    for kind in ("engine:", "store:"):
        if call.args[0].startswith(kind):
            raise call.error_at(f'"{call.name} {kind}" is known to nginx but not implemented by headgate')
    return call.template(call.args[0]), _place(call)


def protocols(call: Call) -> frozenset[str]:
    """`TLSv1.2 TLSv1.3`."""
    known = {name.lower(): name for name in context.PROTOCOLS}
    for word in call.args:
        if word.lower() not in known:
            raise call.error_at(f'invalid value "{word}"')
    return frozenset(known[word.lower()] for word in call.args)


def conf_command(call: Call) -> tuple[str, str, Place]:
    """`NAME VALUE` of SSL_CONF_cmd(3)."""
    if not openssl.available():
        raise call.error("needs an OpenSSL that this Python does not let through")
    return call.args[0], call.args[1], _place(call)


def password_file(call: Call) -> tuple[bytes, ...]:
    """The passwords of a file, one a line."""
    try:
        return context.read_passwords(conf_path(call, call.args[0]))
    except ContextError as error:
        raise call.error_at(str(error)) from None


def certificate_cache(call: Call) -> CertificateCache | None:
    """`max=N [inactive=time] [valid=time]` or `off`."""
    count, inactive, valid = 0, 10.0, 60.0
    off = False
    for word in call.args:
        name, _, value = word.partition("=")
        seconds = slots.parse_time(value, msec=False)
        if name == "max" and value.isdigit() and int(value):
            count = int(value)
        elif name == "inactive" and seconds is not None:
            inactive = seconds
        elif name == "valid" and seconds is not None:
            valid = seconds
        elif word == "off":
            off = True
        else:
            raise call.error_at(f'invalid parameter "{word}"')
    if off:
        return None
    if not count:
        raise call.error_at(f'"{call.name}" must have the "max" parameter')
    return CertificateCache(count, inactive, valid)


class TlsConf(Conf, level=Ctx.LOCATION):
    """TLS to upstream servers. `tls` is None where no connection can need it."""

    ssl_session_reuse: bool = directive("_ssl_session_reuse", HSL, "flag", slots.flag, default=True)
    ssl_protocols: frozenset[str] = directive("_ssl_protocols", HSL, "1+", protocols, default=context.DEFAULT_PROTOCOLS)
    ssl_ciphers: str = directive("_ssl_ciphers", HSL, "1", slots.string, default="DEFAULT")
    ssl_name: Template | None = directive("_ssl_name", HSL, "1", slots.template)
    ssl_server_name: bool = directive("_ssl_server_name", HSL, "flag", slots.flag, default=False)
    ssl_verify: bool = directive("_ssl_verify", HSL, "flag", slots.flag, default=False)
    ssl_verify_depth: int = directive("_ssl_verify_depth", HSL, "1", slots.number, default=1)
    ssl_trusted_certificate: tuple[str, Place] | None = directive("_ssl_trusted_certificate", HSL, "1", _file)
    ssl_crl: tuple[str, Place] | None = directive("_ssl_crl", HSL, "1", _file)
    ssl_certificate: tuple[Template, Place] | None = directive("_ssl_certificate", HSL, "1", _pem)
    ssl_certificate_key: tuple[Template, Place] | None = directive("_ssl_certificate_key", HSL, "1", _pem)
    ssl_certificate_cache: CertificateCache | None = directive(
        "_ssl_certificate_cache", HSL, "1|2|3", certificate_cache
    )
    ssl_password_file: tuple[bytes, ...] | None = directive("_ssl_password_file", HSL, "1", password_file)
    ssl_conf_command: list[tuple[str, str, Place]] = directive("_ssl_conf_command", HSL, "2", conf_command, many=True)
    tls: Policy | None = None

    def make_tls(self, scope: "Scope", place: Place, name: str = "proxy") -> Policy:
        """The policy of a location that may connect with TLS; `place` is what asks for it. Raises ConfError."""
        config = scope.config
        cert, key = self.ssl_certificate, self.ssl_certificate_key
        directory = os.path.join(os.path.dirname(config.path), "")
        if cert is not None and cert[0].const == b"":
            cert = None
        if cert is not None and key is None:
            reason = f'no "{name}_ssl_certificate_key" is defined for certificate "{cert[0].source}"'
            raise ConfError(reason, *cert[1])
        if self.ssl_verify and (self.ssl_trusted_certificate is None or not self.ssl_trusted_certificate[0]):
            raise ConfError(f"no {name}_ssl_trusted_certificate for {name}_ssl_verify", *place)
        known: dict[Any, ClientContext] = config.http.tls
        settings = (
            self.ssl_session_reuse, self.ssl_protocols, self.ssl_ciphers, self.ssl_verify, self.ssl_verify_depth,
            self.ssl_trusted_certificate, self.ssl_crl, self.ssl_password_file, tuple(self.ssl_conf_command),
        )  # fmt: skip
        certificate: Certificate | None = None
        static: tuple[str, str] | None = None
        if cert is not None and key is not None:
            if cert[0].const is not None and key[0].const is not None:
                static = _absolute(cert[0].source, directory), _absolute(key[0].source, directory)
            else:
                contexts = known.setdefault((settings, "by certificate"), {})  # type: ignore[arg-type]
                certificate = Certificate(
                    cert[0],
                    key[0],
                    directory,
                    self.ssl_certificate_cache,
                    lambda c, k: self._client(c, k, directory),
                    contexts,  # type: ignore[arg-type]
                )
        client = known.get((settings, static))
        if client is None:
            at = cert[1] if cert is not None and static is not None else place
            client = known[settings, static] = self._build(static, directory, at)
        return Policy(client, self.ssl_name, self.ssl_server_name, certificate)

    def _build(self, static: tuple[str, str] | None, directory: str, place: Place) -> ClientContext:
        try:
            if static is None:
                return self._client(None, None, directory)
            return self._client(read_pem(static[0]), read_pem(static[1], "certificate key"), directory)
        except _Misplaced as error:
            raise ConfError(str(error), *error.place) from None
        except ContextError as error:
            raise ConfError(str(error), *place) from None

    def _client(self, certificate: Pem | None, key: Pem | None, directory: str) -> ClientContext:
        """A context as configured, with this certificate. Raises ContextError."""
        made: ssl.SSLContext = context.new_context(False, self.ssl_protocols, self.ssl_ciphers)
        if certificate is not None and key is not None:
            context.use_certificate(made, certificate, key, self.ssl_password_file or ())
        if self.ssl_verify:
            assert self.ssl_trusted_certificate is not None
            with _at(self.ssl_trusted_certificate[1]):
                context.trust(made, self.ssl_trusted_certificate[0], self.ssl_verify_depth)
            if self.ssl_crl is not None and self.ssl_crl[0]:
                with _at(self.ssl_crl[1]):
                    context.revoke(made, self.ssl_crl[0])
        if self.ssl_conf_command:
            with _at(self.ssl_conf_command[0][2]):
                context.command(made, [(name, value) for name, value, _ in self.ssl_conf_command], directory)
        return ClientContext(made, self.ssl_verify, self.ssl_session_reuse)


class _Misplaced(ContextError):
    """A ContextError that is another directive's fault."""

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.place = place


class _at:
    """Says which directive a ContextError inside belongs to."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, ContextError):
            raise _Misplaced(str(error), self.place) from None


def _absolute(name: str, directory: str) -> str:
    return name if name.startswith(("/", "data:")) else directory + name
