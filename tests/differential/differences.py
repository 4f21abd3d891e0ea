"""Where headgate answers differently from nginx 1.22 on purpose: which fields, headgate's value, and why.

SITE is by the names of the site's cases; a listed difference that is gone fails its test. GENERATED are rules for the
generated requests: every difference there must be one that a rule knows, and every rule must be needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.differential.compare import Case, Differences, Explained

STRICT = "what could be read in two ways is refused, never passed on (RFC 9112 section 11.2); nginx ignores such lines"
TABS = "spaces and tabs around a value are no part of it (RFC 9110 section 5.5); nginx takes off spaces alone"
JOINED = "since 1.23.0 nginx joins the values of a repeated field, too"
HOSTS = "since 1.29.4 nginx holds a Host against RFC 3986, too"
LF_ALONE = "since 1.29.4 nginx wants CR LF in chunked bodies, too"
CONNECT = "since 1.31.0 nginx reads a CONNECT's target, and refuses the method, too"
PROXY_11 = "since 1.29.7 nginx's default of proxy_http_version is 1.1, too, and it sends no Connection: close"
PROXY_CONNECTION = "later versions of nginx do not pass on Proxy-Connection, either"
LENGTHS = "later versions of nginx refuse a response whose length is doubtful, too"
INTERIM = "later versions of nginx skip a backend's 1xx heads, too; 1.22 takes them for the answer"
NO_BODY = "without a body there is nothing to go on with (RFC 9110 section 10.1.1)"
DISCARDED = "the length of a chunked body that nobody read is not known; nginx has what is left to be thrown away"
TOO_LARGE = "494 in the log tells these apart from other answers with 400"
LINE = "the line in the log is the one that was sent; nginx's ends where its buffer did"
CUT = "OK is said of whole answers; nginx says it of what was cut short, too, where it could flush what there was"
RESET = CUT + "; where only the connection's end tells the body's, it is a reset, so that the client can notice"
BAD_CHUNK = (
    "the head that a backend sent reaches the client before the connection is cut; nginx drops one not yet written"
)
STALE = (
    "a kept connection that its backend has closed says nothing against it: it is tried again, with a new connection"
)
CHUNKS = "how a body is cut into chunks has no meaning (RFC 9112 section 7.1), and their frames are counted"
OVERWRITTEN = "$upstream_http_location is what the backend sent; 1.22 rewrites the redirect in that very place"
UNBELIEVED = (
    "a head that is refused is no head: nothing is known of its fields; and reads are not as small as its buffer"
)
UNSENT = "over HTTP/1.0 there are no trailers, so that none were sent"
AT_ONCE = "what has arrived is decoded at once and then held against the limit; nginx judges chunk by chunk"
DETAIL = "behind nginx's words the error log says what is wrong"
FILTERED = "a 412 is a whole answer and keeps the connection; on nginx a header filter makes it, which has then failed"
UNSATISFIABLE = (
    "a 416 has the added fields of a 416; on nginx the header filters have run for a 200 before, and add_header stays"
)
NO_ARGS = "there are no arguments; on nginx try_files leaves an empty text"
SPACE = "a space at the line's end is no part of the version"
EARLY = "what is wrong with a certificate's name is known before a server is chosen"
NOWHERE = "what is no URL is for no host at all"
ROOT = "a target without a path asks for / (RFC 9112 section 3.2.1)"

Fields = dict[str, object]


def page(title: str) -> bytes:
    """A default page, with the product's name normalized."""
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>PRODUCT</center>\r\n</body>\r\n</html>\r\n"
    ).encode()


BAD_REQUEST: Fields = {"0.status": 400, "0.body": page("400 Bad Request"), "end": "closed"}
BAD_GATEWAY: Fields = {"0.status": 502, "0.body": page("502 Bad Gateway")}
NOT_ALLOWED: Fields = {"0.status": 405, "0.body": page("405 Not Allowed")}


def each(names: Iterable[str], why: str, fields: Fields, *, follows: bool = True) -> dict[str, Explained]:
    """The same explanation for several cases; with `follows` other fields may differ, too."""
    return dict.fromkeys(names, Explained(why, fields, follows))


def _vars(host: str, one: str) -> Fields:
    """What /vars answers."""
    shown = f"GET|/vars|/vars|||||{host}|{host}|{one}||http|HTTP/1.1|%%PORT_0%%|127.0.0.1|_|127.0.0.1|||||"
    return {"0.body": f"{shown}{'|'.join(f'%%DIR%%/html{end}' for end in ('', '', '/vars'))}|||\n".encode()}


def _by_default(name: str) -> dict[str, Explained]:
    body = f"app: POST /echo HTTP/1.1\nContent-Length: 10\nHost: app\nX-Case: {name}\n\nb'0123456789'\n"
    return each([name], PROXY_11, {"0.body": body.encode()})


def _error(text: str, target: str, server: str = "proxy.example", host: str = "proxy.example") -> Fields:
    context = f'client: 127.0.0.1, server: {server}, request: "POST {target} HTTP/1.1", host: "{host}"'
    return {"site-error": [f"TIME [error] PID: *N {text}, {context}"]}


def _invalid_chunk(cases: Iterable[str], detail: str) -> dict[str, Explained]:
    text = f"client sent invalid chunked body: {detail}"
    places = [(case, target) for case in cases for target in ("/echo", "/strip/echo")]
    return {f"{case} to {target}": Explained(DETAIL, _error(text, target)) for case, target in places}


def _too_large() -> Explained:
    error = _error("client intended to send too large chunked body: 0+11 bytes", "/upload-limit", "_", "localhost")
    return Explained(AT_ONCE, {"log.0.length": "134", "log.0.clength": "-", **error})


def _long(size: int) -> dict[str, Explained]:
    line = f"GET /prefix/{'a' * (size - 8)} HTTP/1.1"
    log = f'127.0.0.1 - - [TIME] "{line}" 414 PAGE "-" "-"'
    return {f"a target of {size}": Explained(LINE, {"log.0.request": line, "main": [log]})}


def _too_long(name: str) -> dict[str, Explained]:
    log = '127.0.0.1 - - [TIME] "GET /exact HTTP/1.1" 494 PAGE "-" "-"'
    return {name: Explained(TOO_LARGE, {"log.0.status": "494", "main": [log]})}


def _cookies(place: str, *first: str) -> dict[str, Explained]:
    rest = "four=4; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT, five, six=; Path=; Domain=, path=/, ; Path=/x"
    sent = f"{', '.join(first)}; HttpOnly; SameSite=Lax, {rest}"
    name = f"GET /{place}/cookies-all?a=y @rewriting.example"
    return each([name], JOINED, {"log.0.sent_cookie": sent}, follows=False)


_TAG = '"6553f180-24"'
_TAGS = (_TAG, f"W/{_TAG}", '"other"', f'"x", {_TAG}', f'"x",W/{_TAG} ,"y"', _TAG.strip('"'), "")
_CONDITIONS = [f"If-Unmodified-Since={date}" for date in ("Mon, 13 Nov 2023 22:13:20 GMT", "nonsense")]
_RANGES = ("36-", "-0", "9-5", "100-,200-", "a-b", "0-1x", "0", "--1", "0-99999999999999999999")
_416: Fields = {"0.header.X-Server": None, "0.header.X-Always": ["416"], "log.0.sent": "207"}


def _both(what: str) -> list[str]:
    """The cases of a backend's answer, over HTTP/1.1 and 1.0."""
    return [f"GET /strip/{what} @proxy.example", f"HTTP/1.0 {what}"]


def _asked(*targets: str) -> list[str]:
    """The cases of some targets, GET and POST."""
    return [name for target in targets for name in (f"GET {target} @upstream.example", f"POST {target}")]


UNFINISHED: Fields = {"log.0.completion": ""}
SITE: dict[str, Explained] = {
    **each(["a header twice"], JOINED, _vars("localhost", "1, 2")),
    **each(["spaces around a value"], TABS, _vars("a", "one")),
    **each(["chunked with a tab"], TABS, {"0.status": 200, "0.body": b"exact /exact\n", "end": "kept"}),
    **each(["no colon", "a high byte in a header name", "a control byte in a header value"], STRICT, BAD_REQUEST),
    **each(["a DEL in a header value"], STRICT, BAD_REQUEST),
    **each([f"a field called X(y) at {host}" for host in ("lenient.example", "strict.example")], STRICT, BAD_REQUEST),
    **each(["Host with a bad port", "Host with an open bracket"], HOSTS, BAD_REQUEST),
    **each([f"LF alone after a chunk size to {path}" for path in ("/echo", "/strip/echo")], LF_ALONE, BAD_REQUEST),
    **each(["authority-form"], CONNECT, NOT_ALLOWED),
    **each(["absolute-form with only a query"], ROOT, {"log.0.request_uri": "/?a=b"}, follows=False),
    **each(["a space after the version"], SPACE, {"log.0.protocol": "HTTP/1.1"}, follows=False),
    **each(["GET /try/none"], NO_ARGS, {"log.0.args": "-", "log.0.query": "-"}, follows=False),
    **each(
        [f"GET /plain.txt {text}" for text in (*_CONDITIONS, *(f"If-Match={tags}" for tags in _TAGS))],
        FILTERED, {"end": "kept", "log.0.completion": "OK"},
    ),
    **each([f"GET /plain.txt Range=bytes={text}" for text in _RANGES], UNSATISFIABLE, _416, follows=False),
    **_by_default("at the limit"),
    **_by_default("chunked at the limit"),
    "chunked over the limit": _too_large(),
    **each(["Expect without a body"], NO_BODY, {"0.interim": []}),
    **each(
        ["a chunked body that nobody reads", "pipelined after an unread chunked body", "Chunked in capitals"],
        DISCARDED, {"log.0.clength": "-"}, follows=False,
    ),
    **_invalid_chunk(
        ["bad chunk size", "negative chunk size", "chunk size overflow", "chunk size with 0x", "no chunk size"],
        "invalid chunk size",
    ),
    **_invalid_chunk(["chunk longer than its size"], "no CRLF after chunk data"),
    **each(_both("continue"), INTERIM, {"0.interim": [], "log.0.status": "200", "log.0.upstream_status": "200"}),
    **each(
        [case for what in ("double-length", "bad-length", "length-and-chunked") for case in _both(what)],
        LENGTHS, BAD_GATEWAY,
    ),
    **each(
        [*_both("cut-body"), _both("cut-chunked")[0], "failing cut-body", "POST failing cut-body"],
        CUT, {"log.0.completion": ""}, follows=False,
    ),
    **each(["HTTP/1.0 cut-chunked"], RESET, {"log.0.completion": "", "0.truncated": True}, follows=False),
    **each(
        [*_both("bad-chunk"), "failing bad-chunk", "POST failing bad-chunk"],
        BAD_CHUNK, {"0.status": 200, "0.body": b"", "0.truncated": True},
    ),
    **each(
        ["failing closed", "GET /next/closed @rewriting.example"],
        STALE, {"log.0.upstream_status": "502, 502, 502, 502"},
    ),
    **each(["GET /substituted/all/large.bin @made.example"], CHUNKS, {"log.0.body": "1758050"}),
    **each(
        ["GET /unbuffered/chunked X-Own=1 @rewriting.example", "POST /unbuffered/chunked"],
        CHUNKS, {"log.0.body": "5021"},
    ),
    **each(["both keep-alive and close"], JOINED, {"log.0.connection": "keep-alive, close"}, follows=False),
    **each(["GET /headers?a=value", "GET /headers"], JOINED, {"log.0.sent_one": "1, 2"}, follows=False),
    **each(_both("cookies"), JOINED, {"log.0.sent_cookie": "a=1, b=2; Path=/"}, follows=False),
    **_cookies("default", "one=1; Path=/mapped/a/deep/x; Domain=old.example",
               "two=2; domain=.sub.test; path=/mapped/b/deep; Secure", "three=3; Domain=a.b.test"),
    **_cookies("off", "one=1; Path=/a/deep/x; Domain=old.example",
               "two=2; domain=.sub.test; path=/b/deep; Secure", "three=3; Domain=a.b.test"),
    **_cookies("cookies", "one=1; Path=/a/y; Domain=new.example; Secure; HttpOnly; SameSite=Strict",
               "two=2; domain=sub.example; path=/b/y", "three=3; Domain=b.example"),
    **each(
        ["GET /accel/accel-range?q=1 @rewriting.example"], JOINED, {"log.0.sent_ranges": "none, bytes"}, follows=False
    ),
    **each(
        [*_both("redirect-self"), "HEAD redirect-self",
         *(f"GET /{place}/redirect-self?a=x @rewriting.example" for place in ("default", "rules"))],
        OVERWRITTEN, {"log.0.upstream_location": "http://app/back/here"}, follows=False,
    ),
    **each(
        [*_both("huge-head"), "failing huge-head", "POST failing huge-head"],
        UNBELIEVED, {"log.0.upstream_peer": "-"},
    ),
    **each(["trailers over HTTP/1.0"], UNSENT, {"log.0.sent_trailer": "-"}, follows=False),
    **each(["hop-by-hop headers"], PROXY_CONNECTION, {"log.0.upstream_length": "125"}),
    **each(["GET /variable/?a= @upstream.example"], NOWHERE, {"log.0.proxy": "-:-"}),
    **each(["GET /tls/variable/?a=none @upstream.example"], EARLY, {"log.0.upstream": "-"}),
    **each(
        _asked("/read/body", "/read/next/body"), CUT, {"0.body": b"some", "log.0.completion": ""},
    ),
    **each(
        _asked(*(f"/kinds/{kind}/huge-head" for kind in ("error", "invalid", "4xx", "5xx", "repeated"))),
        UNBELIEVED, {"log.0.upstream_peer": "-"},
    ),
    **each(["GET /unbuffered/chunked @upstream.example"], CHUNKS, {"log.0.body": "5021"}),
    **each([f"GET /store/{what}?a=1 @upstream.example" for what in ("cut-body", "cut-chunked")], CUT, UNFINISHED),
    **_long(2060), **_long(2100), **_long(9000),
    **_too_long("a header line of 2060"), **_too_long("a header line of 2100"), **_too_long("a header line of 9000"),
    **_too_long("5 header lines of 1500"), **_too_long("9 header lines of 1500"),
}  # fmt: skip


# -- generated requests --------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Generated requests of a kind that differ for a reason; `knows` whether differences are of this sort."""

    kind: str
    why: str
    knows: Callable[[Case, Differences], bool]


_NO_HOST = re.compile(rb"\r\nHost: (?!(?:\[[^\]\[]+\]|[^:\[\]]*)(?::\d*)?\r\n)")
_BAD_FIELD = re.compile(rb"\r\n(?![!#$%&'*+.^_`|~0-9A-Za-z-]+:)[^\r]|\xe9")


def _is(found: Differences, fields: Fields) -> bool:
    return all(key in found and found[key][1] == value for key, value in fields.items())


def _kept(case: Case, found: Differences) -> bool:
    rest = {key for key in found if not key.startswith("log.1.")} - {"main", "site-error"}
    return rest == {"end", "log.0.completion"} and _is(found, {"end": "kept"})


GENERATED = [
    Rule("host", HOSTS, lambda case, found: bool(_NO_HOST.search(case.wire)) and _is(found, BAD_REQUEST)),
    Rule("range", UNSATISFIABLE, lambda case, found: Explained("", _416).covers(found)),
    Rule("tag", FILTERED, _kept),
    Rule("header", JOINED, lambda case, found: set(found) == {"log.0.connection"}),
    Rule(
        "header",
        STRICT,
        lambda case, found: bool(_BAD_FIELD.search(case.wire)) and _is(found, {"0.status": 400}),
    ),
]
