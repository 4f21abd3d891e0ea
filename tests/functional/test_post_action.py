"""`post_action`: another location hears of the request once its response is complete; headgate and nginx alike."""

import threading
from collections.abc import Callable

from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        log_format after "$request_uri $uri $status";
        access_log logs/after.log after;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { post_action /told; }
            location /named/ { alias %%DIR%%/html/; post_action @told; }
            location /file/ { alias %%DIR%%/html/; post_action /plain; }
            location /missing/ { alias %%DIR%%/html/; post_action /nothing; }
            location = /plain { }
            location = /nothing { }
            location = /told {
                internal;
                proxy_pass http://BACKEND/told;
                proxy_set_header X-Status $status;
                proxy_set_header X-Sent $body_bytes_sent;
                proxy_set_header X-Uri $request_uri;
            }
            location @told { proxy_pass http://BACKEND; }
        }
    }"""
FILES = {"html/page": "the page", "html/plain": "never seen"}


def test_it_hears_of_what_was_sent(either: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(lambda request: Reply(500, body=b"never seen"))
    server = either(CONF.replace("BACKEND", one.address), files=FILES)
    with server.client() as client:
        for nth in range(1, 4):
            assert client.get("/page?a=b").body == b"the page"
            told = one.wait_requests(nth)[-1]
            assert (told.target, told.header("x-status"), told.header("x-sent")) == ("/told", "200", "8")
            assert told.header("x-uri") == "/page?a=b"
    assert server.get("/named/page").body == b"the page"
    assert one.wait_requests(4)[-1].target == "/named/page"
    server.access_log(4, "logs/after.log")  # written when what is told has been answered


def test_files_and_what_is_missing(either: Factory) -> None:
    server = either(CONF.replace("BACKEND", "127.0.0.1:1"), files=FILES)
    server.allow("No such file")
    with server.client() as client:
        for _ in range(2):
            assert client.get("/file/page").body == b"the page"
            assert client.get("/missing/page").body == b"the page"
    lines = server.access_log(4, "logs/after.log")
    assert [line.split()[:2] for line in lines[:2]] == [["/file/page", "/plain"], ["/missing/page", "/nothing"]]


def test_a_client_that_has_left(headgate: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def slow(request: Request) -> Reply:
        assert gate.wait(10)
        return Reply()

    one = backend(slow)
    server = headgate(CONF.replace("BACKEND", one.address), files=FILES)
    client = server.client()
    client.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.response().body == b"the page"
    one.wait_requests(1)
    client.close()
    gate.set()
    assert server.access_log(1, "logs/after.log")[0].startswith("/page /told ")
