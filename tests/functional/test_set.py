"""`set`: variables of one's own, those that may be changed, what is not set."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    map $arg_m $mapped { default "from the map"; }

    server {
        listen 127.0.0.1:%%PORT_0%%;
        set $base "server";
        set $late $sum;

        location / { return 200 "$base"; }
        location /twice { set $a 1; set $a "$a$a"; set $A "${a}3"; return 200 "$a"; }
        location /mix { set $a "<$base|${arg_x}y|$uri>"; return 200 $a; }
        location /args { set $args "n=1&m=2"; return 200 "$args $query_string $is_args $arg_n $request_uri"; }
        location /no-args { set $args ""; return 200 "[$args$is_args]"; }
        location /unset { return 200 "[$late]"; }
        location /quiet { uninitialized_variable_warn off; return 200 "[$other]"; }
        location /other { set $other x; set $sum y; return 200 $other; }
        location /map { return 200 $mapped; }
        location /over { set $mapped "set"; return 200 $mapped; }
        location /name { set $http_x "taken"; return 200 $http_x; }
        location ~ ^/cap/(?<word>\\w+)$ { return 200 $word; }
        location ~ ^/over/(?<word>\\w+)$ { set $word "not $word"; return 200 $word; }
        location /redirected { set $kept "kept"; rewrite ^ /shown last; }
        location /shown { return 200 "$kept"; }
        location /escaped/ { if ($uri ~ "^/escaped/(.*)$") { set $v $1; } return 200 "$v"; }
        location /plain/ { rewrite ^/plain/(.*)$ /x; set $v $1; return 200 "$v"; }
    }
}
"""


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF)


ANSWERS = [
    ("/", b"server"),
    ("/twice", b"113"),
    ("/mix?x=1", b"<server|1y|/mix>"),
    ("/mix", b"<server|y|/mix>"),
    ("/args?old", b"n=1&m=2 n=1&m=2 ? 1 /args?old"),
    ("/no-args?old", b"[]"),
    ("/other", b"x"),
    ("/map", b"from the map"),
    ("/over", b"set"),
    ("/name", b"taken"),
    ("/cap/abc", b"abc"),
    ("/over/abc", b"not abc"),
    ("/redirected", b"kept"),
    # a capture of a URI that came with escapes is escaped in a value, until the URI is rewritten
    ("/escaped/a%20b%26", b"a%20b%26"),
    ("/escaped/a+b", b"a%2Bb"),
    ("/escaped/a&b", b"a&b"),
    ("/plain/a%20b", b"a b"),
]


def test_values(server: Server) -> None:
    for path, body in ANSWERS:
        assert server.get(path).body == body, path


def test_uninitialized(server: Server) -> None:
    assert server.get("/unset").body == b"[]"
    assert server.get("/quiet").body == b"[]"
    server.expect_log(
        r'\[warn\] .*using uninitialized "sum" variable, client: 127.0.0.1, server: , request: "GET /unset'
    )
    assert not server.matching('uninitialized "other"')


def test_once_a_request(server: Server) -> None:
    with server.client() as client:
        assert client.get("/other").body == b"x"
        assert client.get("/quiet").body == b"[]"
