"""Request targets -> URIs and arguments; escaping and unescaping as nginx does it."""

import pytest
from headgate.worker.http.head import BadRequest
from headgate.worker.http.uri import (
    escape_args,
    escape_uri,
    normalize,
    split_absolute,
    split_target,
    unescape,
    unescape_redirect,
)


@pytest.mark.parametrize(
    "target, uri, args",
    [
        (b"/", b"/", b""),
        (b"/a/b.c?d=e&f", b"/a/b.c", b"d=e&f"),
        (b"/?", b"/", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/a%20b%2Fc", b"/a b/c", b""),
        (b"/a?b=%20", b"/a", b"b=%20"),
        (b"/a//b///c/", b"/a/b/c/", b""),
        (b"/a/./b/.", b"/a/b/", b""),
        (b"/a/../b/..", b"/", b""),
        (b"/a/b/../../c", b"/c", b""),
        (b"/a/%2e%2e/b", b"/b", b""),
        (b"/a%2f..%2fb", b"/b", b""),
        (b"/...", b"/...", b""),
        (b"/.a/..b", b"/.a/..b", b""),
        (b"/a#frag", b"/a", b""),
        (b"/a?b#frag", b"/a", b"b"),
        (b"/\xc3\xa9", b"/\xc3\xa9", b""),
        (b"/a+b", b"/a+b", b""),
        (b"/%25%3f", b"/%?", b""),
    ],
)
def test_split_target(target: bytes, uri: bytes, args: bytes) -> None:
    assert split_target(target, True) == (uri, args)
    assert split_target(target, True) == (uri, args)  # the second time from memory


def test_slashes_that_are_kept() -> None:
    assert split_target(b"/a//b", False) == (b"/a//b", b"")
    assert split_target(b"/a//../b", False) == (b"/a/b", b"")
    assert split_target(b"/a//b", True) == (b"/a/b", b"")


@pytest.mark.parametrize(
    "target", [b"/..", b"/a/../..", b"/%2e%2e/", b"/%", b"/%a", b"/%zz", b"/%00", b"/a%00b", b"x", b"", b"*"]
)
def test_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        split_target(target, True)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "target, host, rest",
    [
        (b"http://a/b?c", b"a", b"/b?c"),
        (b"HTTP://A:80/", b"A:80", b"/"),
        (b"http://a", b"a", b"/"),
        (b"http://a?b", b"a", b"/?b"),
        (b"x+y-z.1://[::1]:8/p", b"[::1]:8", b"/p"),
    ],
)
def test_split_absolute(target: bytes, host: bytes, rest: bytes) -> None:
    assert split_absolute(target) == (host, rest)


@pytest.mark.parametrize("target", [b"http:///a", b"http:/a", b"://a", b"1http://a/", b"a:80"])
def test_absolute_refused(target: bytes) -> None:
    with pytest.raises(BadRequest):
        split_absolute(target)


def test_normalize_is_stable() -> None:
    for path in (b"/a b/c", b"/", b"/x/", b"/\xff"):
        assert normalize(normalize(path)) == normalize(path)


# nginx's tables (ngx_escape_uri), as sets of the bytes that are escaped
CONTROLS = bytes(range(0x21)) + bytes(range(0x7F, 0x100))


@pytest.mark.parametrize(
    "escape, escaped",
    [
        (escape_uri, CONTROLS + b'"#%<>?\\^`{|}'),
        (escape_args, CONTROLS + b'"#%&+;<>?\\^`{|}'),
    ],
)
def test_escape(escape: object, escaped: bytes) -> None:
    for code in range(256):
        byte = bytes((code,))
        assert escape(byte) == (b"%%%02X" % code if byte in escaped else byte)  # type: ignore[operator]
    assert escape(b"plain") == b"plain"  # type: ignore[operator]


def test_unescape() -> None:
    assert unescape(b"a%20b%41%zz%4gh%") == b"a bAzzh"
    assert unescape(b"plain") == b"plain"


@pytest.mark.parametrize(
    "text, out",
    [
        (b"plain", b"plain"),
        (b"/a%20b", b"/a%20b"),
        (b"/a%2fb%7e%41", b"/a/b~A"),
        (b"/%25%0a%7f%ff", b"/%25%0a%7f%ff"),
        (b"/a?b%41%2f", b"/a?b%41%2f"),
        (b"/a%3fb%41", b"/a?b%41"),
        (b"/a%zb%4zc%", b"/azbc"),
        (b"%%41", b"%41"),
    ],
)
def test_unescape_redirect(text: bytes, out: bytes) -> None:
    assert unescape_redirect(text) == out
