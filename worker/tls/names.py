"""Whether a certificate stands for a host name: X509_check_host() of OpenSSL, on what `SSLObject.getpeercert()` gives.

The DNS names of subjectAltName decide; only where there is none does the common name (RFC 6125 section 6.4.4).
"""

import re
from collections.abc import Mapping
from typing import Any

_LABEL = re.compile(r"[a-z0-9-]+")


def matches(certificate: Mapping[str, Any], host: str) -> bool:
    """True when one of the certificate's names is `host` or a wildcard for it."""
    if not host:
        return False
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    if not names:
        names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    host = host.lower()
    return any(_matches(name.lower(), host) for name in names)


def _matches(name: str, host: str) -> bool:
    if name == host:
        return True
    if "*" not in name:
        return False
    first, _, rest = name.partition(".")
    before, star, after = first.partition("*")
    # one star, in the first label, which is no A-label, and two labels behind it at least (RFC 6125 section 6.4.3)
    if not star or "*" in after or "*" in rest or "." not in rest or first.startswith("xn--"):
        return False
    label, _, tail = host.partition(".")
    if tail != rest or not label.startswith(before) or not label[len(before) :].endswith(after):
        return False
    matched = label[len(before) : len(label) - len(after)]
    if (before or after) and label.startswith("xn--"):
        return False
    return _LABEL.fullmatch(matched) is not None
