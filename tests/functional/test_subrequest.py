"""What a subrequest is and may do: what it inherits, its limits, its ends, and the interface for Python code."""

import json
import threading
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import TruncatedError
from tests.harness import Server, until

Factory = Callable[..., Server]

# directives whose content handlers use the interface
MODULE = '''
import asyncio
import json

from headgate.conf.directive import Conf, Ctx, directive
from headgate.worker.http import special
from headgate.worker.subrequest.subrequest import SubrequestError, fetch, subrequest


def words(call):
    return [word.encode() for word in call.args]


def text(reply):
    kind = str(reply.header(b"content-type"))
    return {"status": reply.status, "rc": reply.rc, "body": reply.body.decode(), "type": kind}


class FanOutConf(Conf, level=Ctx.LOCATION):
    """`fan_out [task] URI...`: a JSON list of what the URIs answer."""

    uris = directive("fan_out", Ctx.LOCATION, "1+", words, inherit=False)

    def attach(self, node):
        if self.uris:
            node.handler = fan_out


async def gather(r, uris):
    return await asyncio.gather(*(fetch(r, *uri.partition(b"?")[::2]) for uri in uris))


async def fan_out(r):
    uris = r.location.get(FanOutConf).uris
    if uris[0] == b"task":
        replies = await asyncio.create_task(gather(r, uris[1:]))
    else:
        replies = await gather(r, uris)
    return special.respond(r, 200, json.dumps([text(reply) for reply in replies]).encode(), b"application/json")


class PostConf(Conf, level=Ctx.LOCATION):
    """`post URI`: what it answers to a request with a method, fields and a body of its own."""

    uri = directive("post", Ctx.LOCATION, "1", words, inherit=False)

    def attach(self, node):
        if self.uri:
            node.handler = post


async def post(r):
    uri = r.location.get(PostConf).uri[0]
    reply = await fetch(r, uri, b"a=b", method=b"POST", headers=[(b"X-Own", b"1")], body=b"own body", keep_errors=True)
    return special.respond(r, 200, reply.body, b"text/plain")


class TreeConf(Conf, level=Ctx.LOCATION):
    """`tree URI...`: starts them all, before the head is made, and says when each has ended."""

    uris = directive("tree", Ctx.LOCATION, "1+", words, inherit=False)

    def attach(self, node):
        if self.uris:
            node.handler = tree


def tree(r):
    ended = []

    def done(sr, rc):
        ended.append((sr.uri, rc))
        return rc

    for uri in r.location.get(TreeConf).uris:
        subrequest(r, uri, done=done)
    r.status = 200
    r.content_type = b"text/plain"
    r.send_head()
    r.send(b"[end]", last=True)
    return 0


class GiveUpConf(Conf, level=Ctx.LOCATION):
    """`give_up URI`: does not wait for the answer."""

    uri = directive("give_up", Ctx.LOCATION, "1", words, inherit=False)

    def attach(self, node):
        if self.uri:
            node.handler = give_up


async def give_up(r):
    task = asyncio.create_task(fetch(r, r.location.get(GiveUpConf).uri[0]))
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return special.respond(r, 200, b"gave up", b"text/plain")
'''

CONF = """
    py_module api.py;
    http {
        log_format sub "$request_method $uri $status";
        access_log logs/sub.log sub;
        default_type text/html;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { ssi on; }
            location /log/ { ssi on; log_subrequest on; }
            location /inside/ { internal; }
            location /b/ { proxy_pass http://BACKEND; }
            location /small/ { subrequest_output_buffer_size 10; proxy_pass http://BACKEND; }
            location /page/ { error_page 404 /plain.html; }
            location /again/ { rewrite ^ /again/x last; }
            location /broken/ { rewrite ^/broken(.*) /plain.html break; }
            location /text { return 200 "text"; }
            location /denied { return 403; }
            location /fan { fan_out /b/1 /b/2?x=y /text; }
            location /task { fan_out task /b/1 /b/2?x=y /text; }
            location /errors { fan_out /b/404 /denied /small/long /none; }
            location /post { post /b/post; }
            location /tree { tree /text /b/slow /text; }
            location /give-up { give_up /b/slow; }
        }
    }"""


def start(factory: Factory, where: str = "127.0.0.1:1", **files: str) -> Server:
    conf = CONF.replace("BACKEND", where)
    pages = {f"html/{name.replace('_', '/')}.html": text for name, text in files.items()}
    return factory(conf, files={"api.py": MODULE, "html/plain.html": "plain", "html/inside/a.html": "inside", **pages})


def include(uri: str) -> str:
    return f'<!--#include virtual="{uri}" -->'


def test_it_is_a_get_with_the_parents_fields_and_variables(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one = backend()
    server = start(headgate, one.address, page=include("/b/x?q=1"))
    server.get("/page.html", {"X-A": "1", "Range": "bytes=1-2", "If-None-Match": '"x"', "Cookie": "c=d"})
    seen = one.wait_requests(1)[0]
    assert (seen.method, seen.target, seen.body) == ("GET", "/b/x?q=1", b"")
    assert (seen.header("x-a"), seen.header("cookie")) == ("1", "c=d")
    assert seen.header("range") is seen.header("if-none-match") is seen.header("content-length") is None


def test_the_body_that_was_read_is_a_subrequests_too(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(lambda request: Reply(body=include("/b/x").encode(), headers=[("Content-Type", "text/html")]))
    conf = CONF.replace("location /b/ {", "location /ssi/ { ssi on; proxy_pass http://BACKEND; }\nlocation /b/ {")
    server = headgate(conf.replace("BACKEND", one.address), files={"api.py": MODULE})
    assert server.request("POST", "/ssi/", {}, b"the body").body == include("/b/x").encode()
    parent, child = one.wait_requests(2)
    assert (parent.method, parent.body) == ("POST", b"the body")
    assert (child.method, child.body, child.header("content-length")) == ("GET", b"the body", "8")


def test_internal_locations_are_open_to_it(headgate: Factory) -> None:
    server = start(headgate, page=include("/inside/a.html"))
    assert server.get("/page.html").body == b"inside"
    assert server.get("/inside/a.html").status == 404


def test_it_is_rewritten_and_has_error_pages(headgate: Factory) -> None:
    server = start(headgate, page="[" + include("/broken/x") + include("/page/none") + include("/denied") + "]")
    server.allow("No such file")
    body = server.get("/page.html").body
    assert body.startswith(b"[plainplain<html>") and b"403 Forbidden" in body and body.endswith(b"]")


def test_a_rewrite_loop_in_it_ends(headgate: Factory) -> None:
    server = start(headgate, page=include("/again/"))
    server.allow("rewrite or internal redirection cycle")
    assert b"500 Internal Server Error" in server.get("/page.html").body
    server.expect_log('cycle while processing "/again/x", client: .*, subrequest: "/again/x"')


def test_a_page_that_includes_itself_ends(either: Factory) -> None:
    conf = "http { server { listen 127.0.0.1:%%PORT_0%%; ssi on; } }"
    server = either(conf, files={"html/a.html": "x" + include("/a.html") + "y"})
    server.allow("subrequests cycle")
    error = b"[an error occurred while processing the directive]"
    assert server.get("/a.html").body == b"x" * 52 + error + b"y" * 52
    assert len(server.expect_log('subrequests cycle while processing "/a.html"')) == 1


def test_log_subrequest(headgate: Factory) -> None:
    server = start(headgate, log_page="a" + include("/log/b.html") + include("/text"), log_b="b")
    assert server.get("/log/page.html").body == b"abtext"
    assert server.access_log(2, "logs/sub.log") == ["GET /log/b.html 200", "GET /log/page.html 200"]


def test_in_memory_is_limited(headgate: Factory, backend: Callable[..., Backend]) -> None:
    known = backend(lambda request: Reply(body=b"x" * 11))
    unknown = backend(lambda request: Reply(chunks=[b"x" * 6, b"x" * 5]))
    text = '<!--#include virtual="/small/x" set="v" -->got <!--#echo var="v" -->'
    for one, message in ((known, "too big subrequest response: 11"), (unknown, "too big subrequest response while")):
        server = start(headgate, one.address, page=text)
        server.allow("too big subrequest response")
        with pytest.raises(TruncatedError):
            server.get("/page.html")
        server.expect_log(message)


# -- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["/fan", "/task"])
def test_several_at_once(headgate: Factory, backend: Callable[..., Backend], uri: str) -> None:
    together = threading.Barrier(2)

    def handler(request: Request) -> Reply:
        together.wait(10)
        return Reply(body=request.target.encode(), headers=[("Content-Type", "text/x")])

    server = start(headgate, backend(handler).address)
    for _ in range(3):
        first, second, third = json.loads(server.get(uri).text)
        assert first == {"status": 200, "rc": 0, "body": "/b/1", "type": "b'text/x'"}
        assert (second["body"], third["body"], third["type"]) == ("/b/2?x=y", "text", "b'text/html'")


def test_failures_are_answers_too(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(lambda request: Reply(404 if "404" in request.target else 200, body=b"secret of the server"))
    server = start(headgate, one.address)
    server.allow("too big subrequest response", "No such file")
    missing, denied, big, none = json.loads(server.get("/errors").text)
    assert (missing["status"], missing["body"], missing["rc"]) == (404, "", 0)  # the server's body is dropped
    assert denied["status"] == 403 and "403 Forbidden" in denied["body"]
    assert (big["status"], big["rc"]) == (500, 500)
    assert none["status"] == 404


def test_method_fields_and_body_of_its_own(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one = backend()
    server = start(headgate, one.address)
    reply = server.get("/post", {"X-Client": "1"})
    seen = one.wait_requests(1)[0]
    assert (seen.method, seen.target, seen.body) == ("POST", "/b/post?a=b", b"own body")
    assert (seen.header("x-own"), seen.header("x-client"), seen.header("content-length")) == ("1", None, "8")
    assert reply.text.startswith("POST /b/post?a=b HTTP/1.1")


def test_output_before_the_head_waits_for_it(headgate: Factory, backend: Callable[..., Backend]) -> None:
    server = start(headgate, backend(lambda request: Reply(body=b"slow")).address)
    assert server.get("/tree").body == b"textslowtext[end]"


def test_nobody_waits_any_more(headgate: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def handler(request: Request) -> None:
        gate.wait(10)

    one = backend(handler)
    server = start(headgate, one.address)
    with server.client() as client:
        assert client.get("/give-up").body == b"gave up"
        gate.set()
        assert client.get("/text").body == b"text"
    one.wait_closed(1)


@pytest.mark.parametrize("uri", ["/fan", "/task", "/tree", "/page.html", "/set.html"])
def test_a_client_that_leaves_ends_them(headgate: Factory, backend: Callable[..., Backend], uri: str) -> None:
    gate = threading.Event()

    def handler(request: Request) -> None:
        gate.wait(10)

    one = backend(handler)
    text = include("/b/1") + include("/b/2")
    waiting = '<!--#include virtual="/b/1" set="x" -->'
    server = start(headgate, one.address, page=text, set=waiting)
    client = server.client()
    client.send(f"GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n")
    wanted = 1 if uri in ("/tree", "/set.html") else 2
    one.wait_requests(wanted)
    client.close()
    status = f"GET {uri} (499|200)"
    until(lambda: server.matching(status, "logs/sub.log"), "the log's line")
    gate.set()
    one.wait_closed(wanted)
    assert server.get("/text").body == b"text"
