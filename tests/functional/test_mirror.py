"""`mirror`, `mirror_request_body`: headgate and nginx alike."""

import threading
from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server, until

Factory = Callable[..., Server]

CONF = """
    http {
        client_body_buffer_size 8k;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { mirror /copy; mirror /copy2; proxy_pass http://MAIN; }
            location /no-body/ { mirror /copy; mirror_request_body off; proxy_pass http://MAIN; }
            location /streamed/ { mirror /copy; proxy_request_buffering off; proxy_pass http://MAIN; }
            location /off/ { mirror off; proxy_pass http://MAIN; }
            location /static/ { mirror /copy; }
            location /text { mirror /copy; return 200 "text"; }
            location = /copy { internal; proxy_pass http://COPY/copy$request_uri; }
            location = /copy2 { internal; proxy_pass http://COPY/second; }
        }
    }"""


def pair(factory: Factory, backend: Callable[..., Backend], copied: object = None) -> tuple[Server, Backend, Backend]:
    main = backend(lambda request: Reply(body=b"main " + request.body[:20]))
    copy = backend(copied or (lambda request: Reply(body=b"nobody sees this")))
    conf = CONF.replace("MAIN", main.address).replace("COPY", copy.address)
    return factory(conf, files={"html/static/a": "file"}), main, copy


def test_copies_have_method_fields_arguments_and_body(either: Factory, backend: Callable[..., Backend]) -> None:
    server, main, copy = pair(either, backend)
    reply = server.request("PUT", "/x?a=b", {"X-A": "1", "Range": "bytes=1-"}, b"hello")
    assert (reply.status, reply.body) == (200, b"main hello")
    first, second = sorted(copy.wait_requests(2), key=lambda request: request.target)
    assert (first.method, first.target, first.body) == ("PUT", "/copy/x?a=b", b"hello")
    assert (first.header("x-a"), first.header("range")) == ("1", "bytes=1-")
    assert (second.target.partition("?")[0], second.body) == ("/second", b"hello")
    assert main.requests[0].body == b"hello"
    server.access_log(1)  # written when the copies have ended too, which they have to before their server does


@pytest.mark.parametrize("size", [100, 100_000])
def test_bodies_in_memory_and_in_files(either: Factory, backend: Callable[..., Backend], size: int) -> None:
    server, main, copy = pair(either, backend)
    body = bytes(range(256)) * (size // 256 + 1)
    for uri in ("/x", "/streamed/x") * 2:
        assert server.request("POST", uri, {}, body).status == 200
    copy.wait_requests(6)  # /streamed/ has one copy
    assert {request.body for request in main.wait_requests(4)} == {body}
    assert {request.body for request in copy.requests} == {body}
    server.access_log(4)


def test_without_the_body(headgate: Factory, backend: Callable[..., Backend]) -> None:
    server, main, copy = pair(headgate, backend)
    assert server.request("POST", "/no-body/x", {}, b"hello").status == 200
    assert copy.wait_requests(1)[0].body == b"" and main.requests[0].body == b"hello"
    assert copy.requests[0].header("content-length") is None
    server.access_log(1)


def test_off_and_other_handlers(either: Factory, backend: Callable[..., Backend]) -> None:
    server, _, copy = pair(either, backend)
    assert server.get("/off/x").status == 200
    assert server.get("/static/a").body == b"file"
    assert server.get("/text").body == b"text"
    assert server.request("HEAD", "/static/a").status == 200
    methods = [request.method for request in copy.wait_requests(2)]
    assert methods[0] == "GET" and "/off" not in "".join(request.target for request in copy.requests)
    server.access_log(4)


def test_the_response_does_not_wait_but_the_connection_does(either: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def slow(request: Request) -> Reply:
        assert gate.wait(10)
        return Reply()

    server, _, copy = pair(either, backend, slow)
    with server.client() as client:
        assert client.get("/x").body == b"main "
        copy.wait_requests(2)
        client.send(b"GET /off/y HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.silent(0.2)
        gate.set()
        assert client.response().body == b"main "


def test_a_copy_goes_on_when_the_client_has_left(headgate: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()
    done = threading.Event()

    def slow(request: Request) -> Reply:
        assert gate.wait(10)
        done.set()
        return Reply(body=b"x" * 100_000)

    server, _, copy = pair(headgate, backend, slow)
    client = server.client()
    client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + b"b" * 50000)
    assert client.response().status == 200
    copy.wait_requests(2)
    client.close()
    gate.set()
    assert done.wait(10)
    assert {request.body for request in copy.requests} == {b"b" * 50000}
    until(lambda: server.access_log(), "the log's line")
    assert '"POST /x HTTP/1.1" 200' in server.access_log(1)[0]


def test_copies_that_fail_are_nobodys_business(either: Factory, backend: Callable[..., Backend]) -> None:
    server, _, copy = pair(either, backend, lambda request: None)
    server.allow("upstream prematurely closed")
    with server.client() as client:
        for _ in range(3):
            assert client.get("/x").body == b"main "
    copy.wait_requests(6)


def test_mistakes(headgate: Factory) -> None:
    for lines in ("mirror off; mirror /x;", "mirror /x; mirror off;", "mirror off; mirror off;"):
        server = headgate(f"http {{ server {{ location / {{ {lines} }} }} }}", start=False)
        assert '"mirror" directive is duplicate in' in server.check().stderr
