"""`add_before_body`, `add_after_body`, `addition_types`: headgate and nginx alike."""

from collections.abc import Callable

from tests.backends import Backend, Reply
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        types { text/html html; text/css css; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { add_before_body /b.html; add_after_body /a.html; }
            location /before/ { alias %%DIR%%/html/; add_before_body /b.html; }
            location /after/ { alias %%DIR%%/html/; add_after_body /a.html; }
            location /css/ { alias %%DIR%%/html/; add_before_body /b.html; addition_types text/css; }
            location /all/ { alias %%DIR%%/html/; add_before_body /b.html; addition_types *; }
            location /off/ { alias %%DIR%%/html/; add_before_body ""; add_after_body ""; }
            location /missing/ { alias %%DIR%%/html/; add_after_body /none.html; }
            location /proxied/ {
                proxy_pass http://BACKEND;
                add_before_body /slow/b;
                add_after_body /slow/a;
            }
            location /slow/ { proxy_pass http://BACKEND; }
            location = /b.html { }
            location = /a.html { }
        }
    }"""
FILES = {
    "html/page.html": "page",
    "html/empty.html": "",
    "html/page.css": "css",
    "html/page.txt": "txt",
    "html/b.html": "[",
    "html/a.html": "]",
}


def start(factory: Factory, where: str = "127.0.0.1:1") -> Server:
    return factory(CONF.replace("BACKEND", where), files=FILES)


ADDED = {
    "/page.html": b"[page]",
    "/empty.html": b"[]",
    "/before/page.html": b"[page",
    "/after/page.html": b"page]",
    "/page.css": b"css",
    "/css/page.css": b"[css",
    "/css/page.html": b"[page",
    "/all/page.txt": b"[txt",
    "/off/page.html": b"page",
}


def test_what_is_added(either: Factory) -> None:
    server = start(either)
    assert {uri: server.get(uri).body for uri in ADDED} == ADDED
    assert {server.request("HEAD", uri).status for uri in ADDED} == {200}


def test_the_head_of_a_changed_body(either: Factory) -> None:
    server = start(either)
    with server.client() as client:
        reply = client.get("/page.html", {"Range": "bytes=0-0"})
        assert (reply.status, reply.header("content-length"), reply.header("accept-ranges")) == (200, None, None)
        etag = reply.header("etag")
        assert etag is not None and etag.startswith('W/"') and reply.header("last-modified")
        unchanged = client.get("/page.html", {"If-None-Match": etag})
        assert (unchanged.status, unchanged.body) == (304, b"")


def test_only_answers_with_200(either: Factory) -> None:
    server = start(either)
    server.allow("No such file")
    reply = server.get("/none.html")
    assert reply.status == 404 and not reply.body.startswith(b"[")


def test_an_addition_that_is_missing_is_an_error_page(either: Factory) -> None:
    server = start(either)
    server.allow("No such file")
    body = server.get("/missing/page.html").body
    assert body.startswith(b"page<html>") and b"404 Not Found" in body


def test_proxied(either: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(lambda request: Reply(body=request.target.encode() + b" ", headers=[("Content-Type", "text/html")]))
    server = start(either, one.address)
    assert server.get("/proxied/x").body == b"/slow/b /proxied/x /slow/a "
