"""`ssi` and its directives: headgate and nginx alike."""

import re
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        types { text/html html; text/css css; }
        map $arg_m $mapped { default none; a A; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            set $own "of the server";
            location / { ssi on; }
            location /off/ { alias %%DIR%%/html/; }
            location /if/ { alias %%DIR%%/html/; if ($arg_on) { ssi on; } }
            location /css/ { alias %%DIR%%/html/; ssi on; ssi_types text/css; }
            location /silent/ { alias %%DIR%%/html/; ssi on; ssi_silent_errors on; }
            location /modified/ { alias %%DIR%%/html/; ssi on; ssi_last_modified on; }
            location /short/ { alias %%DIR%%/html/; ssi on; ssi_value_length 5; ssi_min_file_chunk 1;
                               ssi_ignore_recycled_buffers on; }
            location /b/ { proxy_pass http://BACKEND; }
            location /text/ { return 200 "$uri?$args"; }
            location /empty { return 200 ""; }
            location /fails { return 500; }
            location /set/ {
                ssi on;
                default_type text/html;
                set $own "of the location";
                return 200 "<!--#echo var='own' -->";
            }
        }
    }"""

# name -> (page, what comes of it); E is the error text
E = "[an error occurred while processing the directive]"
PAGES = {
    "plain": ("no commands < here <!-- --> <!--", "no commands < here <!-- --> "),
    "include": ('<!--#include virtual="/text/a?b=c" -->', "/text/a?b=c"),
    "include_relative": ('<!--#include virtual="part.html" -->', "part"),
    "include_file": ('<!--#include file="part.html" -->|', "part|"),
    "include_variable": ('<!--#include virtual="/text/$arg_a/${arg_b}" -->', "/text/1/2?"),
    "include_escaped": ('<!--#include virtual="/text/%41%20" -->', "/text/A ?"),
    "include_missing": ('[<!--#include virtual="/denied/../../x" -->]', f"[{E}]"),
    "include_both": ('<!--#include virtual="/a" file="b" -->', E),
    "include_neither": ('<!--#include wait="yes" -->', E),
    "include_set_stub": ('<!--#include virtual="/a" set="x" stub="y" -->', E),
    "include_wait": ('<!--#include virtual="/text/a" wait="yes" -->,<!--#include virtual="/text/b" wait="no" -->',
                     "/text/a?,/text/b?"),
    "include_wait_bad": ('<!--#include virtual="/text/a" wait="maybe" -->', E),
    "include_file_wait": ('<!--#include file="part.html" wait="yes" -->', E),
    "include_set": ('<!--#include virtual="/text/a" set="x" -->[<!--#echo var="x" -->]', "[/text/a?]"),
    "include_set_failed": ('<!--#include virtual="/fails" set="x" -->[<!--#echo var="x" default="d" -->]', "[]"),
    "include_stub": ('<!--#block name="s" -->stub<!--#endblock --><!--#include virtual="/empty" stub="s" -->|'
                     '<!--#include virtual="/fails" stub="s" -->|<!--#include virtual="part.html" stub="s" -->',
                     "stub|stub|part"),
    "include_stub_commands": ('<!--#block name="s" -->a<!--#echo var="uri" -->b<!--#endblock -->'
                              '<!--#include virtual="/none.html" stub="s" -->', "a/none.htmlb"),
    "include_stub_unknown": ('<!--#include virtual="/empty" stub="s" -->', E),
    "block_unused": ('a<!--#block name="s" -->hidden<!--#include virtual="/text/a" --><!--#endblock -->b', "ab"),
    "echo": ('<!--#echo var="uri" --> <!--#echo var="arg_a" --> <!--#echo var="own" -->',
             "/echo.html 1 of the server"),
    "echo_map": ('<!--#echo var="mapped" -->', "A"),
    "echo_unknown": ('<!--#echo var="nobody" --> <!--#echo var="nobody" default="d<" -->'
                     '<!--#echo var="nobody" default="" -->', "(none) d&lt;"),
    "echo_entity": ("<!--#set var='x' value='<a href=\"b\">&\\'' --><!--#echo var='x' -->",
                    "&lt;a href=&quot;b&quot;&gt;&amp;'"),
    "echo_none": ("<!--#set var='x' value='<&>' --><!--#echo var='x' encoding='none' --><!--#echo var='x' -->",
                  "<&><&>"),
    "echo_url": ("<!--#set var='x' value='a b&c?d/e%é\\'' --><!--#echo var='x' encoding='url' -->",
                 "a%20b&c?d/e%25%C3%A9%27"),
    "echo_encoding_bad": ("<!--#set var='x' value='<' --><!--#echo var='x' encoding='rot13' -->", "&lt;"),
    "echo_no_var": ('<!--#echo default="x" -->', E),
    "echo_twice": ('<!--#echo var="a" var="b" -->', E),
    "echo_odd": ('<!--#echo var="a" other="b" -->', E),
    "set": ('<!--#set var="X" value="$arg_a-${arg_b}" --><!--#echo var="x" -->', "1-2"),
    "set_again": ('<!--#set var="x" value="1" --><!--#set var="x" value="$x$x" --><!--#echo var="x" -->', "11"),
    "set_hides": ('<!--#set var="uri" value="mine" --><!--#echo var="uri" -->', "mine"),
    "set_escaped": ('<!--#set var="x" value="\\$a \\\\ \\x" --><!--#echo var="x" -->', "$a \\ \\x"),
    "set_bad_name": ('<!--#set var="x" value="$" -->', E),
    "set_open": ('<!--#set var="x" value="${a" -->', E),
    "config": ('<!--#config errmsg="oops" --><!--#nothing --><!--#config timefmt="%Y" --><!--#set var="y" '
               'value="$date_gmt" --><!--#if expr="$y = /^20[0-9][0-9]/" -->year<!--#endif -->', "oopsyear"),
    "if": ('<!--#if expr="$arg_a" -->yes<!--#else -->no<!--#endif -->|<!--#if expr="$arg_z" -->yes<!--#else -->no'
           '<!--#endif -->', "yes|no"),
    "if_equal": ('<!--#if expr="$arg_a = 1" -->a<!--#endif --><!--#if expr="$arg_a=2" -->b<!--#endif -->'
                 '<!--#if expr="$arg_a != 2" -->c<!--#endif --><!--#if expr="$arg_a != 1" -->d<!--#endif -->', "ac"),
    "if_elif": ('<!--#if expr="$arg_a = 0" -->0<!--#elif expr="$arg_a = 1" -->1<!--#elif expr="$arg_b = 2" -->2'
                '<!--#else -->else<!--#endif -->', "1"),
    "if_else": ('<!--#if expr="$arg_a = 0" -->0<!--#elif expr="$arg_a = 9" -->9<!--#else -->else<!--#endif -->.',
                "else."),
    "if_regex": ('<!--#if expr="$arg_c = /^(.)(?<rest>.*)/" --><!--#echo var="1" -->-<!--#echo var="rest" -->'
                 '-<!--#echo var="0" --><!--#endif -->', "h-ello-hello"),
    "if_regex_not": ('<!--#if expr="$arg_c != /x/" -->none<!--#endif -->'
                     '<!--#if expr="$arg_c != /e/" -->e<!--#endif -->', "none"),
    "if_regex_bad": ('<!--#if expr="$arg_c = /(/" -->x<!--#endif -->', None),
    "if_regex_open": ('<!--#if expr="$arg_c = /x" -->x', f"{E}x"),
    "if_slash": ('<!--#if expr="$arg_d = \\/x" -->slash<!--#endif -->', "slash"),
    "if_case": ('<!--#if expr="$ARG_A = 1" -->x<!--#endif -->', "x"),
    "if_text": ('<!--#if expr="abc = abc" -->x<!--#endif -->', "x"),
    "if_bad": ('<!--#if expr="$arg_a ~ 1" -->x<!--#endif -->', f"{E}x{E}"),
    "if_nested": ('<!--#if expr="$arg_a" --><!--#if expr="$arg_b" -->x<!--#endif -->y', f"{E}xy"),
    "else_alone": ("<!--#else -->x", f"{E}x"),
    "endif_alone": ("<!--#endif -->x", f"{E}x"),
    "unknown": ("<!--#exec cmd='x' -->x", f"{E}x"),
    "unknown_hidden": ('<!--#if expr="" --><!--#exec cmd="x" --><!--#endif -->x', None),
    "syntax": ("a<!--#echo var= -->b", f"a{E}b"),
    "many_parameters": ("<!--#echo" + " var='a'" * 17 + " -->", E),
    "nested": ('<!--#set var="x" value="outer" --><!--#include virtual="inner.html" wait="yes" -->'
               '<!--#echo var="x" -->', "outer(inner)inner"),
    "of_the_location": ('<!--#include virtual="/set/" -->', "of the location"),
}  # fmt: skip
OTHERS = {
    "part": "part",
    "inner": '<!--#echo var="x" -->(inner)<!--#set var="x" value="inner" -->',
    "long": '<!--#set var="x" value="123456" --><!--#echo var="uri" -->',
}
ARGS = "?a=1&b=2&c=hello&d=/x&m=a"


def start(factory: Factory, where: str = "127.0.0.1:1", **more: str) -> Server:
    files = {f"html/{name}.html": page[0] for name, page in PAGES.items()}
    files |= {f"html/{name}.html": text for name, text in (OTHERS | more).items()}
    files |= {"html/echo.css": PAGES["echo"][0], "html/echo.txt": PAGES["echo"][0]}
    server = factory(CONF.replace("BACKEND", where), files=files)
    server.allow(r"\[error\]", r"\[alert\]")
    return server


def test_commands(either: Factory) -> None:
    server = start(either)
    got = {name: server.get(f"/{name}.html{ARGS}").text for name, page in PAGES.items() if page[1] is not None}
    assert got == {name: page[1] for name, page in PAGES.items() if page[1] is not None}


def test_commands_that_nginx_1_22_answers_alike(headgate: Factory, nginx: Factory) -> None:
    one, other = start(headgate), start(nginx)
    for name in (name for name, page in PAGES.items() if page[1] is None):
        assert one.get(f"/{name}.html{ARGS}").text == other.get(f"/{name}.html{ARGS}").text


def test_what_the_error_log_says(headgate: Factory, nginx: Factory) -> None:
    """The same lines, up to the context."""
    logs = []
    for server in (start(headgate), start(nginx)):
        for name in PAGES:
            server.get(f"/{name}.html{ARGS}")
        server.stop()
        found = server.matching(r"\[(error|alert)\] (?!.*open\(\))")
        lines = [re.sub(r".*?\*\d+ |, client:.*|pcre2?_compile.*", "", line) for line in found]
        logs.append(sorted(lines))
    assert len(logs[0]) > 20
    assert logs[0] == logs[1]


def test_where_it_is_on(either: Factory) -> None:
    server = start(either)
    raw, done = PAGES["echo"][0], "1 of the server"
    assert server.get("/off/echo.html").text == raw == server.get("/if/echo.html").text
    assert server.get(f"/if/echo.html{ARGS}&on=1").text.endswith(done)
    assert server.get("/echo.css").text == raw
    assert server.get(f"/css/echo.css{ARGS}").text.endswith(done) and server.get(f"/css/echo.html{ARGS}").text.endswith(
        done
    )
    assert server.get("/silent/unknown.html").text == "x"
    assert server.get("/short/long.html").text == "[an error occurred while processing the directive]/short/long.html"


def test_the_head_of_a_page(either: Factory) -> None:
    server = start(either)
    reply = server.get("/echo.html", {"Range": "bytes=0-1"})
    assert reply.status == 200
    assert [reply.header(name) for name in ("content-length", "last-modified", "etag", "accept-ranges")] == [None] * 4
    kept = server.get("/modified/echo.html")
    etag = kept.header("etag")
    assert kept.header("last-modified") and etag and etag.startswith('W/"')
    assert server.get("/modified/echo.html", {"If-None-Match": etag}).status == 304
    assert server.request("HEAD", "/echo.html").status == 200


def test_commands_cut_by_pieces(headgate: Factory, backend: Callable[..., Backend]) -> None:
    text = "".join(page[0] for name, page in PAGES.items() if name.startswith(("echo", "set", "if_e"))).encode()

    def pieces(request: Request) -> Reply:
        size = int(request.target.rpartition("=")[2])
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        return Reply(headers=[("Content-Type", "text/html")], chunks=chunks)

    one = backend(pieces)
    conf = CONF.replace("location /b/ {", "location /b/ { ssi on; proxy_buffering off;").replace("BACKEND", one.address)
    server = headgate(conf)
    server.allow(r"\[error\]")
    whole = server.get(f"/b/x{ARGS}&size=100000").body
    assert b"&lt;a href=" in whole
    for size in (1, 2, 3, 7, 50):
        assert server.get(f"/b/x{ARGS}&size={size}").body == whole


@pytest.mark.parametrize("how", ['set="v"', 'wait="yes"'])
def test_what_comes_behind_a_command_that_waits(headgate: Factory, backend: Callable[..., Backend], how: str) -> None:
    """The page itself is proxied, and far larger than what may wait."""
    tail = b"0123456789" * 100_000
    page = f'<!--#include virtual="/b/slow" {how} -->'.encode() + b'[<!--#echo var="v" default="" -->]' + tail

    def handler(request: Request) -> Reply:
        return Reply(headers=[("Content-Type", "text/html")], body=b"slow" if "slow" in request.target else page)

    one = backend(handler)
    conf = CONF.replace("location /b/ {", "location /page/ { ssi on; proxy_pass http://BACKEND; }\nlocation /b/ {")
    server = headgate(conf.replace("BACKEND", one.address))
    body = server.get("/page/x").body
    assert body == (b"[slow]" if "set" in how else b"slow[]") + tail
