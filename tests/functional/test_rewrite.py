"""`rewrite` and `break`: URIs, arguments, redirects, flags, cycles, and what the error log says."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    rewrite_log on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        root %%DIR%%/html;

        rewrite ^/by-server/(.*)$ /show/$1;
        rewrite ^/server-last/(.*)$ /show/$1 last;
        rewrite ^/server-break/(.*)$ /show/$1 break;
        rewrite ^/show/again$ /show/rewritten-again;
        rewrite ^/server-away/(.*)$ http://other.example/$1;

        location / { return 200 "root $uri"; }
        location /show/ { return 200 "$uri?$args"; }
        location /file/ { }

        location /last/ { rewrite ^/last/(.*)$ /show/$1 last; return 200 "never"; }
        location /plain/ { rewrite ^/plain/(.*)$ /show/$1; return 200 "here: $uri"; }
        location /goes-on/ { rewrite ^/goes-on/(.*)$ /two/$1; rewrite ^/two/(.*)$ /show/$1; }
        location /break/ { rewrite ^/break/(.*)$ /file/$1 break; return 200 "never"; }
        location /stop/ { rewrite ^/stop/(.*)$ /file/$1; break; return 200 "never"; }
        location /nothing/ { break; return 200 "never"; }
        location /miss/ { rewrite ^/other /show/x last; return 200 "missed [$1]"; }

        location /args/ { rewrite ^/args/(.*)$ /show/$1?new=1 last; }
        location /no-args/ { rewrite ^/no-args/(.*)$ /show/$1? last; }
        location /only-new/ { rewrite ^/only-new/(.*)$ /show/$1?new=$arg_a? last; }
        location /in-args/ { rewrite ^/in-args/(.*)$ /show/x?p=$1 last; }
        location /named/ { rewrite ^/named/(?<rest>.*)$ /show/$rest?r=$rest last; }
        location /optional/ { rewrite ^/optional/(a)?(b)?(c)?$ /show/[$1$2$3$4] last; }
        location /empty/ { rewrite ^/empty/(.*)$ $1? last; }
        location /cycle { rewrite ^ /cycle last; }

        location /redirect/ { rewrite ^/redirect/(.*)$ /to/$1 redirect; }
        location /permanent/ { rewrite ^/permanent/(.*)$ /to/$1? permanent; }
        location /away/ { rewrite ^/away/(.*)$ https://other.example/$1?p=$1; }
        location /scheme/ { rewrite ^/scheme/(.*)$ $scheme://other.example/$1; }

        location /secret { internal; return 200 "secret $uri"; }
        location /to-secret { rewrite ^ /secret last; }

        location /error { error_page 404 @fallback; return 404; }
        location @fallback { rewrite ^(.*)$ /show$1 last; }
    }
}
"""
FILES = {"html/file/a": "A", "html/file/b": "B"}


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF, files=FILES, level="notice")


ANSWERS = [
    ("/by-server/x?a", b"/show/x?a"),
    ("/by-server/again", b"/show/rewritten-again?"),
    ("/server-last/again", b"/show/again?"),
    ("/server-break/again", b"/show/again?"),
    ("/last/x?a=1", b"/show/x?a=1"),
    ("/plain/x", b"here: /show/x"),
    ("/goes-on/x", b"/show/x?"),
    ("/break/a", b"A"),
    ("/stop/b", b"B"),
    ("/miss/x", b"missed []"),
    ("/args/x", b"/show/x?new=1"),
    ("/args/x?old=2", b"/show/x?new=1&old=2"),
    ("/no-args/x?old=2", b"/show/x?"),
    ("/only-new/x?a=3&b", b"/show/x?new=3"),
    # the URI is decoded before it is matched; in arguments a capture is escaped again
    ("/last/a%20b%3F%25", b"/show/a b?%?"),
    ("/in-args/a%20b%26c%3d", b"/show/x?p=a%20b%26c="),
    ("/in-args/a+b", b"/show/x?p=a%2Bb"),
    ("/in-args/a&b", b"/show/x?p=a&b"),
    ("/named/a%20b", b"/show/a b?r=a b"),
    ("/optional/ac", b"/show/[ac]?"),
    ("/optional/", b"/show/[]?"),
    ("/to-secret", b"secret /secret"),
    ("/error/x", b"/show/error/x?"),
]


def test_answers(server: Server) -> None:
    for path, body in ANSWERS:
        assert server.get(path).body == body, path


def test_break_leaves_the_rest_out(server: Server) -> None:
    server.allow(r"open\(\) .* failed")
    assert server.get("/nothing/x").status == 404


REDIRECTS = [
    ("/redirect/x", 302, "http://localhost:%%PORT_0%%/to/x"),
    ("/redirect/x?a=1", 302, "http://localhost:%%PORT_0%%/to/x?a=1"),
    ("/permanent/x?a=1", 301, "http://localhost:%%PORT_0%%/to/x"),
    ("/away/x", 302, "https://other.example/x?p=x"),
    ("/away/x?a=1", 302, "https://other.example/x?p=x&a=1"),
    ("/scheme/x", 302, "http://other.example/x"),
    ("/server-away/x?y", 302, "http://other.example/x?y"),
    # what was escaped stays so, but for what may stand in a URI as it is
    ("/redirect/a%20b%7e%2fc", 302, "http://localhost:%%PORT_0%%/to/a%20b~/c"),
    ("/redirect/a%25b", 302, "http://localhost:%%PORT_0%%/to/a%25b"),
    ("/redirect/a+b", 302, "http://localhost:%%PORT_0%%/to/a+b"),
    ("/away/a%26b", 302, "https://other.example/a&b?p=a%26b"),
]


def test_redirects(server: Server) -> None:
    for path, status, location in REDIRECTS:
        reply = server.get(path)
        assert (reply.status, reply.header("location")) == (status, server.expand(location)), path


def test_cycle(server: Server) -> None:
    assert server.get("/cycle").status == 500
    text = 'rewrite or internal redirection cycle while processing "/cycle"'
    server.allow(text)
    server.expect_log(text)
    assert len(server.matching('rewritten data: "/cycle"')) == 11


def test_empty_uri(server: Server) -> None:
    assert server.get("/empty/").status == 500
    server.allow("the rewritten URI has a zero length")
    server.expect_log(
        r'\[error\] .*the rewritten URI has a zero length, client: 127.0.0.1, server: , request: "GET /empty/'
    )


def test_internal_location(server: Server) -> None:
    assert server.get("/secret").status == 404


def test_log(server: Server) -> None:
    server.get("/last/x?a=1")
    server.get("/redirect/y")
    for text in (
        '"^/by-server/(.*)$" does not match "/last/x", client: 127.0.0.1, server: , request: "GET /last',
        '"^/last/(.*)$" matches "/last/x", client',
        'rewritten data: "/show/x", args: "a=1", client',
        'rewritten redirect: "/to/y", client',
    ):
        assert [line for line in server.log_lines() if "[notice]" in line and text in line], text
