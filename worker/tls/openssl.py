"""What nginx sets in OpenSSL and Python's ssl module does not offer, done in the library that the module itself uses.

Rules: this is the only file that looks behind an SSLContext and an SSLObject. It finds OpenSSL's own objects by
CPython's layout (the first field of a context, the second of a connection, since they exist) and checks at the first
use that they are the right ones; where that cannot be (another Python, an ssl module whose OpenSSL is hidden)
`available` is False and whoever needs it refuses the directive.
"""

import ctypes
import ssl
import sys
from functools import cache
from typing import Any

# openssl/ssl.h: SSL_CONF_FLAG_FILE, CLIENT, SERVER, SHOW_ERRORS, CERTIFICATE
_CONF_FLAGS = 0x2 | 0x4 | 0x8 | 0x10 | 0x20
_CONF_TYPE_FILE, _CONF_TYPE_DIR = 2, 3
_SSL_VERIFY_PEER = 1
_SET_SESS_CACHE_SIZE, _SET_SESS_CACHE_MODE, _SET_MAX_SEND_FRAGMENT = 42, 44, 52  # SSL_CTX_ctrl()
_GET_GROUPS, _GET_RAW_CIPHERLIST, _GET_NEGOTIATED_GROUP = 90, 110, 134  # SSL_ctrl()
_UNKNOWN_GROUP = 0x1000000  # TLSEXT_nid_unknown: the rest is the number on the wire
_SESS_CACHE_OFF, _SESS_CACHE_SERVER = 0, 2
_XN_FLAG_RFC2253 = 0x1110317
_MASK = 0xFFFFFFFFFFFFFFFF


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
            if lib.SSL_CTX_get_options(_context(probe)) != int(probe.options) & _MASK:
                return None
        probe.check_hostname = False
        connection = probe.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        if lib.SSL_get_SSL_CTX(_connection(connection)) != _context(probe).value:
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
        ("SSL_CTX_set_verify", None, pointer, number, pointer),
        ("SSL_CTX_get_verify_mode", number, pointer),
        ("SSL_CTX_get_verify_callback", pointer, pointer),
        ("SSL_CTX_get_verify_depth", number, pointer),
        ("SSL_CTX_ctrl", ctypes.c_long, pointer, number, ctypes.c_long, pointer),
        ("SSL_CTX_set_timeout", ctypes.c_long, pointer, ctypes.c_long),
        ("SSL_CTX_set_client_CA_list", None, pointer, pointer),
        ("SSL_load_client_CA_file", pointer, text),
        ("SSL_get_SSL_CTX", pointer, pointer),
        ("SSL_ctrl", ctypes.c_long, pointer, number, ctypes.c_long, pointer),
        ("SSL_CIPHER_find", pointer, pointer, text),
        ("SSL_CIPHER_get_name", text, pointer),
        ("OBJ_nid2sn", text, number),
        ("SSL_set_verify", None, pointer, number, pointer),
        ("SSL_set_verify_depth", None, pointer, number),
        ("SSL_get_options", ctypes.c_uint64, pointer),
        ("SSL_set_options", ctypes.c_uint64, pointer, ctypes.c_uint64),
        ("SSL_clear_options", ctypes.c_uint64, pointer, ctypes.c_uint64),
        ("SSL_get_verify_result", ctypes.c_long, pointer),
        ("X509_verify_cert_error_string", text, ctypes.c_long),
        ("d2i_X509", pointer, pointer, ctypes.POINTER(text), ctypes.c_long),
        ("X509_free", None, pointer),
        ("X509_get_subject_name", pointer, pointer),
        ("X509_get_issuer_name", pointer, pointer),
        ("X509_NAME_print_ex", number, pointer, pointer, number, ctypes.c_ulong),
        ("BIO_s_mem", pointer),
        ("BIO_new", pointer, pointer),
        ("BIO_free", number, pointer),
        ("BIO_read", number, pointer, pointer, number),
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


def _connection(tls: ssl.SSLObject) -> ctypes.c_void_p:
    inner = tls._sslobj  # type: ignore[attr-defined]
    return ctypes.c_void_p.from_address(id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))


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


# what a server needs


# of a chain that does not verify: the handshake goes on, and what was wrong is there to be asked for
_go_on = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)(lambda good, store: 1)


def verify_later(context: ssl.SSLContext, depth: int) -> None:
    """Ask clients for a certificate, and complete the handshake whatever they show: `verify_result` tells."""
    lib = _library()
    lib.SSL_CTX_set_verify(_context(context), _SSL_VERIFY_PEER, ctypes.cast(_go_on, ctypes.c_void_p))
    lib.SSL_CTX_set_verify_depth(_context(context), depth)


def verify_result(tls: ssl.SSLObject) -> tuple[int, str]:
    """X509_V_OK (0), also when there was no certificate, or the error's number, and its text."""
    lib = _library()
    code = lib.SSL_get_verify_result(_connection(tls))
    return code, lib.X509_verify_cert_error_string(code).decode()


def name_authorities(context: ssl.SSLContext, path: str) -> None:
    """Tell clients which authorities' certificates are wanted: those in the file."""
    lib = _library()
    names = lib.SSL_load_client_CA_file(path.encode("utf-8", "surrogateescape"))
    if names:
        lib.SSL_CTX_set_client_CA_list(_context(context), names)
    lib.ERR_clear_error()


def keep_sessions(context: ssl.SSLContext, count: int | None, timeout: int) -> None:
    """A server's own cache of `count` sessions (0: as OpenSSL wants, None: no cache) for `timeout` seconds."""
    lib = _library()
    mode = _SESS_CACHE_OFF if count is None else _SESS_CACHE_SERVER
    lib.SSL_CTX_ctrl(_context(context), _SET_SESS_CACHE_MODE, mode, None)
    if count:
        lib.SSL_CTX_ctrl(_context(context), _SET_SESS_CACHE_SIZE, count, None)
    lib.SSL_CTX_set_timeout(_context(context), timeout)


def limit_records(context: ssl.SSLContext, size: int) -> None:
    """Send no record of more than `size` bytes; OpenSSL allows 512 to 16384."""
    _library().SSL_CTX_ctrl(_context(context), _SET_MAX_SEND_FRAGMENT, min(max(size, 512), 16384), None)


def take_over(tls: ssl.SSLObject, context: ssl.SSLContext) -> None:
    """Give a connection that was switched to `context` what OpenSSL leaves behind: verification and options."""
    lib = _library()
    connection, of = _connection(tls), _context(context)
    lib.SSL_set_verify(connection, lib.SSL_CTX_get_verify_mode(of), lib.SSL_CTX_get_verify_callback(of))
    lib.SSL_set_verify_depth(connection, lib.SSL_CTX_get_verify_depth(of))
    options = lib.SSL_CTX_get_options(of)
    lib.SSL_clear_options(connection, lib.SSL_get_options(connection) & ~options & _MASK)
    lib.SSL_set_options(connection, options)


def distinguished_name(certificate: bytes, issuer: bool) -> bytes:
    """The subject or the issuer of a certificate (DER) as RFC 2253 writes names; empty when there is none."""
    lib = _library()
    start = ctypes.c_char_p(certificate)
    parsed = lib.d2i_X509(None, ctypes.byref(start), len(certificate))
    if not parsed:
        lib.ERR_clear_error()
        return b""
    out = lib.BIO_new(lib.BIO_s_mem())
    try:
        name = lib.X509_get_issuer_name(parsed) if issuer else lib.X509_get_subject_name(parsed)
        lib.X509_NAME_print_ex(out, name, 0, _XN_FLAG_RFC2253)
        buffer = ctypes.create_string_buffer(16384)
        size = lib.BIO_read(out, buffer, len(buffer))
        return buffer.raw[: max(size, 0)]
    finally:
        lib.BIO_free(out)
        lib.X509_free(parsed)


def offered_ciphers(tls: ssl.SSLObject) -> list[str]:
    """The cipher suites that the client has offered; those that OpenSSL does not know as 0x and their number."""
    lib, connection = _library(), _connection(tls)
    start = ctypes.c_void_p()
    width = lib.SSL_ctrl(connection, _GET_RAW_CIPHERLIST, 0, None)
    size = lib.SSL_ctrl(connection, _GET_RAW_CIPHERLIST, 0, ctypes.byref(start))
    if size <= 0 or start.value is None:
        return []
    names = []
    raw = ctypes.string_at(start.value, size)
    for at in range(0, size, width):
        suite = raw[at : at + width]
        found = lib.SSL_CIPHER_find(connection, suite)
        names.append(lib.SSL_CIPHER_get_name(found).decode() if found else f"0x{suite.hex()}")
    return names


def negotiated_group(tls: ssl.SSLObject) -> str:
    """The group of the key exchange; empty when there was none, as in a resumed TLS 1.2 session."""
    number = _library().SSL_ctrl(_connection(tls), _GET_NEGOTIATED_GROUP, 0, None)
    return _group(number) if number else ""


def offered_groups(tls: ssl.SSLObject) -> list[str]:
    """The groups that the client supports."""
    lib, connection = _library(), _connection(tls)
    count = lib.SSL_ctrl(connection, _GET_GROUPS, 0, None)
    numbers = (ctypes.c_int * max(count, 1))()
    count = lib.SSL_ctrl(connection, _GET_GROUPS, 0, numbers)
    return [_group(numbers[i]) for i in range(max(count, 0))]


def _group(number: int) -> str:
    if number & _UNKNOWN_GROUP:
        return f"0x{number & 0xFFFF:04x}"
    return str(_library().OBJ_nid2sn(number).decode())
