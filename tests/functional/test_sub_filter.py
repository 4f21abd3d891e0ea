"""`sub_filter` and its directives: headgate and nginx alike."""

from collections.abc import Callable

from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        types { text/html html; text/css css; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { sub_filter foo bar; }
            location /all/ { alias %%DIR%%/html/; sub_filter foo bar; sub_filter_once off; }
            location /several/ {
                alias %%DIR%%/html/; sub_filter_once off; sub_filter foo 1; sub_filter fo 2; sub_filter O 3;
            }
            location /each/ { alias %%DIR%%/html/; sub_filter foo 1; sub_filter foo 2; sub_filter o 3; }
            location /order/ { alias %%DIR%%/html/; sub_filter_once off; sub_filter fo 2; sub_filter foo 1; }
            location /variables/ {
                alias %%DIR%%/html/; sub_filter_once off; sub_filter $arg_a "<$arg_b>"; sub_filter x y;
            }
            location /nothing/ { alias %%DIR%%/html/; sub_filter foo ""; sub_filter_once off; }
            location /longer/ { alias %%DIR%%/html/; sub_filter foo "$uri$uri$uri"; sub_filter_once off; }
            location /end/ { alias %%DIR%%/html/; sub_filter "foo.x" 1; sub_filter "foo." 2; sub_filter . 3; }
            location /css/ { alias %%DIR%%/html/; sub_filter foo bar; sub_filter_types text/css; }
            location /any/ { alias %%DIR%%/html/; sub_filter foo bar; sub_filter_types *; }
            location /modified/ { alias %%DIR%%/html/; sub_filter foo bar; sub_filter_last_modified on; }
            location /page/ { alias %%DIR%%/html/; ssi on; sub_filter foo bar; sub_filter_once off; }
            location /b/ { proxy_pass http://BACKEND; sub_filter needle found; sub_filter_once off; }
        }
    }"""
TEXT = "foo FOO fofoo x foO."
FILES = {f"html/a.{extension}": TEXT for extension in ("html", "css", "txt")}
FILES |= {"html/page.html": 'foo<!--#include virtual="/all/a.html" -->fo', "html/empty.html": ""}
WANTED = {
    "/a.html": "bar FOO fofoo x foO.",
    "/all/a.html": "bar bar fobar x bar.",
    "/several/a.html": "1 1 21 x 1.",
    "/each/a.html": "1 2 f3foo x foO.",
    "/order/a.html": "2o 2O 22o x 2O.",
    "/variables/a.html?a=FO&b=1": "<1>o <1>O <1><1>o y <1>O.",
    "/variables/a.html": "foo FOO fofoo y foO.",
    "/nothing/a.html": "  fo x .",
    "/longer/a.html": TEXT.replace("FOO", "foo").replace("foO", "foo").replace("foo", "/longer/a.html" * 3),
    "/a.css": TEXT,
    "/css/a.css": "bar FOO fofoo x foO.",
    "/css/a.html": "bar FOO fofoo x foO.",
    "/any/a.txt": "bar FOO fofoo x foO.",
    "/page/page.html": "barbar bar fobar x bar.fo",
    "/empty.html": "",
}


def start(factory: Factory, where: str = "127.0.0.1:1") -> Server:
    return factory(CONF.replace("BACKEND", where), files=FILES)


def test_what_is_replaced(either: Factory) -> None:
    server = start(either)
    assert {uri: server.get(uri).text for uri in WANTED} == WANTED


def test_a_text_at_the_very_end(either: Factory) -> None:
    """Where a longer one may begin too, nginx takes neither."""
    server = start(either)
    wanted = TEXT if server.is_nginx else TEXT.replace("foO.", "2")
    assert server.get("/end/a.html").text == wanted


def test_the_head(either: Factory) -> None:
    server = start(either)
    reply = server.get("/a.html", {"Range": "bytes=0-1"})
    assert (reply.status, reply.header("content-length")) == (200, None)
    assert (reply.header("last-modified"), reply.header("etag")) == (None, None)
    kept = server.get("/modified/a.html")
    etag = kept.header("etag")
    assert kept.header("last-modified") and etag and etag.startswith('W/"')
    assert server.get("/css/a.txt").header("content-length") == str(len(TEXT))
    assert server.request("HEAD", "/a.html").status == 200


def test_texts_cut_by_pieces(either: Factory, backend: Callable[..., Backend]) -> None:
    text = b"needle, needneedle needl" + b"e" * 3 + b"n" * 5000 + b"eedle nee"

    def pieces(request: Request) -> Reply:
        size = int(request.target.rpartition("=")[2])
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        return Reply(headers=[("Content-Type", "text/html")], chunks=chunks)

    server = start(either, backend(pieces).address)
    for size in (1, 4, 5, 1000, 10000):
        assert server.get(f"/b/x?size={size}").body == text.replace(b"needle", b"found")


def test_mistakes(headgate: Factory) -> None:
    for line, message in {
        'sub_filter "" x;': "empty search pattern in",
        "sub_filter a b; " * 256: "number of search patterns exceeds 255 in",
        "sub_filter a b; sub_filter_types a/b a/b;": '[warn] duplicate MIME type "a/b" in',
    }.items():
        server = headgate(f"http {{ server {{ location / {{ {line} }} }} }}", start=False)
        assert message in server.check().stderr
