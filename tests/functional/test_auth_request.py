"""`auth_request`, `auth_request_set`: headgate and nginx alike."""

import threading
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { auth_request /auth; }
            location /off/ { auth_request off; }
            location /status/ { auth_request /local$uri; error_page 403 /denied.html; }
            location /401.html { auth_request /local/401; }
            location /file { auth_request /local/200; }
            location /403.html { auth_request /local/403; error_page 403 /denied.html; }
            location /500.html { auth_request /local/500; }
            location /302.html { auth_request /local/302; }
            location /204.html { auth_request /local/204; }
            location = /denied.html { }
            location /local/200 { internal; return 200 "secret"; }
            location /local/204 { return 204; }
            location /local/302 { return 302 /elsewhere; }
            location /local/401 { add_header WWW-Authenticate "Own x" always; return 401; }
            location /local/403 { return 403; }
            location /local/500 { return 500; }
            location /set/ {
                auth_request /auth;
                auth_request_set $user $upstream_http_x_user;
                auth_request_set $seen "$uri $upstream_status";
                proxy_pass http://BACKEND;
                proxy_set_header X-User $user;
                add_header X-Seen $seen;
            }
            location /again/ {
                auth_request /auth;
                auth_request_set $user $upstream_http_x_user;
                try_files /none @named;
            }
            location @named { return 200 "named $user"; }
            location = /auth {
                internal;
                proxy_pass http://BACKEND;
                proxy_pass_request_body off;
                proxy_set_header Content-Length "";
                proxy_set_header X-Original-URI $request_uri;
            }
        }
    }"""
FILES = {f"html/{name}.html": name for name in ("index", "401", "403", "500", "302", "204", "denied", "off/x")}


def judge(request: Request) -> Reply:
    if request.target != "/auth":
        return Reply(body=f"for {request.header('x-user')} body {request.body.decode()}".encode())
    if request.header("authorization") is None:
        return Reply(401, body=b"leaked", headers=[("WWW-Authenticate", "A"), ("WWW-Authenticate", "B")])
    return Reply(body=b"leaked", headers=[("X-User", "somebody")])


@pytest.fixture
def server(either: Factory, backend: Callable[..., Backend]) -> Server:
    one = backend(judge)
    made = either(CONF.replace("BACKEND", one.address), files=FILES)
    made.allow("auth request unexpected status", "access forbidden")
    return made


def test_let_in_and_kept_out(server: Server) -> None:
    out = server.get("/index.html")
    asked = ["A"] if server.is_nginx else ["A", "B"]  # of several fields 1.22 has the first only
    assert (out.status, out.all("www-authenticate")) == (401, asked)
    assert b"leaked" not in out.body and b"index" not in out.body
    inside = server.get("/index.html", {"Authorization": "x"})
    assert (inside.status, inside.body) == (200, b"index")
    assert server.get("/off/x.html").body == b"off/x"


def test_statuses(server: Server) -> None:
    wanted = {"/204.html": 200, "/403.html": 403, "/500.html": 500, "/302.html": 500, "/401.html": 401}
    replies = {uri: server.get(uri) for uri in wanted}
    assert {uri: reply.status for uri, reply in replies.items()} == wanted
    assert replies["/403.html"].body == b"denied"


def test_the_client_body_stays_with_the_request(server: Server) -> None:
    reply = server.request("POST", "/set/x", {"Authorization": "x"}, b"hello")
    assert reply.body == b"for somebody body hello"
    assert reply.header("x-seen") == "/auth 200"


def test_variables_live_on_after_internal_redirects(server: Server) -> None:
    assert server.get("/again/x", {"Authorization": "x"}).body == b"named somebody"


def test_a_connection_is_good_for_the_next_request(server: Server) -> None:
    with server.client() as client:
        for _ in range(3):
            assert client.request("POST", "/index.html", {"Content-Length": "3"}, b"abc").status == 401
            assert client.get("/index.html", {"Authorization": "x"}).body == b"index"


def test_a_client_that_leaves_meanwhile(headgate: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def slow(request: Request) -> None:
        gate.wait(10)

    one = backend(slow)
    server = headgate(CONF.replace("BACKEND", one.address), files=FILES)
    client = server.client()
    client.send(b"GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n")
    one.wait_requests(1)
    client.close()
    assert '"GET /index.html HTTP/1.1" 499' in server.access_log(1)[0]
    gate.set()
    one.wait_closed(1)
