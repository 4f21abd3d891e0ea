"""TLS contexts from what a configuration says, with nginx's error texts.

A certificate or key is a file, or `data:` and the PEM text itself. Keys may be encrypted: the passwords of a password
file are tried in turn, and nobody is ever asked at a terminal.
"""

import contextlib
import hashlib
import os
import re
import ssl
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from headgate.worker.tls import openssl
from headgate.worker.tls.errors import text

PROTOCOLS = {
    "SSLv2": None,
    "SSLv3": ssl.TLSVersion.SSLv3,
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}  # OpenSSL 3 has no SSLv2: the word is known and means nothing, as on nginx
DEFAULT_PROTOCOLS = frozenset(("TLSv1.2", "TLSv1.3"))
_OFF = {
    ssl.TLSVersion.SSLv3: ssl.OP_NO_SSLv3,
    ssl.TLSVersion.TLSv1: ssl.OP_NO_TLSv1,
    ssl.TLSVersion.TLSv1_1: ssl.OP_NO_TLSv1_1,
    ssl.TLSVersion.TLSv1_2: ssl.OP_NO_TLSv1_2,
    ssl.TLSVersion.TLSv1_3: ssl.OP_NO_TLSv1_3,
}
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.S
)
MAX_PASSWORD = 4096


class ContextError(Exception):
    """A context cannot be made; the text is the log's."""


@dataclass(frozen=True, slots=True)
class Pem:
    """A certificate or key: `name` as configured, and its bytes."""

    name: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()

    @property
    def encrypted(self) -> bool:
        """Whether it is a key that needs a password."""
        return b"ENCRYPTED" in self.data


def read_pem(name: str, what: str = "certificate") -> Pem:
    """Reads a file, or takes what follows `data:`. Raises ContextError."""
    if name.startswith("data:"):
        return Pem(name, name[5:].encode("utf-8", "surrogateescape"))
    try:
        with open(name, "rb") as file:
            return Pem(name, file.read())
    except (OSError, ValueError) as error:
        raise ContextError(f'cannot load {what} "{name}": BIO_new_file() failed ({text(error)})') from None


def read_passwords(path: str) -> tuple[bytes, ...]:
    """The lines of a password file. Raises ContextError."""
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        raise ContextError(f'open() "{path}" failed ({error.errno}: {error.strerror})') from None
    if any(len(line) > MAX_PASSWORD for line in lines):
        raise ContextError(f'too long line in "{path}"')
    return tuple(line.removesuffix(b"\r") for line in lines if line)


def new_context(server_side: bool, protocols: frozenset[str], ciphers: str) -> ssl.SSLContext:
    """A context that verifies nobody yet. Raises ContextError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    wanted = sorted(version for name in protocols if (version := PROTOCOLS[name]) is not None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are the configuration's business
        if wanted:
            context.minimum_version, context.maximum_version = wanted[0], wanted[-1]
        for version, option in _OFF.items():
            if version not in wanted:
                context.options |= option
    context.options |= ssl.OP_NO_COMPRESSION
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise ContextError(f'SSL_CTX_set_cipher_list("{ciphers}") failed ({text(error)})') from None
    return context


def use_certificate(context: ssl.SSLContext, certificate: Pem, key: Pem, passwords: Sequence[bytes] = ()) -> None:
    """Make the context present this certificate (with its chain). Raises ContextError."""
    with _file(certificate.data) as cert_path, _file(key.data) as key_path:
        failure: Exception | None = None
        for password in passwords or (b"",):
            try:
                context.load_cert_chain(cert_path, key_path, lambda p=password: p)
                return
            except (ssl.SSLError, OSError, ValueError) as error:
                failure = error
    assert failure is not None
    if not _is_certificate(certificate.data):
        raise ContextError(
            f'cannot load certificate "{certificate.name}": PEM_read_bio_X509_AUX() failed ({text(failure)})'
        )
    if getattr(failure, "reason", None) == "KEY_VALUES_MISMATCH":
        raise Mismatch(f'SSL_CTX_use_PrivateKey("{key.name}") failed ({text(failure)})')
    raise ContextError(f'cannot load certificate key "{key.name}": PEM_read_bio_PrivateKey() failed ({text(failure)})')


class Mismatch(ContextError):
    """The key is not the certificate's."""


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """A name under which OpenSSL can open `data`: memory, so that no key touches a disk."""
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _is_certificate(data: bytes) -> bool:
    found = _CERTIFICATE.search(data)
    if found is None:
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found[0].decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def trust(context: ssl.SSLContext, path: str, depth: int) -> None:
    """Require a certificate that the authorities in `path` vouch for. Raises ContextError."""
    _load(context, path, "certificate")
    openssl.set_verify_depth(context, depth)
    context.verify_mode = ssl.CERT_REQUIRED


def revoke(context: ssl.SSLContext, path: str) -> None:
    """Check certificates against the revocation lists in `path`: every one of a chain must have one. ContextError."""
    _load(context, path, "CRL")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN


def _load(context: ssl.SSLContext, path: str, what: str) -> None:
    pem = read_pem(path, what)
    reader = "PEM_read_bio_X509_CRL()" if what == "CRL" else "PEM_read_bio_X509_AUX()"
    try:
        with _file(pem.data) as name:
            context.load_verify_locations(name)
    except (ssl.SSLError, OSError) as error:
        raise ContextError(f'cannot load {what} "{path}": {reader} failed ({text(error)})') from None


def command(context: ssl.SSLContext, commands: list[tuple[str, str]], directory: str) -> None:
    """OpenSSL's own configuration commands. Raises ContextError."""
    try:
        openssl.conf_commands(context, commands, directory)
    except openssl.ConfCommandError as error:
        raise ContextError(str(error)) from None
