"""docs/scripting.md: its examples, as they stand there, run; and what the directives promise holds."""

import json
import re
import signal
import socket
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import Client, TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]
DOC = (Path(__file__).parents[2] / "docs/scripting.md").read_text()
PYTHON = {
    name: code
    for code in re.findall(r"```python\n(.*?)```", DOC, re.S)
    if (name := re.match(r'"""(\w+)\.py', code) and re.match(r'"""(\w+)\.py', code)[1])  # type: ignore[index]
}
NGINX = re.findall(r"```nginx\n(.*?)```", DOC, re.S)

HANDLERS = """
import asyncio
import functools
import time
from headgate.worker.script import Request

async def text(r): return f"{r.method} {r.uri} {r.args} {r.query} {r.host} {r.http_version} {r.internal}"
async def status(r): return int(r.query["s"])
async def nothing(r): pass
async def boom(r): raise ValueError("no luck")
async def late_boom(r):
    async def pieces():
        yield "some"
        raise ValueError("no luck")
    await r.respond(200, None, pieces())
async def twice(r):
    await r.respond(200, None, "one")
    await r.respond(200, None, "two")
async def split_header(r): await r.respond(200, {"X-A": "b\\r\\nX-C: d"}, "")
async def echo(r): await r.respond(201, {"Content-Type": "text/x"}, await r.body.read())
async def count(r):
    sizes = [len(piece) async for piece in r.body]
    return f"{sum(sizes)}"
async def stream(r):
    async def pieces():
        for i in range(3):
            yield f"piece {i}\\n"
            await asyncio.sleep(0)
    await r.respond(200, [("X-A", "1"), ("X-A", "2")], pieces())
async def large(r):
    async def pieces():
        for _ in range(200):
            yield b"x" * 65536
    await r.respond(200, None, pieces())
async def inside(r): return r.internal_redirect("/text", "from=inside")
async def to_named(r): return r.internal_redirect("@named")
async def away(r): await r.redirect("/text", 301)
async def included(r):
    async def pieces():
        yield "<"
        await r.subrequest("/text", in_memory=False)
        yield ">"
    await r.respond(200, None, pieces())
async def background(r):
    await r.subrequest("/side", args="x=1", background=True)
    return "done"
async def posted(r):
    reply = await r.subrequest("/backend/p", method="POST", body="hello", headers={"X-B": "1"})
    return f"{reply.status} {reply.text}"
async def slow(r):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        r.log("notice", "the handler was told")
        raise
async def blocks(r):
    time.sleep(0.4)
    return "late"
async def variables(r):
    r.variables["mine"] = "changed"
    unknown = ""
    try:
        r.variables["no_such"]
    except KeyError:
        unknown = "unknown"
    try:
        r.variables["host"] = "x"
    except AttributeError:
        unknown += " fixed"
    return f'{r.variables["mine"]} {r.variables["http_x_a"]} {unknown}'
class Handler:
    def __init__(self, word): self.word = word
    async def __call__(self, r): return self.word
    async def method(self, r): return self.word
made = Handler("made")
bound = made.method
partial = functools.partial(Handler.method, made)
async def gate(r):
    r.ctx["seen"] = "gate"
    return 403 if "no" in r.query else None
async def after_gate(r): return r.ctx["seen"]
def shout(r): return r.headers.get("X-Who", "nobody").upper()
def broken(r): raise KeyError("x")
def head(r):
    r.response_headers["X-Filtered"] = r.response_headers.get("X-Backend", "none")
    del r.response_headers["X-Backend"]
def body(r, data, last): return data.upper() + (b"!" if last else b"")
def log(r): r.log("notice", f"ended with {r.status}")
"""

CONF = """
http {
    py_path scripts;
    py_import handlers.py as h;
    py_set $who h.shout;
    py_set $broken h.broken;
    upstream backend { server 127.0.0.1:%(port)d; }
    server {
        listen 127.0.0.1:%%%%PORT_0%%%%;
        set $mine "own";
        error_page 418 /text;
%(locations)s
        location = /made { py_content h.made; }
        location = /bound { py_content h.bound; }
        location = /partial { py_content h.partial; }
        location = /gate { py_access h.gate; py_content h.after_gate; }
        location = /who { return 200 "$who,$broken,$who"; }
        location = /filtered {
            py_header_filter h.head; py_body_filter h.body; py_log h.log; proxy_pass http://backend;
        }
        location = /side { proxy_pass http://backend; }
        location /backend/ { proxy_pass http://backend; }
        location @named { return 200 named; }
    }
}
"""
NAMES = re.findall(r"async def (\w+)\(r\)", HANDLERS)


@pytest.fixture
def site(headgate: Factory, backend: Callable[..., Backend]) -> tuple[Server, Backend]:
    def answer(request: Request) -> Reply:
        return Reply(200, [("X-Backend", "yes")], b"backend " + request.method.encode() + b" " + request.body)

    behind = backend(answer)
    locations = "\n".join(f"        location = /{name} {{ py_content h.{name}; }}" for name in NAMES if name != "gate")
    server = headgate(CONF % {"port": behind.port, "locations": locations}, files={"scripts/handlers.py": HANDLERS})
    return server, behind


def test_what_was_asked_and_what_is_returned(site: tuple[Server, Backend]) -> None:
    server, _ = site
    assert server.get("/text?a=1&b=%20").body == b"GET /text a=1&b=%20 {'a': '1', 'b': ' '} localhost 1.1 False"
    assert server.get("/status?s=204").status == 204
    assert server.get("/status?s=404").status == 404
    assert {server.get(uri).body for uri in ("/made", "/bound", "/partial")} == {b"made"}
    page = server.get("/status?s=418")
    assert (page.status, page.body.split()[0]) == (418, b"GET")


def test_failures_are_500_and_one_line(site: tuple[Server, Backend]) -> None:
    server, _ = site
    server.allow(r'"h\.')
    assert server.get("/nothing").status == 500
    server.expect_log(r'\[error\].*"h\.nothing" gave no answer \(is an await missing\?\), client: ')
    assert server.get("/boom").status == 500
    server.expect_log(
        r'"h\.boom" failed: ValueError: no luck at boom in ".*handlers\.py":\d+, client: .*request: "GET /boom'
    )
    assert server.get("/split_header").status == 500
    with pytest.raises(TruncatedError):
        server.get("/late_boom")
    client = server.client()  # stays, so that the handler goes on after its first answer
    assert client.get("/twice").body == b"one"
    server.expect_log(r"answered already")


def test_bodies(site: tuple[Server, Backend]) -> None:
    server, _ = site
    data = bytes(range(256)) * 2000
    reply = server.request("POST", "/echo", body=data)
    assert (reply.status, reply.body) == (201, data)
    assert server.request("POST", "/count", body=data).body == b"%d" % len(data)
    assert server.get("/count").body == b"0"


def test_streams(site: tuple[Server, Backend]) -> None:
    server, _ = site
    reply = server.get("/stream")
    assert reply.body == b"piece 0\npiece 1\npiece 2\n"
    assert reply.all("x-a") == ["1", "2"]
    assert len(server.get("/large").body) == 200 * 65536


def test_redirects(site: tuple[Server, Backend]) -> None:
    server, _ = site
    assert server.get("/inside").body.startswith(b"GET /text from=inside")
    assert server.get("/to_named").body == b"named"
    away = server.get("/away")
    assert away.status == 301
    assert (away.header("location") or "").endswith("/text")


def test_subrequests(site: tuple[Server, Backend]) -> None:
    server, behind = site
    assert re.fullmatch(rb"<GET /text .* True>", server.get("/included").body)
    assert server.get("/posted").body == b"200 backend POST hello"
    before = len(behind.requests)
    assert server.get("/background").body == b"done"
    behind.wait_requests(before + 1)
    server.access_log(3)  # the last one is written when that subrequest has ended too


def test_variables_access_and_filters(site: tuple[Server, Backend]) -> None:
    server, _ = site
    assert server.get("/variables", headers={"X-A": "v"}).body == b"changed v unknown fixed"
    assert server.get("/gate").body == b"gate"
    assert server.get("/gate?no=1").status == 403
    server.allow(r'"h\.broken" failed: KeyError')
    assert server.get("/who", headers={"X-Who": "me"}).body == b"ME,,ME"
    reply = server.get("/filtered")
    assert reply.body == b"BACKEND GET !"
    assert (reply.header("x-filtered"), reply.header("x-backend")) == ("yes", None)
    server.expect_log(r"\[notice\].*ended with 200")


def test_a_handler_hears_that_the_client_has_left(site: tuple[Server, Backend]) -> None:
    server, _ = site
    client = Client(server.port(0))
    client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.get("/text").status == 200  # the handler runs by now
    client.close()
    server.expect_log(r"the handler was told")


def test_a_blocked_loop_is_reported_with_its_stack(site: tuple[Server, Backend]) -> None:
    server, _ = site
    server.allow(r"the event loop has been blocked")
    assert server.get("/blocks").body == b"late"
    server.expect_log(r'\[warn\].*the event loop has been blocked for 0\.\d+ s by blocks in ".*handlers\.py":\d+')


def test_a_reload_brings_new_code(headgate: Factory) -> None:
    conf = """
    http { py_import app.py; server { listen 127.0.0.1:%%PORT_0%%; location / { py_content app.fn; } } }
    """
    server = headgate(conf, files={"app.py": "async def fn(r): return 'old'"})
    assert server.get("/").body == b"old"
    server.write("app.py", "async def fn(r: return 'broken'")
    server.allow(r"SyntaxError")
    server.send_signal(signal.SIGHUP)
    server.expect_log(r'\[emerg\].*app\.py" failed: SyntaxError')
    assert server.get("/").body == b"old"
    server.write("app.py", "import sys\nsys.exit('good bye')")
    server.allow(r"SystemExit")
    server.send_signal(signal.SIGHUP)
    server.expect_log(r'\[emerg\].*app\.py" failed: SystemExit: good bye \(line 2\)')
    assert server.get("/").body == b"old"
    server.write("app.py", "async def fn(r): return 'new'")
    server.reload()
    assert server.get("/").body == b"new"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("py_import none.py;", '"none.py" is not in'),
        ("py_import bad.py;", r'"ZeroDivisionError: division by zero \(line 1\)|failed: ZeroDivisionError'),
        ("py_import 1x.py;", '"1x" is no name for a module: say "py_import 1x.py as NAME"'),
        ("py_import ok.py; py_import ok.py;", 'a module named "ok" has been imported already'),
        ("server { location / { py_content ok; } }", 'invalid function "ok": it must be MODULE.FUNCTION'),
        ("server { location / { py_content ok.fn; } }", 'no module "ok" has been imported'),
        ("py_import ok.py; server { location / { py_content ok.none; } }", '"ok.none" is not a function of'),
        ("py_import ok.py; server { location / { py_content ok.plain; } }", '"py_content" takes "async def plain"'),
        (
            "py_import ok.py; server { location / { py_content ok.gen; } }",
            '"async def gen" without "yield", "ok.gen" is none',
        ),
        ("py_import ok.py; server { location / { py_log ok.gen; } }", '"py_log" takes a plain "def gen"'),
        ("py_import ok.py; py_set $x ok.fn;", '"py_set" takes a plain "def fn"'),
        ("py_import ok.py; py_set x ok.plain;", 'invalid variable name "x"'),
        ("py_import ok.py; py_set $host ok.plain;", 'the duplicate "host" variable'),
    ],
)
def test_mistakes_are_errors_of_the_configuration(headgate: Factory, lines: str, message: str) -> None:
    files = {
        "ok.py": "async def fn(r): pass\nasync def gen(r): yield\ndef plain(r): pass",
        "bad.py": "1 / 0",
        "1x.py": "",
    }
    server = headgate(f"http {{ {lines} }}", start=False, files=files)
    result = server.check()
    assert result.returncode == 1
    assert re.search(message, result.stderr) or message in result.stderr
    assert re.search(r"nginx\.conf:\d+", result.stderr)


# -- the examples of the documentation -----------------------------------------------------------


def example(headgate: Factory, name: str, upstreams: dict[str, int], locations: str) -> Server:
    groups = "\n".join(f"upstream {group} {{ server 127.0.0.1:{port}; }}" for group, port in upstreams.items())
    conf = f"""
    http {{
        py_import {name}.py;
        {groups}
        server {{
            listen 127.0.0.1:%%PORT_0%%;
            {textwrap.indent(locations, "            ")}
        }}
    }}
    """
    return headgate(conf, files={f"{name}.py": PYTHON[name]})


def test_fan_out(headgate: Factory, backend: Callable[..., Backend]) -> None:
    def answer(request: Request) -> Reply:
        name = request.target.rpartition("/")[2]
        return Reply(500 if name == "stock" else 200, body=json.dumps({"is": name}).encode())

    server = example(headgate, "fanout", {"services": backend(answer).port}, NGINX[1])
    reply = server.get("/page")
    assert json.loads(reply.body) == {"users": {"is": "users"}, "orders": {"is": "orders"}}
    assert server.get("/service/users").status == 404


def test_three_slow_backends_take_as_long_as_one(headgate: Factory, backend: Callable[..., Backend]) -> None:
    def answer(request: Request) -> Reply:
        time.sleep(0.2)
        return Reply(body=b"{}")

    server = example(headgate, "fanout", {"services": backend(answer).port}, NGINX[1])
    begin = time.monotonic()
    assert server.get("/page").status == 200
    assert 0.2 <= time.monotonic() - begin < 0.45


def test_authentication_with_a_cache(headgate: Factory, backend: Callable[..., Backend]) -> None:
    def auth(request: Request) -> Reply:
        good = request.header("authorization") == "good"
        return Reply(200 if good else 403, [("X-User", "ann")])

    asked = backend(auth)
    app = backend(lambda request: Reply(body=(request.header("x-user") or "").encode()))
    server = example(headgate, "auth", {"auth": asked.port, "app": app.port}, NGINX[2])
    assert server.get("/private/").status == 401
    assert server.get("/private/", headers={"Authorization": "bad"}).status == 403
    for _ in range(3):
        assert server.get("/private/", headers={"Authorization": "good"}).body == b"ann"
    assert len(asked.requests) == 2


def test_routing_by_cookie(headgate: Factory, backend: Callable[..., Backend]) -> None:
    own = [("Set-Cookie", "basket=1")]
    shops = {f"shop_{v}": backend(lambda request, v=v: Reply(200, own, v.encode())).port for v in "ab"}
    set_line, location = NGINX[3].split("\n", 1)
    groups = "\n".join(f"upstream {group} {{ server 127.0.0.1:{port}; }}" for group, port in shops.items())
    conf = f"""
    http {{ py_import ab.py; {set_line} {groups}
        server {{ listen 127.0.0.1:%%PORT_0%%; {location} }} }}
    """
    server = headgate(conf, files={"ab.py": PYTHON["ab"]})
    first = server.get("/shop/")
    version = first.body.decode()
    basket, chosen = first.all("set-cookie")
    assert basket == "basket=1" and chosen.startswith(f"version={version};")
    for wanted in "ab":
        assert server.get("/shop/", headers={"Cookie": f"version={wanted}"}).body == wanted.encode()


def test_a_body_rewrite(headgate: Factory, backend: Callable[..., Backend]) -> None:
    text = b"paid with 4111 1111 1111 1111 today; " * 3

    def raw(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for at in range(0, len(text), 7):
            sock.sendall(text[at : at + 7])

    server = example(headgate, "redact", {"reports": backend(connection=raw).port}, NGINX[4])
    assert server.get("/reports/").body == b"paid with [card] today; " * 3


def test_the_documentation_has_five_examples() -> None:
    assert set(PYTHON) == {"fanout", "auth", "ab", "redact"}  # and the protocol, on a page of its own
