r"""More requests of the site's differential test: proxied ones, connections, and requests that break the rules."""

from __future__ import annotations

from collections.abc import Iterator

from tests.client import build
from tests.differential import cases, cases_features, cases_upstream
from tests.differential.cases import HOST, PROXY, get, one, raw, words
from tests.differential.compare import Case


def proxied() -> Iterator[Case]:
    """What goes to the backends and what comes back."""
    for target in words("""
        / /a/b?c=d /strip/x/y?z /strip/ /strip /replace/tail?q /replace/ /replace /uri-args /uri-args/more
        /uri-args?y=2 /regex/%61%2fb?c /variable/a%20b?c=d /variable-plain/a%20b?c=d /api/one /api/two /api/three
        /api/four /api/five /api/500 /api/404 /direct/x /direct /dead/x /dead-page/x /try-proxy/local.txt
        /try-proxy/remote /own-headers/x?a=1 /own-headers/x /added/x /added/404 /added/500 /added/304
        /a%20b/%2e%2e/c?d%20e /a//b /a/./b /%C3%A9?%C3%A9 /with+plus /semi;colon=1 /a%3Fb /a%23b /a%25b
    """):
        yield get(target, host=PROXY)
    for what in words("""
        200 201 204 206 301 302 304 400 401 403 404 410 429 500 502 503 504 599 chunked empty-chunked big zero
        until-close http10 http10-length reason no-reason strange-status redirect redirect-self redirect-other
        refresh cookies own-headers ranged continue double-length bad-length closed cut-head cut-body cut-chunked
        bad-chunk huge-head extra length-and-chunked bad-header
    """):
        yield get(f"/strip/{what}", host=PROXY)
        yield one(f"HTTP/1.0 {what}", f"/strip/{what}", host=PROXY, version="1.0")
    for number in range(15):
        yield one(f"rotating {number}", f"/rotating/{number}", host=PROXY)
    for what in words("200 closed 404 cut-head 500 503 huge-head cut-body http10 bad-chunk bad-header chunked zero"):
        yield one(f"failing {what}", f"/failing/{what}", host=PROXY)
        yield one(f"POST failing {what}", f"/failing/{what}", host=PROXY, method="POST", body=b"to the next")
    for what in ("200", "204", "304", "404", "big", "zero", "own-headers", "redirect-self"):
        yield one(f"HEAD {what}", f"/strip/{what}", host=PROXY, method="HEAD")
    yield one("a range of a proxied answer", "/strip/ranged", ("Range", "bytes=2-3"), host=PROXY)
    yield one("two ranges of a proxied answer", "/strip/ranged", ("Range", "bytes=2-3,5-6"), host=PROXY)
    yield one("If-None-Match of a proxied answer", "/strip/ranged", ("If-None-Match", '"r"'), host=PROXY)
    yield one("redirect back through proxy_redirect", "/direct/redirect", host=PROXY)
    yield one(
        "hop-by-hop headers", "/x", ("Connection", "close, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "5"),
        ("TE", "trailers"), ("Upgrade", "websocket"), ("Proxy-Connection", "close"), host=PROXY,
    )  # fmt: skip
    yield one("forwarded for", "/x", ("X-Forwarded-For", "10.0.0.1"), host=PROXY)
    yield one("forwarded for twice", "/x", ("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "10.0.0.2"), host=PROXY)
    yield one("many headers", "/x", *[(f"X-Number-{n}", f"value {n}") for n in range(40)], host=PROXY)
    yield one("an empty header", "/x", ("X-Void", ""), host=PROXY)
    yield one("values with odd bytes", "/x", ("X-Odd", "\xe9\xff \t inner  spaces"), host=PROXY)
    yield one("HTTP/1.0 with keepalive", "/x", ("Connection", "keep-alive"), host=PROXY, version="1.0")


def connections() -> Iterator[Case]:
    """Keepalive and pipelining."""
    yield one("Connection: close", "/exact", ("Connection", "close"))
    yield one("Connection: Close, x", "/exact", ("Connection", "Close, x"))
    yield one("Connection: keep-alive", "/exact", ("Connection", "keep-alive"))
    yield one("HTTP/1.0", "/exact", version="1.0")
    yield one("HTTP/1.0 keep-alive", "/exact", ("Connection", "keep-alive"), version="1.0")
    yield one("HTTP/1.0 keep-alive to a file", "/plain.txt", ("Connection", "Keep-Alive"), version="1.0")
    yield one("HTTP/1.0 keep-alive to 404", "/missing", ("Connection", "keep-alive"), version="1.0")
    targets = ["/exact", "/plain.txt", "/missing", "/code/204", "/dir", "/prefix/%2e%2e/set", "/exact"]
    wire = b"".join(build("GET", target, {"Host": HOST}) for target in targets)
    yield raw("pipelined: return, file, 404, 204, 301", wire, *["GET"] * len(targets))
    targets = ["/strip/chunked", "/plain.txt", "/strip/big", "/strip/404", "/x"]
    wire = b"".join(build("GET", target, {"Host": PROXY}) for target in targets)
    yield raw("pipelined to backends", wire, *["GET"] * len(targets))
    wire = b"".join(build("POST", "/echo", {"Host": PROXY}, b"body %d" % number) for number in range(5))
    yield raw("pipelined with bodies", wire, *["POST"] * 5)
    wire = build("HEAD", "/large.bin") + build("POST", "/exact", None, b"unread") + build("GET", "/exact")
    yield raw("pipelined HEAD, unread body, GET", wire, "HEAD", "POST", "GET")
    wire = build("POST", "/exact", {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n0\r\n\r\n") + build("GET", "/prefix")
    yield raw("pipelined after an unread chunked body", wire, "POST", "GET")
    yield raw("more requests than keepalive_requests", build("GET", "/exact") * 20, *["GET"] * 20)
    yield raw("empty lines before a request", b"\r\n\r\n" + build("GET", "/exact"))
    yield raw("LF alone before a request", b"\n\n" + build("GET", "/exact"))
    yield raw(
        "empty lines between requests", build("GET", "/exact") + b"\r\n\r\n" + build("GET", "/exact"), "GET", "GET"
    )
    wire = build("GET", "/exact") + build("GET", "/exact", {"Connection": "close"}) * 2
    yield raw("close in the middle of a pipeline", wire, "GET", "GET")


def malformed() -> Iterator[Case]:
    """Requests that break the rules, and what is tolerated."""
    for name, text in {
        "no Host": "GET /exact HTTP/1.1\n\n",
        "no Host over HTTP/1.0": "GET /exact HTTP/1.0\n\n",
        "two Hosts": "GET /exact HTTP/1.1\nHost: a\nHost: a\n\n",
        "an empty Host": "GET /exact HTTP/1.1\nHost:\n\n",
        "Host with a slash": "GET /exact HTTP/1.1\nHost: a/b\n\n",
        "Host with a space": "GET /exact HTTP/1.1\nHost: a b\n\n",
        "Host with a NUL": "GET /exact HTTP/1.1\nHost: a\0b\n\n",
        "Host with dots": "GET /exact HTTP/1.1\nHost: a..b\n\n",
        "Host of a dot": "GET /exact HTTP/1.1\nHost: .\n\n",
        "Host with a bad port": "GET /exact HTTP/1.1\nHost: a:b\n\n",
        "Host with an open bracket": "GET /exact HTTP/1.1\nHost: [::1\n\n",
        "Host with a control byte": "GET /exact HTTP/1.1\nHost: a\x01b\n\n",
        "Host with a bad character": "GET /exact HTTP/1.1\nHost: a@b\n\n",
        "length and chunked": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 3\nTransfer-Encoding: chunked\n\n",
        "two lengths": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 3\nContent-Length: 3\n\nabc",
        "a list of lengths": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 3, 3\n\nabc",
        "a negative length": "POST /exact HTTP/1.1\nHost: a\nContent-Length: -1\n\n",
        "a length with a plus": "POST /exact HTTP/1.1\nHost: a\nContent-Length: +3\n\nabc",
        "a length in hex": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 0x3\n\nabc",
        "a huge length": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999\n\nabc",
        "an empty length": "POST /exact HTTP/1.1\nHost: a\nContent-Length:\n\n",
        "a length with a space inside": "POST /exact HTTP/1.1\nHost: a\nContent-Length: 1 1\n\nabc",
        "an unknown coding": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n\n",
        "gzip, chunked": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
        "chunked, identity": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, identity\n\n0\n\n",
        "identity": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n",
        "two codings": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
        "Chunked in capitals": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: CHUNKED\n\n0\n\n",
        "chunked with a tab": "POST /exact HTTP/1.1\nHost: a\nTransfer-Encoding: \tchunked\n\n0\n\n",
        "chunked over HTTP/1.0": "POST /exact HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n0\n\n",
        "obs-fold": "GET /exact HTTP/1.1\nHost: a\nX-One: 1\n folded\n\n",
        "obs-fold of the first header": "GET /exact HTTP/1.1\n Host: a\n\n",
        "obs-fold with a tab": "GET /exact HTTP/1.1\nHost: a\nX-One: 1\n\tfolded\n\n",
        "space before the colon": "GET /exact HTTP/1.1\nHost : a\n\n",
        "tab before the colon": "GET /exact HTTP/1.1\nHost: a\nX-One\t: 1\n\n",
        "no colon": "GET /exact HTTP/1.1\nHost: a\nnonsense\n\n",
        "an empty header name": "GET /exact HTTP/1.1\nHost: a\n: value\n\n",
        "a space in a header name": "GET /exact HTTP/1.1\nHost: a\nX One: 1\n\n",
        "a control byte in a header name": "GET /exact HTTP/1.1\nHost: a\nX\x01: 1\n\n",
        "a high byte in a header name": "GET /exact HTTP/1.1\nHost: a\nX\xe9: 1\n\n",
        "a NUL in a header value": "GET /exact HTTP/1.1\nHost: a\nX-One: a\0b\n\n",
        "a control byte in a header value": "GET /exact HTTP/1.1\nHost: a\nX-One: a\x01b\n\n",
        "a DEL in a header value": "GET /exact HTTP/1.1\nHost: a\nX-One: a\x7fb\n\n",
        "a bare CR in a header value": "GET /exact HTTP/1.1\nHost: a\nX-One: a\rb\n\n",
        "a bare CR in a header name": "GET /exact HTTP/1.1\nHost: a\nX\rOne: b\n\n",
        "a bare CR in the request line": "GET /exact\r HTTP/1.1\nHost: a\n\n",
        "HTTP/1.2": "GET /exact HTTP/1.2\nHost: a\n\n",
        "HTTP/2.0": "GET /exact HTTP/2.0\nHost: a\n\n",
        "HTTP/0.8": "GET /exact HTTP/0.8\nHost: a\n\n",
        "HTTP/1.10": "GET /exact HTTP/1.10\nHost: a\n\n",
        "HTTP/1.999": "GET /exact HTTP/1.999\nHost: a\n\n",
        "HTTP/1.1000": "GET /exact HTTP/1.1000\nHost: a\n\n",
        "HTTP/01.1": "GET /exact HTTP/01.1\nHost: a\n\n",
        "HTTP/1.": "GET /exact HTTP/1.\nHost: a\n\n",
        "HTTP/1.1x": "GET /exact HTTP/1.1x\nHost: a\n\n",
        "http in small letters": "GET /exact http/1.1\nHost: a\n\n",
        "HTTPS/1.1": "GET /exact HTTPS/1.1\nHost: a\n\n",
        "a method in small letters": "get /exact HTTP/1.1\nHost: a\n\n",
        "a method with a hyphen": "M-SEARCH /exact HTTP/1.1\nHost: a\n\n",
        "a method with an underscore": "MY_GET /exact HTTP/1.1\nHost: a\n\n",
        "a method with a bad character": "GE(T /exact HTTP/1.1\nHost: a\n\n",
        "no method": " /exact HTTP/1.1\nHost: a\n\n",
        "TRACE": "TRACE /exact HTTP/1.1\nHost: a\n\n",
        "two spaces after the method": "GET  /exact HTTP/1.1\nHost: a\n\n",
        "two spaces before the version": "GET /exact  HTTP/1.1\nHost: a\n\n",
        "a space in the target": "GET /ex act HTTP/1.1\nHost: a\n\n",
        "a space after the version": "GET /exact HTTP/1.1 \nHost: a\n\n",
        "a control byte in the target": "GET /ex\x01act HTTP/1.1\nHost: a\n\n",
        "a DEL in the target": "GET /ex\x7fact HTTP/1.1\nHost: a\n\n",
        "a tab in the target": "GET /ex\tact HTTP/1.1\nHost: a\n\n",
        "a NUL in the target": "GET /ex\0act HTTP/1.1\nHost: a\n\n",
        "not HTTP at all": "hello\n\n",
        "absolute-form with a bad Host": "GET http://a/exact HTTP/1.1\nHost: a/b\n\n",
        "TRACE without a Host": "TRACE /exact HTTP/1.1\n\n",
        "absolute-form without a Host": "GET http://a/exact HTTP/1.1\n\n",
        "absolute-form without a Host over HTTP/1.0": "GET http://a/exact HTTP/1.0\n\n",
        "both keep-alive and close": "GET /exact HTTP/1.0\nHost: a\nConnection: keep-alive\nConnection: close\n\n",
        "binary nonsense": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
    }.items():
        yield raw(name, text.replace("\n", "\r\n").encode("latin-1"))
    for name, text in {
        "HTTP/2.0 and HEAD": "HEAD /exact HTTP/2.0\nHost: a\n\n",
        "a bad line and HEAD": "HEAD /ex act HTTP/1.1\nHost: a\n\n",
        "a bad field and HEAD": "HEAD /exact HTTP/1.1\nHost: a\nX : 1\n\n",
    }.items():
        yield raw(name, text.replace("\n", "\r\n").encode(), "HEAD")
    yield raw("the beginning of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    yield raw("a byte behind a body", build("POST", "/exact", {"Content-Length": "1"}, b"ab"), "POST", "POST")
    yield raw("HTTP/0.9", b"GET /exact\r\n", unframed=True)
    yield raw("HTTP/0.9 of a missing file", b"GET /missing\r\n", unframed=True)
    yield raw("LF alone as line ends", b"GET /exact HTTP/1.1\nHost: a\n\n")
    yield raw("spaces around a value", b"GET /vars HTTP/1.1\r\nHost: a\r\nX-One: \t one \t\r\n\r\n")
    yield raw("no space after the colon", b"GET /vars HTTP/1.1\r\nHost:a\r\nX-One:one\r\n\r\n")
    yield raw("names in other cases", b"GET /vars HTTP/1.1\r\nhOST: a\r\nx-oNE: one\r\n\r\n")
    for size in (900, 1000, 1010, 1030, 1100, 1900, 2000, 2060, 2100, 9000):
        yield raw(f"a target of {size}", build("GET", "/prefix/" + "a" * (size - 8)))
        yield raw(f"a header line of {size}", build("GET", "/exact", {"X-Long": "v" * (size - 10)}))
    for number in (3, 4, 5, 9):
        yield raw(
            f"{number} header lines of 1500", build("GET", "/exact", {f"X-{n}": "v" * 1500 for n in range(number)})
        )


CASES: list[Case] = [
    *cases.static(), *cases.locations(), *cases.names(), *cases.paths(), *cases.conditional(), *cases.bodies(),
    *proxied(), *connections(), *malformed(),
    *cases_features.guarded(), *cases_features.made(), *cases_features.rewriting(),
    *cases_upstream.CASES,
]  # fmt: skip
