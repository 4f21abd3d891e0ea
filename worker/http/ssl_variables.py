"""$ssl_*: what is known of a client's TLS connection and certificate (nginx: ngx_http_ssl_variable)."""

import calendar
import hashlib
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from headgate.conf.template import Getter, Variable
from headgate.worker.http.ssl import layer_of
from headgate.worker.tls import openssl

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


def _of_connection(get: Callable[[Any], bytes | None]) -> Getter:
    """From the SSLObject; not found without TLS."""

    def getter(r: "Request") -> bytes | None:
        layer = layer_of(r)
        return get(layer.tls) if layer is not None else None

    return getter


def _of_certificate(get: Callable[[bytes, dict[str, Any]], bytes]) -> Getter:
    """From the client's certificate (DER, and as Python reads it); empty without one."""

    def getter(r: "Request") -> bytes | None:
        layer = layer_of(r)
        if layer is None:
            return None
        certificate = layer.tls.getpeercert(True)
        return get(certificate, layer.tls.getpeercert() or {}) if certificate else b""

    return getter


def _cipher(tls: ssl.SSLObject) -> bytes:
    cipher = tls.cipher()
    return cipher[0].encode() if cipher else b""


def _session_id(tls: ssl.SSLObject) -> bytes:
    session = tls.session
    return session.id.hex().encode() if session is not None else b""


def _server_name(r: "Request") -> bytes | None:
    layer = layer_of(r)
    return layer.server_name if layer is not None else None


def _verify(r: "Request") -> bytes | None:
    layer = layer_of(r)
    if layer is None:
        return None
    if not layer.tls.getpeercert(True):
        return b"NONE"
    code, why = openssl.verify_result(layer.tls)
    return b"SUCCESS" if not code else f"FAILED:{why}".encode()


def _pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def _legacy(name: bytes) -> bytes:
    """`/C=US/CN=name`, as OpenSSL wrote names before RFC 2253."""
    parts = name.decode("utf-8", "replace").split(",") if name else []
    return "".join(f"/{part}" for part in reversed(parts)).encode()


def _remaining(certificate: bytes, fields: dict[str, Any]) -> bytes:
    """Whole days until the certificate expires."""
    end = calendar.timegm(time.strptime(fields["notAfter"], "%b %d %H:%M:%S %Y %Z")) if "notAfter" in fields else 0
    return b"%d" % max(int(end - time.time()) // 86400, 0)


VARIABLES = [
    Variable("ssl_protocol", _of_connection(lambda tls: (tls.version() or "").encode())),
    Variable("ssl_cipher", _of_connection(_cipher)),
    Variable("ssl_ciphers", _of_connection(lambda tls: ":".join(openssl.offered_ciphers(tls)).encode())),
    Variable("ssl_curve", _of_connection(lambda tls: openssl.negotiated_group(tls).encode())),
    Variable("ssl_curves", _of_connection(lambda tls: ":".join(openssl.offered_groups(tls)).encode())),
    Variable("ssl_session_id", _of_connection(_session_id)),
    Variable("ssl_session_reused", _of_connection(lambda tls: b"r" if tls.session_reused else b".")),
    Variable("ssl_alpn_protocol", _of_connection(lambda tls: (tls.selected_alpn_protocol() or "").encode())),
    Variable("ssl_server_name", _server_name),
    Variable("ssl_client_verify", _verify),
    Variable("ssl_client_cert", _of_certificate(lambda der, _: _pem(der).rstrip().replace(b"\n", b"\n\t"))),
    Variable("ssl_client_raw_cert", _of_certificate(lambda der, _: _pem(der))),
    Variable("ssl_client_escaped_cert", _of_certificate(lambda der, _: quote_from_bytes(_pem(der), safe="").encode())),
    Variable("ssl_client_s_dn", _of_certificate(lambda der, _: openssl.distinguished_name(der, issuer=False))),
    Variable("ssl_client_i_dn", _of_certificate(lambda der, _: openssl.distinguished_name(der, issuer=True))),
    Variable("ssl_client_s_dn_legacy", _of_certificate(lambda der, _: _legacy(openssl.distinguished_name(der, False)))),
    Variable("ssl_client_i_dn_legacy", _of_certificate(lambda der, _: _legacy(openssl.distinguished_name(der, True)))),
    Variable("ssl_client_serial", _of_certificate(lambda _, fields: str(fields.get("serialNumber", "")).encode())),
    Variable("ssl_client_fingerprint", _of_certificate(lambda der, _: hashlib.sha1(der).hexdigest().encode())),
    Variable("ssl_client_v_start", _of_certificate(lambda _, fields: str(fields.get("notBefore", "")).encode())),
    Variable("ssl_client_v_end", _of_certificate(lambda _, fields: str(fields.get("notAfter", "")).encode())),
    Variable("ssl_client_v_remain", _of_certificate(_remaining)),
]
