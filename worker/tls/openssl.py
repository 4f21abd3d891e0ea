"""What nginx sets in OpenSSL and Python's ssl module does not offer, done in the library that the module itself uses.

Rules: this is the only file that looks behind an SSLContext. It finds the SSL_CTX by CPython's object layout (the
first field of both types, since they exist) and checks at the first use that it is the right one; where that cannot be
(another Python, an ssl module whose OpenSSL is hidden) `available` is False and whoever needs it refuses the directive.
"""

import ctypes
import ssl
import sys
from functools import cache
from typing import Any

# openssl/ssl.h: SSL_CONF_FLAG_FILE, CLIENT, SERVER, SHOW_ERRORS, CERTIFICATE
_CONF_FLAGS = 0x2 | 0x4 | 0x8 | 0x10 | 0x20
_CONF_TYPE_FILE, _CONF_TYPE_DIR = 2, 3


@cache
def _library() -> Any:
    """OpenSSL as `_ssl` has loaded it, or None."""
    try:
        import _ssl

        lib = ctypes.CDLL(getattr(_ssl, "__file__", None))
        _declare(lib)
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for option in (ssl.OP_NO_TICKET, 0):
            probe.options = (probe.options & ~ssl.OP_NO_TICKET) | option
            if lib.SSL_CTX_get_options(_context(probe)) != int(probe.options) & 0xFFFFFFFFFFFFFFFF:
                return None
    except (ImportError, OSError, AttributeError):
        return None
    return lib


def _declare(lib: Any) -> None:
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, *arguments in (
        ("SSL_CTX_get_options", ctypes.c_uint64, pointer),
        ("SSL_CTX_set_verify_depth", None, pointer, number),
        ("SSL_CONF_CTX_new", pointer),
        ("SSL_CONF_CTX_free", None, pointer),
        ("SSL_CONF_CTX_set_flags", ctypes.c_uint, pointer, ctypes.c_uint),
        ("SSL_CONF_CTX_set_ssl_ctx", None, pointer, pointer),
        ("SSL_CONF_CTX_finish", number, pointer),
        ("SSL_CONF_cmd", number, pointer, text, text),
        ("SSL_CONF_cmd_value_type", number, pointer, text),
        ("ERR_clear_error", None),
        ("ERR_get_error", ctypes.c_ulong),
        ("ERR_error_string_n", None, ctypes.c_ulong, pointer, ctypes.c_size_t),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments


def available() -> bool:
    """Whether the functions of this file can be used."""
    return sys.implementation.name == "cpython" and _library() is not None


def _context(context: ssl.SSLContext) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__)


def errors() -> str:
    """OpenSSL's pending errors as nginx shows them, `SSL: error:0A00018E:SSL routines::...`; they are gone then."""
    lib, texts, buffer = _library(), [], ctypes.create_string_buffer(256)
    while code := lib.ERR_get_error():
        lib.ERR_error_string_n(code, buffer, len(buffer))
        texts.append(buffer.value.decode(errors="replace"))
    return f"SSL: {' '.join(texts)}" if texts else "SSL:"


def set_verify_depth(context: ssl.SSLContext, depth: int) -> None:
    """How many intermediate certificates a chain may have."""
    _library().SSL_CTX_set_verify_depth(_context(context), depth)


class ConfCommandError(Exception):
    """OpenSSL does not take a configuration command; the text is nginx's, with OpenSSL's own."""


def conf_commands(context: ssl.SSLContext, commands: list[tuple[str, str]], directory: str) -> None:
    """OpenSSL's configuration commands (SSL_CONF_cmd(3)); files are relative to `directory`."""
    lib = _library()
    lib.ERR_clear_error()
    conf = lib.SSL_CONF_CTX_new()
    try:
        lib.SSL_CONF_CTX_set_flags(conf, _CONF_FLAGS)
        lib.SSL_CONF_CTX_set_ssl_ctx(conf, _context(context))
        for name, value in commands:
            key = name.encode("utf-8", "surrogateescape")
            if lib.SSL_CONF_cmd_value_type(conf, key) in (_CONF_TYPE_FILE, _CONF_TYPE_DIR) and value[:1] != "/":
                value = directory + value
            if lib.SSL_CONF_cmd(conf, key, value.encode("utf-8", "surrogateescape")) <= 0:
                raise ConfCommandError(f'SSL_CONF_cmd("{name}", "{value}") failed ({errors()})')
        if lib.SSL_CONF_CTX_finish(conf) != 1:
            raise ConfCommandError(f"SSL_CONF_finish() failed ({errors()})")
    finally:
        lib.SSL_CONF_CTX_free(conf)
