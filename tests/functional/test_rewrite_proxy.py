"""`rewrite` before proxy_pass: what an upstream server is asked for."""

from collections.abc import Callable

from tests.backends import Backend
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location /same/ { proxy_pass http://127.0.0.1:BACKEND; }
        location /break/ { rewrite ^/break/(.*)$ /x/$1 break; proxy_pass http://127.0.0.1:BACKEND; }
        location /uri/ { rewrite ^/uri/(.*)$ /whole/$1 break; proxy_pass http://127.0.0.1:BACKEND/part/; }
        location /args/ { set $args "n=1"; proxy_pass http://127.0.0.1:BACKEND; }
        location /if/ { proxy_pass http://127.0.0.1:BACKEND; if ($arg_a) { set $a 1; } }
        location /to-if/ { if ($arg_a) { proxy_pass http://127.0.0.1:BACKEND; break; } return 200 "not proxied"; }
    }
}
"""


TARGETS = [
    # what the client wrote, as long as no rule has changed it
    ("/same/a%20b%2fc?q=%41", "/same/a%20b%2fc?q=%41"),
    ("/break/a%20b?q", "/x/a%20b?q"),
    ("/break/a%2520", "/x/a%2520"),
    # after `break` there is no location's name to replace
    ("/uri/x?q", "/whole/x?q"),
    ("/args/x%20y?q", "/args/x%20y?n=1"),
    ("/if/x?a=1", "/if/x?a=1"),
    ("/if/x", "/if/x"),
    ("/to-if/x?a=1", "/to-if/x?a=1"),
]


def test_targets(either: Factory, backend: Callable[..., Backend]) -> None:
    upstream = backend()
    server = either(CONF.replace("BACKEND", str(upstream.port)))
    for path, _ in TARGETS:
        assert server.get(path).status == 200, path
    assert [request.target for request in upstream.wait_requests(len(TARGETS))] == [target for _, target in TARGETS]
    assert server.get("/to-if/x").body == b"not proxied"
