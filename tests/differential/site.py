"""The site of the differential test: its files, its backends, and the pair of servers that run it.

The configuration is in site/ (nginx.conf, mime.types, conf.d/). Files get a fixed time, so that Last-Modified and ETag
are equal. The backends are shared by both servers and answer by the last part of the path, never by what came before,
so that each server sees the same as if it were alone. Most requests go to `app`, which is one backend: a request that
one server refuses and the other passes on does not put `rotating`, `failing` and `api` out of step.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.backends import CLOSE, Answer, Backend, Handler, Reply, Request, refused_port
from tests.differential.compare import Pair, site
from tests.differential.peers import peers
from tests.harness import Server

BACKENDS = ("app", "rotating_a", "rotating_b", "rotating_c", "api_a", "api_b")
MODIFIED = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT
DIGITS = "".join(f"{number:04d}" for number in range(2500))

# the password is "secret" everywhere
SECRETS = {
    "plain": "{PLAIN}secret",
    "apr1": "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/",
    "md5": "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1",
    "sha512": "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.",
    "sha": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "ssha": "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0:and more",
}

FILES: dict[str, str | bytes] = {
    "html/start.html": "<p>start</p>\n",
    "html/plain.txt": "0123456789abcdefghijklmnopqrstuvwxyz",
    "html/empty.txt": "",
    "html/page.html": "<p>page</p>\n",
    "html/large.bin": DIGITS * 30,
    "html/no-extension": "none\n",
    "html/UPPER.TXT": "upper\n",
    "html/odd name+%.txt": "odd\n",
    "html/dir/index.html": "<p>dir</p>\n",
    "html/dir/file.js": "var a;\n",
    "html/no-index/file.txt": "x\n",
    "html/errors/404.html": "<h1>not here</h1>\n",
    "html/try/exists.txt": "exists\n",
    "html/try/page.html": "try page\n",
    "html/try/fallback.txt": "fallback\n",
    "html/try/dir/index.html": "try dir\n",
    "html/try-code": "a file\n",
    "html/types/a.special": "special\n",
    "html/types/a.html": "html\n",
    "html/types/none/a.html": "untyped\n",
    "html/no-etag/a.txt": "no etag\n",
    "html/ims-off/a.txt": "ims off\n",
    "html/ranges-off/a.txt": "0123456789",
    "html/ranges-one/a.txt": "0123456789",
    "html/try-proxy/local.txt": "local\n",
    "html/not-found-quiet/here.txt": "here\n",
    "html/nested/plain.txt": "never shown\n",
    "included/plain.html": "nothing to do\n",
    "included/echo.html": '<!--#set var="a" value="set" --><!--#echo var="a" -->|<!--#echo var="uri" -->|'
    '<!--#echo var="none" default="nothing" -->|<!--#echo var="arg_a" encoding="url" -->|<!--#echo var="arg_a" -->\n',
    "included/if.html": '<!--#if expr="$arg_a" -->a<!--#elif expr="$arg_b = /^x(.)/" -->b$1<!--#else -->neither'
    "<!--#endif -->|\n",
    "included/virtual.html": 'one|<!--#include virtual="/part/1?a=b" -->|<!--#include virtual="/part/2" -->|two\n',
    "included/file.html": '<!--#include file="plain.html" --><!--#include virtual="/missing" -->\n',
    "included/block.html": '<!--#block name="stub" -->stub<!--#endblock -->'
    '<!--#include virtual="/code/404" stub="stub" -->\n',
    "included/broken.html": '<!--#nonsense --><!--#echo --><!--#include virtual="" --><!--#if expr="$a\n',
    "users": "".join(f"{user}:{secret}\n" for user, secret in SECRETS.items()) + "# a comment\nshort\n",
    "aliased/a.txt": "aliased\n",
    "aliased/name.data": "data\n",
    "aliased/index.html": "aliased index\n",
    "aliased/sub/index.html": "aliased sub\n",
    "other-root/rooted/second.txt": "second\n",
    "other-root/rooted/last.txt": "last\n",
    "other-root/rooted/bare/file": "bare\n",
}


def handler(name: str) -> Handler:
    """A backend called `name`; the last part of the path says what it does, otherwise it echoes the request."""

    def answer(request: Request) -> Answer:
        path = request.target.partition("?")[0]
        what = path.rpartition("/")[2]
        headers = [("X-Peer", name)]
        if what.isdigit() and len(what) == 3:
            return Reply(int(what), headers, b"" if what in ("204", "304") else f"status {what} by {name}\n".encode())
        if what == "sliced":
            return _slice(request, headers)
        if what in SPECIAL:
            return SPECIAL[what](headers)
        body = f"{name}: {request.method} {request.target} {request.version}\n"
        body += "".join(f"{key}: {value}\n" for key, value in sorted(request.headers))
        if what == "count":
            body = f"{name}: {len(request.body)} bytes, {sum(request.body) % 65521}\n"
        elif request.body:
            body += f"\n{request.body!r}\n"
        return Reply(200, [*headers, ("Content-Type", "text/plain")], body.encode())

    return answer


def _slice(request: Request, headers: list[tuple[str, str]]) -> Reply:
    """2,500 bytes, or the range of them that is asked for."""
    data = DIGITS.encode()[:2500]
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.header("range") or "")
    headers = [*headers, ("Accept-Ranges", "bytes"), ("ETag", '"sliced"')]
    if wanted is None:
        return Reply(200, headers, data)
    first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
    if first > last:
        return Reply(416, [*headers, ("Content-Range", f"bytes */{len(data)}")])
    return Reply(206, [*headers, ("Content-Range", f"bytes {first}-{last}/{len(data)}")], data[first : last + 1])


def _accel(*fields: tuple[str, str]) -> Callable[[list[tuple[str, str]]], Answer]:
    """An answer of another status and body than those that the client will see."""
    more = [("Content-Type", "text/x-accel"), ("Set-Cookie", "kept=1"), ("Cache-Control", "private"), ("X-Lost", "1")]
    return lambda headers: Reply(201, [*headers, *more, ("ETag", '"lost"'), *fields], b"never shown\n")


def _cookies(*cookies: str) -> Callable[[list[tuple[str, str]]], Answer]:
    return lambda headers: Reply(200, [*headers, *(("Set-Cookie", cookie) for cookie in cookies)], b"cookies\n")


def _raw(head: str, body: bytes = b"") -> bytes:
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body


SPECIAL: dict[str, Callable[[list[tuple[str, str]]], Answer]] = {
    "chunked": lambda headers: Reply(200, headers, chunks=[b"one\n", b"two\n", b"x" * 5000]),
    "empty-chunked": lambda headers: Reply(200, headers, chunks=[]),
    "big": lambda headers: Reply(200, headers, DIGITS.encode() * 40),
    "zero": lambda headers: Reply(200, headers),
    "until-close": lambda headers: _raw(
        "HTTP/1.1 200 OK\nContent-Type: text/plain\nConnection: close\n", b"to the end\n" + CLOSE
    ),
    "http10": lambda headers: _raw("HTTP/1.0 200 Fine\nContent-Type: text/plain\n", b"old\n" + CLOSE),
    "http10-length": lambda headers: _raw("HTTP/1.0 200 OK\nContent-Length: 4\n", b"old\n" + CLOSE),
    "reason": lambda headers: _raw("HTTP/1.1 200 All Is Well\nContent-Length: 0\n"),
    "no-reason": lambda headers: _raw("HTTP/1.1 404\nContent-Length: 0\n"),
    "strange-status": lambda headers: _raw("HTTP/1.1 299 Strange\nContent-Length: 1\n", b"s"),
    "redirect": lambda headers: Reply(302, [*headers, ("Location", "/elsewhere?a=b")]),
    "redirect-self": lambda headers: Reply(301, [*headers, ("Location", "http://app/back/here")]),
    "redirect-other": lambda headers: Reply(302, [*headers, ("Location", "http://other.example/x")]),
    "refresh": lambda headers: Reply(200, [*headers, ("Refresh", "3; url=http://app/refreshed")], b"r"),
    "cookies": lambda headers: Reply(200, [*headers, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/")], b"c"),
    "cookies-all": _cookies(
        "one=1; Path=/a/deep/x; Domain=old.example",
        "two=2; domain=.sub.test; path=/b/deep; Secure",
        "three=3; Domain=a.b.test; HttpOnly; SameSite=Lax",
        "four=4; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "five",
        "six=; Path=; Domain=",
        "path=/",
        "; Path=/x",
    ),
    "unauthorized": lambda headers: Reply(401, [*headers, ("WWW-Authenticate", 'Basic realm="backend"')], b"who?\n"),
    "redirect-root": lambda headers: Reply(303, [*headers, ("Location", "/")]),
    "redirect-relative": lambda headers: Reply(307, [*headers, ("Location", "relative?x#y")]),
    "redirect-upper": lambda headers: Reply(302, [*headers, ("Location", "HTTP://APP/back/x")]),
    "refresh-other": lambda headers: Reply(200, [*headers, ("Refresh", "0; URL=http://other.example/y")], b"r"),
    "accel-rate": lambda headers: Reply(200, [*headers, ("X-Accel-Limit-Rate", "4000000")], DIGITS.encode() * 9),
    "accel-limits": lambda headers: Reply(
        200, [*headers, ("X-Accel-Expires", "60"), ("X-Accel-Buffering", "no"), ("X-Accel-Limit-Rate", "none")], b"told"
    ),
    "accel-uri": _accel(("X-Accel-Redirect", "/protected/plain.txt")),
    "accel-args": _accel(("X-Accel-Redirect", "/hidden%20place?a=b")),
    "accel-named": _accel(("X-Accel-Redirect", "@accel")),
    "accel-no-name": _accel(("X-Accel-Redirect", "@nobody")),
    "accel-missing": _accel(("X-Accel-Redirect", "/protected/none")),
    "accel-unsafe": _accel(("X-Accel-Redirect", "/protected/../../etc/passwd")),
    "accel-range": _accel(("X-Accel-Redirect", "/protected/plain.txt"), ("Accept-Ranges", "none")),
    "own-headers": lambda headers: Reply(
        200,
        [
            *headers,
            ("Server", "backend/1"),
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("X-Pad", "hidden"),
            ("X-Accel-Buffering", "yes"),
            ("ETag", '"e"'),
            ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
            ("Cache-Control", "no-store"),
            ("Expires", "0"),
            ("Vary", "Accept"),
            ("X-UPPER", "Mixed Case  value"),
            ("Content-Language", "en"),
            ("Content-Encoding", "identity"),
            ("Link", "</a>; rel=preload"),
            ("Link", "</b>; rel=preload"),
            ("WWW-Authenticate", "Basic"),
            ("Keep-Alive", "timeout=5"),
        ],
        b"own headers\n",
    ),
    "ranged": lambda headers: Reply(200, [*headers, ("Accept-Ranges", "bytes"), ("ETag", '"r"')], b"0123456789"),
    "continue": lambda headers: _raw("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 2\n", b"ok" + CLOSE),
    "bad-header": lambda headers: _raw("HTTP/1.1 200 OK\nBad\0Name: 1\nContent-Length: 0\n", CLOSE),
    "double-length": lambda headers: _raw("HTTP/1.1 200 OK\nContent-Length: 2\nContent-Length: 3\n", b"abc" + CLOSE),
    "bad-length": lambda headers: _raw("HTTP/1.1 200 OK\nContent-Length: two\n", b"ab" + CLOSE),
    "length-and-chunked": lambda headers: _raw(
        "HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\n", b"0\r\n\r\n" + CLOSE
    ),
    "closed": lambda headers: None,
    "cut-head": lambda headers: b"HTTP/1.1 200 OK\r\nContent-Le" + CLOSE,
    "cut-body": lambda headers: _raw("HTTP/1.1 200 OK\nContent-Length: 100\n", b"only this" + CLOSE),
    "cut-chunked": lambda headers: _raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", b"5\r\nabc" + CLOSE),
    "bad-chunk": lambda headers: _raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n", b"zz\r\nabc\r\n" + CLOSE),
    "huge-head": lambda headers: Reply(200, [*headers, ("X-Huge", "h" * 9000)], b"x"),
    "extra": lambda headers: _raw("HTTP/1.1 200 OK\nContent-Length: 2\n", b"okEXTRA" + CLOSE),
}


@contextlib.contextmanager
def running(binary: str, directory: Path) -> Iterator[Pair]:
    """nginx beside `binary` ("nginx" or "headgate"), both running the site, until the end of the block."""
    source = site(Path(__file__).parent / "site")
    backends = {name: Backend(handler(name)) for name in BACKENDS}
    with refused_port() as dead, peers(directory / "peers", handler("peer")) as others:
        addresses = {name: each.address for name, each in backends.items()} | {"dead": f"127.0.0.1:{dead}"} | others
        addresses |= {"dead_port": str(dead), "app_port": str(backends["app"].port)}
        for name, address in addresses.items():
            source = {file: text.replace(f"%%{name.upper()}%%", address) for file, text in source.items()}
        conf = source.pop("nginx.conf")
        servers = []
        for number, each in enumerate(("nginx", binary)):
            server = Server(conf, directory / f"{number}-{each}", each, files={**source, **FILES})
            for path in server.prefix.rglob("*"):
                os.utime(path, (MODIFIED, MODIFIED))
            servers.append(server)
        try:
            yield Pair(servers[0].start(), servers[1].start())
        finally:
            for server in servers:
                server.kill()
            for one in backends.values():
                one.stop()
    assert not [error for one in backends.values() for error in one.errors]
