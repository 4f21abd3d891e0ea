"""`internal`: a location, and all inside it, that clients cannot ask for."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        client_max_body_size 10;

        location /in/ {
            internal;
            return 200 "in $uri";
            location /in/nested/ { return 200 "nested $uri"; }
            location ~ \\.x$ { return 200 "regex $uri"; }
        }
        location /if { internal; if ($args) { return 200 "if"; } return 200 "no if"; }
        location /proxied/ { internal; proxy_pass http://127.0.0.1:1; }
        location /open/ { proxy_pass http://127.0.0.1:1; }
        location /to/ { rewrite ^/to(/.*)$ $1 last; }
        location /page { error_page 403 /in/nested/page; return 403; }
    }
}
"""


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF)


@pytest.mark.parametrize("path", ["/in/", "/in/nested/", "/in/nested/a", "/in/a.x", "/if", "/if?a", "/proxied/x"])
def test_clients_cannot_ask_for_it(server: Server, path: str) -> None:
    assert server.get(path).status == 404


def test_the_missing_slash_is_no_hint(server: Server) -> None:
    assert server.get("/proxied").status == 404
    assert server.get("/open").status == 301
    assert server.request("POST", "/open", body=b"more than ten").status == 413
    server.allow("intended to send too large body")


@pytest.mark.parametrize(
    "path, body",
    [
        ("/to/in/a", b"in /in/a"),
        ("/to/in/nested/a", b"nested /in/nested/a"),
        ("/to/in/a.x", b"regex /in/a.x"),
        ("/to/if?a", b"if"),
        ("/page", b"nested /in/nested/page"),
    ],
)
def test_the_server_itself_can(server: Server, path: str, body: bytes) -> None:
    assert server.get(path).body == body
