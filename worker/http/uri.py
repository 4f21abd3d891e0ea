"""Request targets -> normalized URIs, as nginx does (ngx_http_parse_complex_uri, RFC 3986 section 6).

The URI of a request is decoded, its dot segments are removed and its repeated slashes merged; the
arguments stay as they were written.
"""

import re
from typing import Final

from headgate.worker.http.head import BadRequest

_PLAIN: Final = re.compile(rb"((?:/[^\x00-\x20\x7f%?#./][^\x00-\x20\x7f%?#/]*)*/?)(?:\?([^\x00-\x20\x7f#]*))?")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\\]*)((?:[/?#][^\x00]*)?)")
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[^\x00-\x20\x7f/:?#@]+):\d{1,5}")
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})|%[0-9A-Fa-f].?|%(.?)", re.DOTALL)
_REDIRECT: Final = re.compile(rb"%([0-9A-Fa-f]{2})|%[0-9A-Fa-f].?|%(.?)|(\?)", re.DOTALL)
_SLASHES: Final = re.compile(rb"/{2,}")
_CLIMBS: Final = re.compile(rb"(?:^|/)\.\.(?:/|\Z)|\x00")
_SAFE_PATH: Final = bytes(c for c in range(0x21, 0x7F) if c not in b'"#%<>?\\^`{|}')
_SAFE_ARGS: Final = bytes(c for c in range(0x21, 0x7F) if c not in b'"#%&+;<>?\\^`{|}')
_SAFE_HTML: Final = bytes(c for c in range(0x21, 0x7F) if c not in b"\"#%'<>\\^`{|}")
_SAFE_MEMCACHED: Final = bytes(c for c in range(0x21, 0x100) if c != 0x25)

_seen: Final[dict[tuple[bytes, bool], tuple[bytes, bytes]]] = {}


def split_target(target: bytes, merge_slashes: bool) -> tuple[bytes, bytes]:
    """An origin-form target -> (uri, args); raises BadRequest for what nginx answers with 400."""
    key = (target, merge_slashes)
    known = _seen.get(key)
    if known is not None:
        return known
    match = _PLAIN.fullmatch(target)
    if match is not None and match[1]:
        out = (match[1], match[2] or b"")
    else:
        path, _, rest = target.partition(b"#")[0].partition(b"?")
        out = (normalize(path, merge_slashes), rest)
    if len(target) < 256:
        if len(_seen) >= 4096:
            _seen.clear()
        _seen[key] = out
    return out


def split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """An absolute-form target -> (host with port, origin-form)."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[2]:
        raise BadRequest(400, "client sent invalid request")
    rest = match[3]
    return match[2], rest if rest.startswith(b"/") else b"/" + rest


def is_authority(target: bytes) -> bool:
    """Whether this is `host:port`, the form that CONNECT takes (RFC 9112 section 3.2.3)."""
    return _AUTHORITY.fullmatch(target) is not None


def normalize(path: bytes, merge_slashes: bool = True) -> bytes:
    """Decode, remove dot segments, merge slashes; raises BadRequest (400) for a path outside the root."""
    if not path.startswith(b"/"):
        raise BadRequest(400, "client sent invalid request")
    if b"%" in path:
        if re.search(rb"%(?![0-9A-Fa-f]{2})", path) or b"%00" in path:
            raise BadRequest(400, "client sent invalid request")
        path = unescape(path)
    if merge_slashes and b"//" in path:
        path = _SLASHES.sub(b"/", path)
    if b"/." not in path:
        return path
    out: list[bytes] = []
    segments = path.split(b"/")[1:]
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == b"..":
            if not out:
                raise BadRequest(400, "client sent invalid request")
            out.pop()
            if last:
                out.append(b"")
        elif segment == b".":
            if last:
                out.append(b"")
        else:
            out.append(segment)
    return b"/" + b"/".join(out)


def split_unsafe(target: bytes) -> tuple[bytes, bytes] | None:
    """A target that a backend names -> (uri, args); None when it would leave the root (ngx_http_parse_unsafe_uri)."""
    path, _, args = target.partition(b"?")
    if not path or _CLIMBS.search(path):
        return None
    uri = unescape(path)
    return None if uri is not path and _CLIMBS.search(uri) else (uri, args)


def unescape(text: bytes) -> bytes:
    """%XX -> the byte; of a broken escape what nginx leaves of it (ngx_unescape_uri)."""
    if b"%" not in text:
        return text
    return _ESCAPED.sub(lambda m: bytes.fromhex(m[1].decode()) if m[1] else m[2] or b"", text)


def unescape_redirect(text: bytes) -> bytes:
    """Unescape what may stand in a Location as it is, up to the arguments (NGX_UNESCAPE_REDIRECT)."""
    if b"%" not in text:
        return text
    out, at = [], 0
    for match in _REDIRECT.finditer(text):
        out += [text[at : match.start()], _in_redirect(match)]
        at = match.end()
        if out[-1] == b"?":
            break
    return b"".join(out) + text[at:]


def _in_redirect(match: re.Match[bytes]) -> bytes:
    if match[1] is None:  # of a broken escape nginx keeps this
        return match[2] or match[3] or b""
    char = bytes.fromhex(match[1].decode())
    return char if b"%" < char < b"\x7f" else match[0]


def escape_uri(path: bytes) -> bytes:
    """Escape what may not stand in a path, as nginx does when it passes on a changed URI (NGX_ESCAPE_URI)."""
    return _escape(path, _SAFE_PATH)


def escape_args(text: bytes) -> bytes:
    """As nginx's NGX_ESCAPE_ARGS, for captures and variables put into arguments."""
    return _escape(text, _SAFE_ARGS)


def escape_html(text: bytes) -> bytes:
    """For an address in a page (NGX_ESCAPE_HTML)."""
    return _escape(text, _SAFE_HTML)


def escape_memcached(key: bytes) -> bytes:
    """What would end a key on a line (NGX_ESCAPE_MEMCACHED)."""
    return _escape(key, _SAFE_MEMCACHED)


def _escape(text: bytes, safe: bytes) -> bytes:
    if not text.translate(None, safe):
        return text
    return b"".join(bytes((c,)) if c in safe else b"%%%02X" % c for c in text)
