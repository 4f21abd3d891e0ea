"""Generated configurations through nginx and headgate: rules of `rewrite` and `if`, pages with SSI, and locations in
which everything that refuses, adds, asks and replaces meets.

The generators are seeded: the same configurations in every run, so that a failure can be repeated and explained. What
the two do differently on purpose (docs/architecture.md) is not generated.
"""

import base64
import random
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import Response
from tests.differential.cases import words
from tests.differential.compare import PRODUCT
from tests.harness import NGINX, Server

pytestmark = pytest.mark.skipif(shutil.which(NGINX) is None, reason="nginx is not installed")
Factory = Callable[..., Server]
Case = tuple[str, str, dict[str, str], bytes]  # method, target, fields, body

CONF = """
http {
    default_type text/html;
    types { text/html html; text/plain txt; }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        COMMON
        location /text/ { return 200 "[z $uri?$args]"; }
        location /named/ { if ($http_x ~ (?<hx>.)) { return 200; } rewrite "/x/(?<nm>[^/]+)" /z; }
        location /proxied/ { proxy_pass http://BACKEND; }
        location @named { return 200 "named z $uri $args"; }
        LOCATIONS
    }
}
"""


def answer(request: Request) -> Reply:
    path = request.target.partition("?")[0]
    status = int(path.split("/")[2]) if path.startswith("/status/") else 200
    fields = [("Content-Type", "text/html"), ("X-B", "b"), ("Location", "/moved"), ("WWW-Authenticate", "Own")]
    text = f"back {request.method} {request.target} {request.body.decode()} z <!--#echo var='uri' -->"
    return Reply(status, fields[: 4 if status in (301, 401) else 2], b"" if status == 204 else text.encode())


def shown(server: Server, case: Case) -> object:
    """What of an answer must be alike: not the name in built-in pages, nor how long that makes them."""
    method, target, fields, body = case
    reply = server.request(method, target, fields, body)
    ours = {"server", "date", "etag", "last-modified"}
    if b"<center>" in reply.body or (reply.status >= 300 and not reply.body):
        ours.add("content-length")
    kept = sorted((name.lower(), value) for name, value in reply.headers if name.lower() not in ours)
    return reply.status, str(kept).replace(str(server.port()), "PORT"), page(reply)


def page(reply: Response) -> bytes:
    return PRODUCT.sub(b"PRODUCT", reply.body)


def compare(both: tuple[Factory, Factory], conf: str, files: dict[str, str | bytes], cases: list[Case]) -> None:
    servers = [factory(conf, files=files) for factory in both]
    for server in servers:
        server.allow(r"\[error\]", r"\[alert\]")
    ours, theirs = servers
    for case in cases:
        assert (case, shown(ours, case)) == (case, shown(theirs, case))


@pytest.fixture
def both(headgate: Factory, nginx: Factory) -> tuple[Factory, Factory]:
    return headgate, nginx


@pytest.fixture
def address(backend: Callable[..., Backend]) -> str:
    return backend(answer).address


# -- rewrite, if, set, break, return -------------------------------------------------------------

PATTERNS = words(r"^/l\d+/(.*)$ a ^(.*)b(.*)$ /x/(?<nm>[^/]+) ^/l(\d+)/a (?i)A c$ ^/$ . ^/l\d+/(a+)(b*) \.html$ %20|/")
TARGETS = words(
    r"/m/$1 /m/$1?x=$2 /m/a?$args /m/b? /l0/$1 http://e.x/$1 $scheme://h/$1?z=1 /m/$nm /m/$uri $1 /m/$request_uri"
    r" /files/$1 /m/x?y=$arg_q& https://e/? /m/$1?a=$1 /m/%41$1 /m/\\$1"
)
CONDITIONS = [
    "$arg_q", "$arg_q = 1", "$arg_q != 1", "$uri ~ a", "$uri ~* A(.)", "$uri !~ b", "$uri !~* B", "$v", "$v = $arg_q",
    "$request_method = POST", "$http_x ~ (?<hx>.)", "-f $document_root/files/a", "!-f $document_root/files/a",
    "-d $document_root/files", "!-d $document_root/none", "-e $document_root$uri", "!-e $document_root$uri",
    "-x $document_root/files/a", "!-x $document_root/files",
]  # fmt: skip
VALUES = words("$1 $uri 1 0 $v$w $arg_q $args $2-$1 $hx")
RETURNS = ['200 "r $uri $args $1 $v"', "301 /r/$1", "403", "204", "http://r/$uri"]


def rule(rng: random.Random, inside: bool = False) -> str:
    kind = rng.choices(("rewrite", "set", "if", "break", "return"), (4, 2, 0 if inside else 3, 0.5, 0.4))[0]
    if kind == "rewrite":
        flag = rng.choice(("", "", "last", "break", "redirect", "permanent"))
        return f'rewrite "{rng.choice(PATTERNS)}" "{rng.choice(TARGETS)}" {flag};'
    if kind == "set":
        return f'set ${rng.choice("vw")} "{rng.choice(VALUES)}";'
    if kind == "if":
        rules = " ".join(rule(rng, True) for _ in range(rng.randint(1, 2)))
        return f"if ({rng.choice(CONDITIONS)}) {{ {rules} }}"
    return "break;" if kind == "break" else f"return {rng.choice(RETURNS)};"


def rewriting(rng: random.Random) -> Iterator[str]:
    for number in range(50):
        rules = " ".join(rule(rng) for _ in range(rng.randint(1, 4)))
        content = rng.choice(
            ("proxy_pass http://BACKEND;", "proxy_pass http://BACKEND/px/;", "", "add_header X-V $v-$w;")
        )
        yield f'location /l{number}/ {{ set $v ""; set $w ""; {rules} {content} }}'
    yield 'location /m/ { return 200 "m $uri $args $v $w"; }'


def test_rules(both: tuple[Factory, Factory], address: str) -> None:
    rng = random.Random(1)
    common = 'error_page 404 /missing; location = /missing { return 200 "missing $uri $args $request_uri"; }'
    conf = CONF.replace("LOCATIONS", "\n".join(rewriting(rng))).replace("COMMON", common).replace("BACKEND", address)
    cases: list[Case] = []
    for number in range(50):
        for target in words("a b?q=1 abc aab?q=0&r=2 x/y A%20b a%25b+c?q=%41 a.html"):
            post = rng.random() < 0.2
            cases.append(("POST" if post else "GET", f"/l{number}/{target}", {"X": "h"}, b"body" if post else b""))
    compare(both, conf, {"html/files/a": "file a", "html/files/b": "file b"}, cases)


# -- SSI -----------------------------------------------------------------------------------------

NAMES = words("uri x y arg_a none request_method args document_uri 1 0 query_string")
TEXTS = ["", "t", "<b>", "--", "-->", "<!-- c -->", "<!--", "<!--#", "\n", "$x", '"', " a b "]
SET = ["", "1", "$x", "${y}", "$arg_a-$x", "a b", "\\$x", "<&>", "$", "${", "${x", "/^a(.)/", "é", "%41", "x'y", "$1",
       "long" * 20, "${x}z"]  # fmt: skip
EXPRESSIONS = [
    "$x", "$x = 1", "$x=1", "$x != 1", "$arg_a = /a/", "$arg_a = /^(.)(.*)$/", "$arg_a != /q/", "$none", "", "abc",
    "$x = $y", "$x = /(?<nm>.)/", "$x =", "= 1", "!= 1", "$x=/(/", "$x ~ a", "${x} = a", "$x = 'a'", "$x  =  1 ",
]  # fmt: skip
SHORT = words("/text/x /text/$x /text/a%20b?q=$arg_a /proxied/1 /text/a?b?c")
URIS = [*SHORT, *words("/part/0.html /part/1.html?a=zz 2.html /none /fails /empty /../x $uri/x")]
JUNK = [
    "<!--#else -->", "<!--#endif -->", "<!--#elif expr='1' -->", "<!--#endblock -->", "<!--#exec a='b' -->",
    "<!--#echo -->", "<!--# echo var='x'-->", "<!--#echo  var = 'x' -->", "<!--#echo var='x' --- >",
    "<!--#echo var='x'x -->", "<!--#echo var='x' - -->", "<!--#ECHO var='x' -->",
    '<!--#config errmsg="ERR" -->', '<!--#config timefmt="%Y" --><!--#echo var="date_gmt" -->',
]  # fmt: skip


def quoted(rng: random.Random, text: str) -> str:
    quote = rng.choice("\"'")
    return quote + text.replace(quote, "") + quote


def command(rng: random.Random, depth: int) -> str:
    kind = rng.choices(
        ("echo", "set", "if", "include", "block", "junk", "cut"), (3, 2, 3 * (depth < 2), 3, depth < 2, 2, 1)
    )[0]
    if kind == "echo":
        more = f" default={quoted(rng, rng.choice(SET))}" * (rng.random() < 0.3)
        more += f" encoding={quoted(rng, rng.choice(words('none url entity bad')))}" * (rng.random() < 0.4)
        return f"<!--#echo var={quoted(rng, rng.choice(NAMES))}{more} -->"
    if kind == "set":
        return f"<!--#set var={quoted(rng, rng.choice(NAMES))} value={quoted(rng, rng.choice(SET))} -->"
    if kind == "include":
        stored = rng.random() < 0.25
        more = f" wait={quoted(rng, rng.choice(words('yes no YES x')))}" * (rng.random() < 0.3)
        more += f" set={quoted(rng, rng.choice('xyq'))}" * stored
        more += f" stub={quoted(rng, rng.choice(words('b1 b2 b3')))}" * (rng.random() < 0.25)
        how = rng.choice(words("virtual virtual virtual file"))
        return f"<!--#include {how}={quoted(rng, rng.choice(SHORT if stored else URIS))}{more} -->"
    if kind == "block":
        return f'<!--#block name="b{rng.randint(1, 2)}" -->{pages(rng, depth + 1)}<!--#endblock -->'
    if kind == "if":
        branches = [f"<!--#if expr={quoted(rng, rng.choice(EXPRESSIONS))} -->"]
        if rng.random() < 0.5:
            branches.append(f"<!--#elif expr={quoted(rng, rng.choice(EXPRESSIONS))} -->")
        if rng.random() < 0.5:
            branches.append("<!--#else -->")
        return "".join(branch + pages(rng, depth + 1) for branch in branches) + "<!--#endif -->"
    if kind == "junk":
        return rng.choice(JUNK)
    text = command(rng, depth)
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(("", *"-<>!#\"'= $\\a")) + text[at + 1 :]


def pages(rng: random.Random, depth: int = 0) -> str:
    most = 3 if depth else 8
    return "".join(
        command(rng, depth) if rng.random() < 0.67 else rng.choice(TEXTS) for _ in range(rng.randint(1, most))
    )


def test_pages(both: tuple[Factory, Factory], address: str) -> None:
    rng = random.Random(2)
    files: dict[str, str | bytes] = {f"html/page/{number}.html": pages(rng) for number in range(150)}
    for number, text in enumerate(("", '<!--#echo var="x" -->', '<!--#set var="x" value="p" -->')):
        files[f"html/part/{number}.html"] = files[f"html/page/{number}.html"] = f"part {number}{text}"
    locations = 'location /fails { return 500; } location /empty { return 200 ""; }'
    conf = CONF.replace("LOCATIONS", locations).replace("COMMON", "ssi on;").replace("BACKEND", address)
    compare(both, conf, files, [("GET", f"/page/{number}.html?a=abc", {}, b"") for number in range(150)])


# -- everything at once --------------------------------------------------------------------------

LAYERS: list[tuple[float, list[str]]] = [
    (0.3, [*(f"auth_request /ask/{status};" for status in (200, 204, 302, 401, 403, 500)), "auth_request /asked;"]),
    (0.2, [f"auth_request_set $av {value};" for value in ("$upstream_http_x_b", "$upstream_status", '"$uri $status"')]),
    (0.25, [f"add_before_body {uri};" for uri in words("/text/b /l3/ /none /ask/403")]),
    (0.25, [f"add_after_body {uri};" for uri in words("/text/a /ssi.html /proxied/x")]),
    (0.2, ["addition_types *;", "addition_types text/plain;"]),
    (0.25, ["ssi on;", "ssi on; ssi_types *;"]),
    (0.25, ["sub_filter z X; sub_filter_types *;", "sub_filter z Y; sub_filter_once off;"]),
    (0.2, ["deny all;", "allow 127.0.0.1; deny all;", "deny 127.0.0.1;"]),
    (0.2, ['auth_basic "r"; auth_basic_user_file %%DIR%%/users;', "auth_basic off;"]),
    (0.3, ["satisfy any;", "satisfy all;"]),
    (0.3, [f"error_page {what};" for what in (
        "401 403 404 /text/e", "403 404 500 =200 /text/e", "401 = @named", "404 403 = @named", "404 =301 http://x/y",
        "401 /l2/", "404 =410 /ssi.html", "500 502 =204 @named")]),
    (0.1, ["recursive_error_pages on;"]),
    (0.1, ["proxy_intercept_errors on;"]),
    (0.1, ["limit_except GET { deny all; }"]),
    (0.1, ["internal;"]),
    (0.2, ["add_header X-A $av;", 'add_header X-U "$uri" always;']),
    (0.2, ["mirror /proxied/copy;", "mirror /ask/500; mirror_request_body off;"]),
    (0.1, ["post_action /proxied/post;", "post_action @named;"]),
    (0.15, [f"if {rest}" for rest in (
        "($arg_q) { return 404; }", "($request_method = POST) { set $v 1; }", "($arg_q) { add_header X 1; }")]),
    (0.7, ["proxy_pass http://BACKEND;", *(f"proxy_pass http://BACKEND/status/{n}/;" for n in (200, 401, 404, 500)),
           "try_files /ssi.html =404;", "try_files /none @named;", "try_files /none /text/t;", "alias %%DIR%%/html/;",
           'return 200 "returned z";']),
]  # fmt: skip


def test_locations(both: tuple[Factory, Factory], address: str) -> None:
    rng = random.Random(3)
    locations = [f"location /ask/{status} {{ return {status}; }}" for status in (200, 204, 403, 500)]
    locations += ["location /ask/302 { return 302 /x; }"]
    locations += ["location /ask/401 { add_header WWW-Authenticate asked always; return 401; }"]
    locations += ["location = /asked { proxy_pass http://BACKEND/status/401; proxy_pass_request_body off;"
                  ' proxy_set_header Content-Length ""; }']  # fmt: skip
    for number in range(60):
        lines = [rng.choice(choices) for chance, choices in LAYERS if rng.random() < chance]
        rng.shuffle(lines)
        locations.append(f"location /l{number}/ {{ {' '.join(lines)} }}")
    common = 'set $v ""; location /known { auth_request_set $av ""; }'
    conf = CONF.replace("COMMON", common).replace("LOCATIONS", "\n".join(locations)).replace("BACKEND", address)
    files: dict[str, str | bytes] = {
        "html/ssi.html": "ssi z <!--#include virtual='/text/in' --> <!--#include virtual='/proxied/in' -->",
        "html/f.txt": "file z",
        "html/f.html": "file z <!--#echo var='uri' -->",
        "users": "u:{PLAIN}p\n",
    }
    user = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
    cases: list[Case] = []
    for number in range(60):
        cases += [
            ("GET", f"/l{number}/f.html", {}, b""),
            ("GET", f"/l{number}/f.txt", user, b""),
            ("GET", f"/l{number}/none?q=1", {}, b""),
            ("POST", f"/l{number}/f.html", user, b"body"),
            ("HEAD", f"/l{number}/f.html?q=1", {}, b""),
            ("GET", f"/l{number}/f.txt", {"Range": "bytes=1-3"}, b""),
        ]
    compare(both, conf, files, cases)
