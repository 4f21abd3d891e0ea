"""Certificates and TLS backends for tests.

    ca = Authority("root")                              # self-signed; `Authority("mid", ca)` is signed by another
    leaf = ca.issue("localhost", tmp_path)              # files: leaf.crt (with the intermediates), leaf.key
    leaf = ca.issue("a", tmp_path, password=b"secret")  # an encrypted key
    ca.write(tmp_path / "ca.crt"); ca.write_crl(tmp_path / "crl.pem", revoked=[leaf])
    secure = TlsBackend(echo, leaf.server())            # a Backend that speaks TLS
    assert secure.handshakes[0].sni == "localhost"

Rules: keys are elliptic curves, which are made in no time; all certificates are valid for a day. `TlsBackend` closes
without close_notify unless `notify` is given, as many servers do.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.backends import Backend

_serials = itertools.count(1000)
_DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass
class Leaf:
    """A certificate with its key, in files."""

    certificate: x509.Certificate
    cert: Path
    key: Path

    def server(self, **options: Any) -> ssl.SSLContext:
        """A server's context; `options` are set as attributes."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        for name, value in options.items():
            setattr(context, name, value)
        return context


class Authority:
    """A certificate authority."""

    def __init__(self, name: str, parent: Authority | None = None) -> None:
        self.name = name
        self.parent = parent
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, parent or self, [], ca=True)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, by: Authority, names: Iterable[str], ca: bool) -> Any:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(by.name))
            .public_key(key.public_key())
            .serial_number(next(_serials))
            .not_valid_before(_now() - _DAY)
            .not_valid_after(_now() + _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        names = list(names)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        return builder.sign(by.key, hashes.SHA256())

    def issue(self, name: str, directory: Path, *, names: Iterable[str] = (), password: bytes | None = None) -> Leaf:
        """A certificate for `name` (and the DNS `names`), in `directory`/`name`.crt and .key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, self, names, ca=False)
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        cert_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
        cert_path.write_bytes(b"".join(_pem(each) for each in [certificate, *self._intermediates()]))
        key_path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return Leaf(certificate, cert_path, key_path)

    def _intermediates(self) -> list[x509.Certificate]:
        return [self.certificate, *self.parent._intermediates()] if self.parent is not None else []

    def write(self, path: Path) -> Path:
        """The authority's own certificate."""
        path.write_bytes(_pem(self.certificate))
        return path

    def write_crl(self, path: Path, revoked: Iterable[Leaf] = ()) -> Path:
        """The authority's list of revoked certificates."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(self.name))
        builder = builder.last_update(_now() - _DAY).next_update(_now() + _DAY)
        for leaf in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(leaf.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(_now() - _DAY).build())
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


@dataclass
class Handshake:
    """What a TLS backend saw of a connection; `client` is the client certificate's common name."""

    sni: str | None
    reused: bool
    version: str
    cipher: str
    client: str | None


class TlsBackend(Backend):
    """A Backend behind TLS. `handshakes` has one entry for each connection that got so far, `failures` the others."""

    def __init__(self, handler: Any, context: ssl.SSLContext, *, notify: bool = False, **options: Any) -> None:
        self.context = context
        self.notify = notify
        self.handshakes: list[Handshake] = []
        self.failures: list[Exception] = []
        self._names: dict[int, str | None] = {}
        context.sni_callback = self._heard
        super().__init__(handler, **options)

    def _heard(self, sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        self._names[id(sock)] = name

    def _serve(self, sock: socket.socket, number: int) -> None:
        secure = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._sockets.discard(sock)
            self._sockets.add(secure)
        try:
            secure.do_handshake()
            shake = self._shaken(secure)
        except (OSError, AttributeError) as error:  # the latter of a socket that `stop` has shut down meanwhile
            with self._changed:
                self.failures.append(error)
                self._sockets.discard(secure)
                secure.close()
                self.closed += 1
                self._changed.notify_all()
            return
        self.handshakes.append(shake)
        super()._serve(secure, number)

    def _shaken(self, secure: ssl.SSLSocket) -> Handshake:
        subject = (secure.getpeercert() or {}).get("subject", ())
        return Handshake(
            self._names.pop(id(secure), None),
            bool(secure.session_reused),
            secure.version() or "",
            (secure.cipher() or ("",))[0],
            next((value for part in subject for kind, value in part if kind == "commonName"), None),
        )

    def _requests(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):  # a proxy that goes away is no error
            super()._requests(sock, number)

    def _answer(self, sock: socket.socket, request: Any, answer: Any) -> bool:
        keep = super()._answer(sock, request, answer)
        if self.notify and not keep:
            with contextlib.suppress(OSError):
                sock.unwrap()  # type: ignore[attr-defined]
        return keep
