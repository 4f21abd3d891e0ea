"""Messages as a user's Python sees and makes them: the response's fields, relayed answers, conditions, bodies."""

from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import Client
from tests.harness import Server

Factory = Callable[..., Server]

HANDLERS = """
import asyncio
from headgate.worker.script import Request

def see(r):
    r.response_headers["X-Seen"] = " ".join(f"{name}={value}" for name, value in sorted(r.response_headers.items()))
def replace(r):
    r.response_headers["ETag"] = '"mine"'
    r.response_headers["location"] = "/mine"
    r.response_headers["Last-Modified"] = "Thu, 01 Jan 1970 00:00:01 GMT"
    r.response_headers["Content-Type"] = "text/mine"
    r.response_headers["X-Own"] = "mine"
def remove(r):
    for name in list(r.response_headers):
        del r.response_headers[name]
    try:
        del r.response_headers["X-None"]
    except KeyError:
        pass
def add(r):
    r.response_headers.add("Set-Cookie", "mine=1")
    r.response_headers.add("ETag", '"mine"')
    r.response_headers["X-Cookies"] = "|".join(r.response_headers.all("set-cookie"))
def log(r):
    r.log("notice", "sent " + repr(r.response_headers))
async def relay(r):
    reply = await r.subrequest("/backend/x")
    await r.respond(reply.status, reply.headers, reply.body)
async def tagged(r):
    await r.respond(200, {"ETag": '"t"', "Last-Modified": "Thu, 01 Jan 1970 00:00:01 GMT"}, "tagged")
async def odd_date(r): await r.respond(200, {"Last-Modified": "yesterday"}, "x")
async def measured(r): await r.respond(200, {"Content-Length": "4"}, pieces("ab", b"cd"))
async def pieces(*what):
    for each in what:
        yield each
async def endless(r):
    async def made():
        try:
            while True:
                yield "x" * 1000
                await asyncio.sleep(0)
        finally:
            r.log("notice", "no more pieces")
    await r.respond(200, None, made())
async def upper(r):
    async def made():
        async for piece in r.body:
            yield piece.upper()
    await r.respond(200, None, made())
async def count(r): return str(sum([len(piece) async for piece in r.body]))
async def again(r):
    sizes = [len(await r.body.read()), len(await r.body.read()), sum([len(piece) async for piece in r.body])]
    return f"{sizes} " + (await r.subrequest("/count")).text
async def gone(r):
    size = sum([len(piece) async for piece in r.body])
    texts = [str(size)]
    for use in (r.body.read, lambda: anext(aiter(r.body))):
        try:
            await use()
        except RuntimeError as error:
            texts.append(str(error))
    return ", ".join(texts)
async def read_first(r): await r.body.read()
async def targets(r):
    asked = (r.subrequest("/args?a=1"), r.subrequest("/args", args="a=2"), r.subrequest("/args?x", args="a=3"))
    return " ".join([(await each).text for each in asked])
async def inside(r): return r.internal_redirect("/args?a=5&b=%20")
async def args(r): return f"{r.uri}:{r.args}"
"""

CONF = """
http {
    py_path scripts;
    py_import handlers.py as h;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        default_type text/plain;
HANDLERS
        location ^~ /args { py_content h.args; }
        location = /after_access { py_access h.read_first; py_content h.count; }
        location = /after_mirror { mirror /count; py_content h.count; }
        location /see/ { alias html/; py_header_filter h.see; }
        location /see/proxied { py_header_filter h.see; proxy_pass http://BACKEND/backend; }
        location /replace/ { alias html/; py_header_filter h.replace; }
        location /replace/301 { py_header_filter h.replace; return 301 /old; }
        location /replace/proxied { py_header_filter h.replace; proxy_pass http://BACKEND/backend; }
        location /remove/ { alias html/; py_header_filter h.remove; add_header X-A b; }
        location /remove/proxied { py_header_filter h.remove; proxy_pass http://BACKEND/backend; }
        location /add { py_header_filter h.add; py_log h.log; proxy_pass http://BACKEND/backend; }
        location /backend/ { proxy_pass http://BACKEND; }
    }
}
"""
NAMES = ("relay", "tagged", "odd_date", "measured", "endless", "upper", "targets", "inside", "count", "again", "gone")


@pytest.fixture
def server(headgate: Factory, backend: Callable[..., Backend]) -> Server:
    fields = [("Set-Cookie", "a=1, b"), ("Set-Cookie", "c=2"), ("ETag", '"theirs"'), ("Location", "/theirs"),
              ("Last-Modified", "Thu, 01 Jan 1970 00:00:02 GMT"), ("X-Own", "theirs"), ("X-Own", "too"),
              ("Content-Type", "text/theirs")]  # fmt: skip

    def answer(request: Request) -> Reply:
        return Reply(201, fields, body=b"backend")

    handlers = "\n".join(f"location = /{name} {{ py_content h.{name}; }}" for name in NAMES)
    conf = CONF.replace("HANDLERS", handlers).replace("BACKEND", backend(answer).address)
    return headgate(conf, files={"scripts/handlers.py": HANDLERS, "html/a.txt": "file"})


def test_every_field_can_be_seen(server: Server) -> None:
    seen = (server.get("/see/a.txt").header("x-seen") or "").split(" ")
    assert [each.partition("=")[0] for each in seen if "=" in each] == [
        "Content-Length",
        "Content-Type",
        "ETag",
        "Last-Modified",
    ]
    proxied = server.get("/see/proxied").header("x-seen") or ""
    assert 'ETag="theirs"' in proxied and "X-Own=theirs, too" in proxied and "Location=/theirs" in proxied
    assert "Content-Length=7" in proxied and "Content-Type=text/theirs" in proxied


@pytest.mark.parametrize("uri", ["/replace/a.txt", "/replace/301", "/replace/proxied"])
def test_a_field_that_is_set_is_there_once(server: Server, uri: str) -> None:
    reply = server.get(uri)
    assert [reply.all(name) for name in ("etag", "location", "content-type", "x-own")] == [
        ['"mine"'],
        ["/mine"],
        ["text/mine"],
        ["mine"],
    ]
    dates = (
        [] if reply.status in (201, 301) else ["Thu, 01 Jan 1970 00:00:01 GMT"]
    )  # as nginx: not where it says nothing
    assert reply.all("last-modified") == dates


@pytest.mark.parametrize("uri", ["/remove/a.txt", "/remove/proxied"])
def test_fields_that_are_taken_out(server: Server, uri: str) -> None:
    reply = server.get(uri)
    assert reply.body in (b"file", b"backend")
    names = {name.lower() for name, _ in reply.headers} - {"server", "date", "connection", "accept-ranges"}
    assert names == {"transfer-encoding"}


def test_a_line_more(server: Server) -> None:
    reply = server.get("/add")
    assert reply.all("set-cookie") == ["a=1, b", "c=2", "mine=1"]
    assert (reply.header("x-cookies"), reply.all("etag")) == ("a=1, b|c=2|mine=1", ['"mine"'])
    server.expect_log(r"sent <ResponseFields .*'ETag': '\"mine\"'")


def test_an_answer_passed_on(server: Server) -> None:
    reply = server.get("/relay")
    assert (reply.status, reply.body) == (201, b"backend")
    assert reply.all("set-cookie") == ["a=1, b", "c=2"]
    assert [reply.all(name) for name in ("etag", "location", "content-type", "content-length")] == [
        ['"theirs"'],
        ["/theirs"],
        ["text/theirs"],
        ["7"],
    ]


def test_a_handlers_validators_count(server: Server) -> None:
    assert server.get("/tagged").body == b"tagged"
    assert server.get("/tagged", {"If-None-Match": '"t"'}).status == 304
    assert server.get("/tagged", {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:01 GMT"}).status == 304
    assert server.get("/tagged", {"If-None-Match": '"u"'}).body == b"tagged"
    assert server.get("/odd_date").header("last-modified") == "yesterday"


def test_pieces_of_a_known_length(server: Server) -> None:
    reply = server.get("/measured")
    assert (reply.header("content-length"), reply.body) == ("4", b"abcd")


def test_nobody_asks_for_pieces_that_are_not_sent(server: Server) -> None:
    with server.client() as client:
        assert client.request("HEAD", "/endless").status == 200
        assert client.get("/args").body == b"/args:"  # the connection goes on


def test_pieces_end_when_the_client_has_left(server: Server) -> None:
    client = Client(server.port())
    client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.read_until(b"xxxx")
    client.close()
    server.expect_log("no more pieces")


def test_a_body_streamed_both_ways(server: Server) -> None:
    with server.client() as client:
        client.send(b"POST /upper HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert client.read_until(b"ABC")  # before the rest of the request is there
        client.send(b"defghij")
        assert client.read_until(b"DEFGHIJ\r\n0\r\n\r\n")
    data = b"some text " * 100_000
    assert server.request("POST", "/upper", body=data).body == data.upper()


@pytest.mark.parametrize("size", [0, 10, 500_000])
def test_a_body_that_was_read_stays(server: Server, size: int) -> None:
    data = b"x" * size
    assert server.request("POST", "/again", body=data).text == f"[{size}, {size}, {size}] {size}"
    for uri in ("/count", "/after_access", "/after_mirror"):
        assert (uri, server.request("POST", uri, body=data).text) == (uri, str(size))


def test_a_body_that_has_gone_by(server: Server) -> None:
    gone = "the body has gone by: it was passed on as it came"
    assert server.request("POST", "/gone", body=b"x" * 500_000).text == f"500000, {gone}, {gone}"


def test_arguments_in_the_uri_or_apart(server: Server) -> None:
    assert server.get("/targets").body == b"/args:a=1 /args:a=2 /args?x:a=3"
    assert server.get("/inside").body == b"/args:a=5&b=%20"
