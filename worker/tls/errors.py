"""OpenSSL's errors as nginx writes them: `(SSL: error:0A00010B:SSL routines::wrong version number)`.

Python takes the errors off OpenSSL's queue and keeps names; the numbers are put together again from these.
"""

import re
import ssl

try:
    from _ssl import err_names_to_codes as _CODES
except ImportError:  # another implementation: texts without numbers
    _CODES = {}

_LIBRARIES = {
    "SSL": "SSL routines", "X509": "x509 certificate routines", "PEM": "PEM routines", "ASN1": "asn1 encoding routines",
    "EVP": "digital envelope routines", "RSA": "rsa routines", "EC": "elliptic curve routines", "BIO": "BIO routines",
}  # fmt: skip
_ALERTS = 1000  # SSL_AD_REASON_OFFSET: reasons from here on are alerts that the other side sent
_MESSAGE = re.compile(r"(?:\[[^]]*\] )?(.*?)(?: \(_ssl\.c:\d+\))?$", re.S)


def text(error: Exception) -> str:
    """`SSL: error:...` of an SSLError; of another OSError that of OpenSSL for a system call."""
    if not isinstance(error, OSError):
        return f"SSL: {error}"
    if not isinstance(error, ssl.SSLError):
        number = getattr(error, "errno", None) or 0
        return f"SSL: error:{0x80000000 | number:08X}:system library::{getattr(error, 'strerror', None) or error}"
    if isinstance(error, ssl.SSLEOFError):
        return "SSL: error:0A000126:SSL routines::unexpected eof while reading"
    found = _MESSAGE.match(str(error.args[-1] if error.args else error))
    message = found[1] if found else str(error)
    library, reason = getattr(error, "library", None), getattr(error, "reason", None)
    code = _CODES.get(reason) if reason else None
    if code is None:
        return f"SSL: {message}"
    alert = f":SSL alert number {code[1] - _ALERTS}" if library == "SSL" and code[1] >= _ALERTS else ""
    return f"SSL: error:{code[0] << 23 | code[1]:08X}:{_LIBRARIES.get(library or '', library)}::{message}{alert}"
