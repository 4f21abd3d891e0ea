"""`return`: statuses, texts, redirects, and closing without an answer."""

from collections.abc import Callable

import pytest

from tests.client import Client
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name first.example;

        location /text { return 200 "hello $arg_a\\n"; }
        location /empty { return 200; }
        location /page.html { return 200 "<p>"; }
        location /typeless { default_type ""; return 200 "x"; }
        location /teapot { return 299 "odd"; }
        location /nothing { return 204; }
        location /error { return 403; }
        location /error-text { return 404 "gone $uri"; }
        location /unknown { return 418; }
        location /unchanged { return 304; }
        location /close { return 444; }
        location /late { return 408; }
        location /left { return 499; }

        location /301 { return 301 /to$is_args$args; }
        location /302 { return 302 http://other.example$uri; }
        location /303 { return 303 rel; }
        location /307 { return 307 //host/path; }
        location /308 { return 308 "with space"; }
        location /url { return http://other.example/; }
        location /scheme { return $scheme://other.example/; }
        location /bare { return 301; }

        location /relative { absolute_redirect off; return 301 /to; }
        location /own-name { server_name_in_redirect on; return 301 /to; }
        location /no-port { port_in_redirect off; return 301 /to; }
    }

    server {
        listen 127.0.0.1:%%PORT_1%%;
        return 202 "server $uri";
        location / { return 200 "never"; }
    }
}
"""


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF)


def test_text(server: Server) -> None:
    reply = server.get("/text?a=1")
    assert (reply.status, reply.body, reply.header("content-type")) == (200, b"hello 1\n", "text/plain")
    assert reply.header("content-length") == "8"


def test_text_of_status(server: Server) -> None:
    reply = server.get("/error-text")
    assert (reply.status, reply.body, reply.header("content-type")) == (404, b"gone /error-text", "text/plain")


def test_empty_body(server: Server) -> None:
    reply = server.get("/empty")
    assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", "0")


def test_type_by_extension(server: Server) -> None:
    assert server.get("/page.html").header("content-type") == "text/html"


def test_no_type(server: Server) -> None:
    assert server.get("/typeless").header("content-type") is None


def test_status_without_known_phrase(server: Server) -> None:
    reply = server.get("/teapot")
    assert (reply.status, reply.reason, reply.body) == (299, "", b"odd")


def test_no_content(server: Server) -> None:
    reply = server.get("/nothing")
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("content-length") is None and reply.header("content-type") is None


def test_error_gives_the_page(server: Server) -> None:
    reply = server.get("/error")
    assert (reply.status, reply.header("content-type")) == (403, "text/html")
    assert b"<title>403 Forbidden</title>" in reply.body


def test_error_without_a_page(server: Server) -> None:
    reply = server.get("/unknown")
    assert (reply.status, reply.body, reply.header("content-type")) == (418, b"", None)


def test_head(server: Server) -> None:
    reply = server.request("HEAD", "/text?a=1")
    assert (reply.status, reply.body, reply.header("content-length")) == (200, b"", "8")


def test_not_modified_has_no_body(server: Server) -> None:
    with server.client() as client:
        assert client.get("/unchanged").status == 304
        assert client.get("/empty").status == 200


def test_closes_without_a_word(server: Server) -> None:
    for path in ("/close", "/late", "/left"):
        with server.client() as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_all() == b"", path


REDIRECTS = [
    ("/301?x=1", 301, "http://localhost:%%PORT_0%%/to?x=1"),
    ("/301", 301, "http://localhost:%%PORT_0%%/to"),
    ("/302/a", 302, "http://other.example/302/a"),
    ("/303", 303, "rel"),
    ("/307", 307, "http://localhost:%%PORT_0%%//host/path"),
    ("/308", 308, "with space"),
    ("/url", 302, "http://other.example/"),
    ("/scheme", 302, "http://other.example/"),
    ("/bare", 301, ""),
    ("/relative", 301, "/to"),
    ("/own-name", 301, "http://first.example:%%PORT_0%%/to"),
    ("/no-port", 301, "http://localhost/to"),
]


def test_redirects(server: Server) -> None:
    for path, status, location in REDIRECTS:
        reply = server.get(path)
        assert (reply.status, reply.header("location")) == (status, server.expand(location)), path
        assert reply.header("content-type") == "text/html"


def test_title_of_302(server: Server) -> None:
    reply = server.get("/302")
    assert reply.reason == "Moved Temporarily"
    assert b"<title>302 Found</title>" in reply.body


def test_in_a_server_before_any_location(server: Server) -> None:
    reply = server.get("/x", index=1)
    assert (reply.status, reply.body) == (202, b"server /x")


def test_body_of_the_request_is_thrown_away(server: Server) -> None:
    with server.client() as client:
        assert client.request("POST", "/text?a=1", body=b"x" * 100000).body == b"hello 1\n"
        assert (
            client.request("POST", "/text?a=2", {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n0\r\n\r\n").status
            == 200
        )
        assert client.get("/text?a=3").body == b"hello 3\n"


def test_http_09(server: Server) -> None:
    with Client(server.port()) as client:
        client.send("GET /text?a=1\r\n")
        assert client.read_all() == b"hello 1\n"
