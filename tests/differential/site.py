"""The site of the differential test: its files, its backends, and the pair of servers that run it.

The configuration is in site/ (nginx.conf, mime.types, conf.d/). Files get a fixed time, so that Last-Modified and ETag
are equal. The backends are shared by both servers and answer by the last part of the path, never by what came before,
so that each server sees the same as if it were alone. Most requests go to `app`, which is one backend: a request that
one server refuses and the other passes on does not put `rotating`, `failing` and `api` out of step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.backends import CLOSE, Answer, Backend, Handler, Reply, Request, refused_port
from tests.differential.compare import Pair, site
from tests.harness import Server

BACKENDS = ("app", "rotating_a", "rotating_b", "rotating_c", "api_a", "api_b")
MODIFIED = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT
DIGITS = "".join(f"{number:04d}" for number in range(2500))

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
    with refused_port() as dead:
        addresses = {name: each.address for name, each in backends.items()} | {"dead": f"127.0.0.1:{dead}"}
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
