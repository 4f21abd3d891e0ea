r"""The requests of the site's differential test; each `Case` is a name and the exact bytes.

`one` builds a well-formed request (Host, X-Case with the case's name, so that log lines say what they are about);
`raw` takes bytes as they are. Every case is sent on a connection of its own to both servers.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.client import build, chunked
from tests.differential.compare import Case

HOST = "localhost"
PROXY = "proxy.example"


def one(
    name: str, target: str, *headers: tuple[str, str], method: str = "GET", host: str = HOST, body: bytes = b"",
    version: str = "1.1", port: int = 0, address: str = "127.0.0.1",
) -> Case:  # fmt: skip
    """A well-formed request."""
    pairs = [("Host", host), ("X-Case", name), *headers]
    return Case(name, build(method, target, pairs, body, version), (method,), port, address)


def raw(name: str, wire: bytes, *methods: str, unframed: bool = False, port: int = 0) -> Case:
    """Exactly these bytes; `methods` of the expected responses."""
    return Case(name, wire, methods or ("GET",), port, raw=unframed)


def words(text: str) -> list[str]:
    """The words of `text`."""
    return text.split()


def phrases(text: str) -> list[str]:
    """What stands between the bars of `text`, its white space collapsed."""
    return [" ".join(part.split()) for part in text.split("|")]


def get(target: str, *headers: tuple[str, str], host: str = HOST) -> Case:
    """GET, named by its target, Host and headers."""
    shown = "".join(f" {key}={value}" for key, value in headers)
    return one(f"GET {target}{shown}{'' if host == HOST else f' @{host}'}", target, *headers, host=host)


def static() -> Iterator[Case]:
    """Files: index, types, redirects to directories, try_files, alias, root."""
    for target in words("""
        / /start.html /plain.txt /empty.txt /page.html /large.bin /no-extension /UPPER.TXT /odd%20name+%25.txt /dir/
        /dir /dir?a=b /dir/file.js /dir/file.js/ /dir/index.html /no-index/ /no-index /missing /missing/ /plain.txt/
        /plain.txt/x /try/exists.txt /try/page /try/dir /try/dir/ /try/none /try-code /try-code/none /try-code503
        /try-named /try-args?a=1 /try-args /alias/a.txt /alias/ /alias /alias/sub /alias/sub/ /alias/none
        /alias-file /alias-regex/name.txt /alias-regex/none.txt /types/a.special /types/a.html /types/none/a.html
        /rooted/ /rooted /rooted/bare/ /rooted/bare /not-found-quiet/none /not-found-quiet/here.txt /errors/404.html
        /errors/forbidden /headers/replaced-etag.txt
    """):
        yield get(target)
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "FOO"):
        yield one(f"{method} a file", "/plain.txt", method=method, body=b"" if method == "HEAD" else b"body")
    yield one("HEAD of a directory", "/dir", method="HEAD")
    yield one("HEAD of a missing file", "/missing", method="HEAD")
    yield one("POST to a directory", "/dir/", method="POST", body=b"x=1")
    yield one("POST to a directory without its slash", "/dir", method="POST", body=b"x=1")
    yield one("redirect with the server's name", "/dir", host="inredirect.example")
    yield one("redirect with a Host that has a port", "/dir", host=f"{HOST}:1234")
    yield one("redirect keeps an encoded name", "/odd%20dir/../dir")


def locations() -> Iterator[Case]:
    """Which location answers, return, set, map, error pages and added headers."""
    for target in words("""
        /exact /exact/ /exact? /prefix /prefixed /prefix/longer /prefix/longe /caret/a.php /a.php /prefix/a.php
        /a.PHP /x.inc /x.INC /capture/one/two /capture/one/ /nested/a /nested/inner/b /nested/c.x /nested/inner/d.x
        /nested/e.php /set /tokens /keepalive-header /keepalive-off /relative-redirect /no-log/x /json-log/x
        /json-log/x?a=1
    """):
        yield get(target)
    for code in words("""
        200 204 301 302 303 307 308 url 400 401 403 404 405 410 418 419 421 422 429 444 500 503 599
    """):
        yield get(f"/code/{code}?a=b%20c")
    for code in ("204", "301", "404", "410", "500"):
        yield one(f"HEAD of code {code}", f"/code/{code}", method="HEAD")
        yield one(f"POST to code {code}", f"/code/{code}", method="POST", body=b"some body")
    for color in ("", "red", "lightblue", "darkblue", "Evergreen", "default", "RED", "x"):
        yield get(f"/map?color={color}")
    for host in ("static.example.com.invalid", "www.other", "a.example.org"):
        yield get("/map", host=host)
    yield one("POST to a map", "/map", method="POST")
    yield one(
        "variables", "/vars?a=1&b=%202&A=3#frag", ("X-One", "one"), ("Cookie", "x=y; id=42; z"), ("User-Agent", "u/1"),
        ("Content-Type", "text/x"),
    )  # fmt: skip
    yield one("variables of a POST", "/vars?&a=&", method="POST", body=b"12345")
    yield one("variables of HTTP/1.0", "/vars", version="1.0")
    yield one("two cookies headers", "/vars", ("Cookie", "a=1"), ("Cookie", "id=7"))
    yield one("a header twice", "/vars", ("X-One", "1"), ("X-One", "2"))
    yield get("/headers?a=value")
    yield get("/headers")


def names() -> Iterator[Case]:
    """server_name and listen: which server answers."""
    for host in words("""
        example.com EXAMPLE.com example.com. example.com:8080 www.example.com sub.example.com a.b.example.com
        x.deep.example.com deep.example.com dotted.example a.b.dotted.example mail.anything mail.a.b
        joe.users.example joe1.users.example second22.re.example a.b.numbered.example unknown.example 127.0.0.1
        [::1] [::1]:80 a_b.example -.example xn--bcher-kva.example
    """):
        yield one(f"Host {host}", "/", host=host)
    for host in ("first.port1", "second.port1", "example.com"):
        yield one(f"Host {host} on the second port", "/", host=host, port=1)
    yield one("over IPv6", "/vars", port=2, address="::1")
    for target in ("/a//b", "/a/b", "//a///b//", "/a//./b/../c"):
        yield one(f"unmerged {target}", target, host="slashes.example")
    for host in ("lenient.example", "strict.example"):
        yield one(f"underscores at {host}", "/", ("under_score", "1"), ("X-One", "2"), host=host)
        for number, name in enumerate(("X.y", "X!y", "X~", "X(y)")):
            wire = f"GET / HTTP/1.1\r\nHost: {host}\r\n{name}: 1\r\nX-One: {number}\r\n\r\n"
            yield raw(f"a field called {name} at {host}", wire.encode())


def paths() -> Iterator[Case]:
    """How the target of the request line is read."""
    for target in words("""
        /prefix/%61%62 /prefix/%2e%2e/exact /prefix/%2E/x /prefix/a%2fb /prefix/%2 /prefix/%zz /prefix/%00
        /prefix/%0a /prefix/a+b /prefix/%25 /prefix/%25%36%31 /prefix//a///b /prefix/./a /prefix/../exact
        /prefix/a/.. /prefix/a/../ /prefix/... /prefix/..a /../x /.. /. /./ // //exact /prefix/a/./../../exact
        /prefix/a;b=c,d /prefix/~'()*! /prefix/a?b?c /prefix/?%zz /prefix/?a#b /prefix/#a /prefix/%23 /prefix/%3f%3F
        /prefix/a|b{}^` /prefix/%C3%A9 /exact?a%20b&c /exact%3Fa /%65xact /prefix/a\\b /prefix/"q" /prefix/<a>
    """):
        yield get(target)
    yield raw("raw bytes above 127", b"GET /prefix/\xc3\xa9\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield raw("absolute-form", b"GET http://example.com/x HTTP/1.1\r\nHost: ignored.example\r\n\r\n")
    yield raw("absolute-form without a path", b"GET http://example.com HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form with only a query", b"GET http://example.com?a=b HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form with a port", b"GET http://example.com:81/vars HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form in capitals", b"GET HTTP://EXAMPLE.com/x HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form of another scheme", b"GET ftp://example.com/vars HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form with an empty host", b"GET http:///vars HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form with user information", b"GET http://u@example.com/ HTTP/1.1\r\nHost: a\r\n\r\n")
    yield raw("absolute-form over HTTP/1.0", b"GET http://example.com/ HTTP/1.0\r\n\r\n")
    yield raw("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield raw("authority-form", b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n", "CONNECT")
    yield raw("no slash", b"GET exact HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield raw("empty target", b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n")


def conditional() -> Iterator[Case]:
    """Conditional requests and ranges on files of 36 and 300,000 bytes, modified Tue, 14 Nov 2023 22:13:20 GMT."""
    date, tag = "Tue, 14 Nov 2023 22:13:20 GMT", '"6553f180-24"'
    later, earlier = "Tue, 14 Nov 2023 22:13:21 GMT", "Mon, 13 Nov 2023 22:13:20 GMT"
    for value in (date, later, earlier, "nonsense", "Tuesday, 14-Nov-23 22:13:20 GMT", "Tue Nov 14 22:13:20 2023"):
        yield get("/plain.txt", ("If-Modified-Since", value))
        yield get("/plain.txt", ("If-Unmodified-Since", value))
        yield get("/no-etag/a.txt", ("If-Modified-Since", value))
    yield get("/ims-off/a.txt", ("If-Modified-Since", date))
    for value in (tag, f"W/{tag}", '"other"', f'"x", {tag}', f'"x",W/{tag} ,"y"', "*", tag.strip('"'), ""):
        yield get("/plain.txt", ("If-None-Match", value))
        yield get("/plain.txt", ("If-Match", value))
    yield get("/plain.txt", ("If-None-Match", '"other"'), ("If-Modified-Since", date))
    yield get("/plain.txt", ("If-None-Match", tag), ("If-Modified-Since", "Mon, 13 Nov 2023 22:13:20 GMT"))
    yield one("HEAD not modified", "/plain.txt", ("If-None-Match", tag), method="HEAD")
    yield get("/missing", ("If-None-Match", "*"))
    yield get("/prefix", ("If-Modified-Since", date))
    for value in phrases("""
        bytes=0-0 | bytes=0- | bytes=5-9 | bytes=-5 | bytes=35- | bytes=36- | bytes=30-100 | bytes=-100 | bytes=-0 |
        bytes=9-5 | bytes=0-35 | bytes=0-1,3-4 | bytes=0-1, 3-4 ,-2 | bytes=0-0,0-0 | bytes=0-35,0-35 |
        bytes=0-1,100- | bytes=100-,200- | bytes= 0-1 | Bytes=0-1 | bytes= | bytes=a-b | bytes=0-1x | items=0-1 |
        bytes=0 | bytes=--1 | bytes=0-99999999999999999999 | bytes=0-1,2-3,4-5,6-7,8-9,10-11
    """):
        yield get("/plain.txt", ("Range", value))
    yield get("/large.bin", ("Range", "bytes=100000-199999"))
    yield get("/large.bin", ("Range", "bytes=0-9,299990-,150000-150009"))
    yield get("/empty.txt", ("Range", "bytes=0-"))
    yield get("/ranges-off/a.txt", ("Range", "bytes=0-1"))
    yield get("/ranges-one/a.txt", ("Range", "bytes=0-1"))
    yield get("/ranges-one/a.txt", ("Range", "bytes=0-1,3-4"))
    yield get("/prefix", ("Range", "bytes=0-1"))
    yield get("/missing", ("Range", "bytes=0-1"))
    yield one("HEAD with a range", "/plain.txt", ("Range", "bytes=0-1"), method="HEAD")
    for value in (tag, '"other"', f"W/{tag}", date, "Mon, 13 Nov 2023 22:13:20 GMT", "nonsense"):
        yield get("/plain.txt", ("Range", "bytes=0-1"), ("If-Range", value))


def bodies() -> Iterator[Case]:
    """Request bodies: Content-Length, chunked, limits, Expect."""
    te = ("Transfer-Encoding", "chunked")
    for target in ("/echo", "/replace/", "/count"):
        yield one(f"POST to {target}", target, method="POST", host=PROXY, body=b"some=body")
        yield one(f"chunked POST to {target}", target, te, method="POST", host=PROXY, body=chunked(b"a", b"bc" * 99))
    yield one("empty chunked body", "/echo", te, method="POST", host=PROXY, body=chunked())
    yield one(
        "chunked with trailers", "/echo", te, method="POST", host=PROXY, body=chunked(b"a", trailers={"X-T": "1"})
    )
    yield one("chunk extensions", "/echo", te, method="POST", host=PROXY, body=b"2;a=b\r\nhi\r\n0;last\r\n\r\n")
    yield one("empty POST", "/echo", ("Content-Length", "0"), method="POST", host=PROXY)
    yield one("POST without a length", "/echo", method="POST", host=PROXY)
    yield one("a body of 60 kB", "/count", method="POST", host=PROXY, body=b"0123456789" * 6000)
    yield one("a GET with a body", "/echo", host=PROXY, body=b"body of a GET")
    yield one("a DELETE with a body", "/echo", host=PROXY, method="DELETE", body=b"body")
    yield one("at the limit", "/upload-limit", method="POST", body=b"0123456789")
    yield one("over the limit", "/upload-limit", method="POST", body=b"0123456789a")
    yield one("chunked at the limit", "/upload-limit", te, method="POST", body=chunked(b"01234", b"56789"))
    yield one("chunked over the limit", "/upload-limit", te, method="POST", body=chunked(b"01234", b"567890"))
    yield one("no limit", "/upload-unlimited/count", method="POST", body=b"z" * 200_000)
    yield one(
        "chunked without a limit", "/upload-unlimited/count", te, method="POST", body=chunked(*[b"y" * 50_000] * 4)
    )
    yield one("Expect with a body at once", "/echo", ("Expect", "100-continue"), method="POST", host=PROXY, body=b"now")
    yield one("Expect in capitals", "/echo", ("Expect", "100-CONTINUE"), method="POST", host=PROXY, body=b"now")
    yield one("Expect without a body", "/echo", ("Expect", "100-continue"), host=PROXY)
    yield one("an unknown Expect", "/echo", ("Expect", "202-whatever"), method="POST", host=PROXY, body=b"now")
    yield one(
        "Expect over HTTP/1.0", "/echo", ("Expect", "100-continue"), method="POST", host=PROXY, body=b"x", version="1.0"
    )
    yield one("Expect over the limit", "/upload-limit", ("Expect", "100-continue"), method="POST", body=b"0123456789a")
    yield one("a body that nobody reads", "/exact", method="POST", body=b"unread" * 100)
    yield one("a chunked body that nobody reads", "/exact", te, method="POST", body=chunked(b"unread" * 100))
    for name, body in {
        "bad chunk size": b"zz\r\nabc\r\n0\r\n\r\n",
        "chunk longer than its size": b"2\r\nabcd\r\n0\r\n\r\n",
        "negative chunk size": b"-2\r\nab\r\n0\r\n\r\n",
        "chunk size overflow": b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "chunk size with 0x": b"0x2\r\nab\r\n0\r\n\r\n",
        "LF alone after a chunk size": b"2\nab\r\n0\r\n\r\n",
        "space after a chunk size": b"2 \r\nab\r\n0\r\n\r\n",
        "no chunk size": b"\r\nab\r\n0\r\n\r\n",
    }.items():
        for target in ("/echo", "/strip/echo"):
            yield one(f"{name} to {target}", target, te, method="POST", host=PROXY, body=body)
