"""Passwords as auth_basic_user_file has them: apr1, {PLAIN}, {SHA}, {SSHA} (RFC 2307), and what crypt(3) knows.

crypt(3) is the system's own, called with ctypes: the standard library's module is gone from Python 3.13, and what a
system's `htpasswd` or `openssl passwd` makes is what its libcrypt understands. nginx: ngx_crypt.c.
"""

import base64
import binascii
import ctypes
import hashlib
import hmac
from functools import cache
from typing import Any

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_APR1 = b"$apr1$"
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so")
_DATA = 1 << 18  # bytes: no libcrypt's struct crypt_data is larger
# as the bytes of the last digest go into groups of three, then the one that is left
_GROUPS = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


class CryptError(Exception):
    """The stored form is none that can be checked here."""


def verify(password: bytes, stored: bytes) -> bool:
    """Whether `password` is the one that `stored` was made of; CPU time only. Raises CryptError."""
    return hmac.compare_digest(_encrypt(password.partition(b"\0")[0], stored), stored)


def is_slow(stored: bytes) -> bool:
    """Whether checking takes long by design, so that it belongs into a thread."""
    return stored.startswith((b"$2", b"$5$", b"$6$", b"$7$", b"$y$", b"$gy$", b"_"))


def _encrypt(password: bytes, stored: bytes) -> bytes:
    if stored.startswith(_APR1):
        return _apr1(password, stored[len(_APR1) :].partition(b"$")[0][:8])
    if stored.startswith(b"{PLAIN}"):
        return b"{PLAIN}" + password
    if stored.startswith(b"{SSHA}"):
        return b"{SSHA}" + _sha(password, _ssha_salt(stored[6:]))
    if stored.startswith(b"{SHA}"):
        return b"{SHA}" + _sha(password, b"")
    return _system(password, stored)


def _sha(password: bytes, salt: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(password + salt, usedforsecurity=False).digest() + salt)


def _ssha_salt(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)[20:]
    except binascii.Error:
        return b""


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _apr1(password: bytes, salt: bytes) -> bytes:
    """Apache's MD5: Poul-Henning Kamp's, under another name."""
    mixed = _md5(password, salt, password)
    size = len(password)
    text = [password, _APR1, salt, (mixed * (size // 16 + 1))[:size]]
    while size:
        text.append(b"\0" if size & 1 else password[:1])
        size >>= 1
    digest = _md5(*text)
    for i in range(1000):
        odd = bool(i & 1)
        digest = _md5(
            password if odd else digest,
            salt if i % 3 else b"",
            password if i % 7 else b"",
            digest if odd else password,
        )
    out = b"".join(_to64(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _GROUPS)
    return _APR1 + salt + b"$" + out + _to64(digest[11], 2)


def _to64(value: int, count: int) -> bytes:
    return bytes(_ALPHABET[value >> 6 * i & 63] for i in range(count))


@cache
def _libcrypt() -> Any:
    for name in _LIBRARIES:
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        function.restype = ctypes.c_char_p
        return function
    return None


def _system(password: bytes, stored: bytes) -> bytes:
    function = _libcrypt()
    if function is None:
        raise CryptError("no libcrypt on this system")
    out: bytes | None = function(password, stored, ctypes.create_string_buffer(_DATA))
    if out is None or out.startswith(b"*"):
        raise CryptError("crypt_r() failed")
    return out
