"""$upstream_* and $proxy_*: what happened on the way to the backend, for logs and fields."""

from collections.abc import Callable, Iterator

import pytest

from tests.backends import CLOSE, Backend, Reply, Request, refused_port
from tests.client import build
from tests.harness import Server
from tests.proxying import Proxying, proxying

CONF = """
    http {
        proxy_http_version 1.1;
        log_format all '$upstream_addr|$upstream_status|$upstream_response_length|$upstream_bytes_sent'
                       '|$upstream_bytes_received|$upstream_connect_time|$upstream_header_time|$upstream_response_time';
        log_format fields '$upstream_http_x_one|$upstream_http_set_cookie|$upstream_http_none|$upstream_cookie_a'
                          '|$upstream_cookie_b|$upstream_cookie_none|$upstream_http_content_length|$upstream_http_server';
        upstream group { server BACKEND; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            access_log logs/all.log all;
            location / { proxy_pass http://BACKEND; }
            location /static { }
            location /fields/ { proxy_pass http://BACKEND; access_log logs/fields.log fields; proxy_hide_header X-One; }
            location /shown/ {
                proxy_pass http://BACKEND;
                add_header X-Host $proxy_host;
                add_header X-Port $proxy_port;
                add_header X-Addr $upstream_addr;
                add_header X-Status $upstream_status;
            }
            location /group/ { proxy_pass http://group; add_header X-Host $proxy_host; add_header X-Port $proxy_port; }
            location /forwarded/ {
                proxy_pass http://BACKEND;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                add_header X-For $proxy_add_x_forwarded_for;
            }
            location /length/ {
                proxy_pass http://BACKEND;
                proxy_set_header Content-Length $proxy_internal_body_length;
                proxy_set_header X-Length $proxy_internal_body_length;
                proxy_set_header X-Chunked $proxy_internal_chunked;
            }
        }
    }"""

FIELDS = [
    ("X-One", "1"), ("x-one", "2"), ("Set-Cookie", "a=b=c; Path=/"), ("Set-Cookie", "B = d ;x"), ("Server", "own"),
]  # fmt: skip


def answer(request: Request) -> Reply:
    return Reply(headers=FIELDS, body=b"0123456789")


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer, files={"html/static": "x"}) as running:
        yield running


def line(proxy: Proxying, target: str, name: str = "all", headers: dict[str, str] | None = None) -> str:
    """The line that a request leaves in a log."""
    before = len(proxy.server.log_lines(f"logs/{name}.log"))
    proxy.server.get(target, headers)
    return proxy.server.access_log(before + 1, f"logs/{name}.log")[before]


def test_one_attempt(proxy: Proxying) -> None:
    addr, status, length, sent, received, *times = line(proxy, "/").split("|")
    request = proxy.backend.requests[-1]
    wire = answer(request).encode(request)
    assert (addr, status, length) == (proxy.backend.address, "200", "10")
    assert (int(sent), int(received)) == (len(request.raw), len(wire))
    connect, header, response = map(float, times)
    assert 0 <= connect <= header <= response < 5


def test_no_attempt(proxy: Proxying) -> None:
    assert line(proxy, "/static") == "-|-|-|-|-|-|-|-"


def test_fields_of_the_response(proxy: Proxying) -> None:
    """Repeated fields are joined (since nginx 1.23.0), hidden ones are there too, names of cookies have any case."""
    one, cookies = ("1", "a=b=c; Path=/") if proxy.server.is_nginx else ("1, 2", "a=b=c; Path=/, B = d ;x")
    assert line(proxy, "/fields/", "fields") == f"{one}|{cookies}|-|b=c|d |-|10|own"


def test_in_fields(proxy: Proxying) -> None:
    reply = proxy.server.get("/shown/")
    host, _, port = proxy.backend.address.rpartition(":")
    assert reply.header("X-Host") == f"{host}:{port}" and reply.header("X-Port") == port
    assert (reply.header("X-Addr"), reply.header("X-Status")) == (proxy.backend.address, "200")
    reply = proxy.server.get("/group/")
    assert (reply.header("X-Host"), reply.header("X-Port")) == ("group", "80")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "127.0.0.1"),
        ([("X-Forwarded-For", "1.1.1.1")], "1.1.1.1, 127.0.0.1"),
        (
            [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("X-Forwarded-For", "3.3.3.3")],
            "1.1.1.1, 2.2.2.2, 3.3.3.3, 127.0.0.1",
        ),
        ([("X-Forwarded-For", "")], ", 127.0.0.1"),
    ],
)
def test_proxy_add_x_forwarded_for(proxy: Proxying, headers: list[tuple[str, str]], expected: str) -> None:
    assert proxy.server.get("/forwarded/", headers).header("X-For") == expected
    assert proxy.backend.requests[-1].header("X-Forwarded-For") == expected


def test_proxy_add_via(headgate: Callable[..., Server], backend: Callable[..., Backend]) -> None:
    """Who asked over which version; ours alone."""
    peer = backend()
    server = headgate(
        "http { server { listen 127.0.0.1:%%PORT_0%%; proxy_set_header Via $proxy_add_via;"
        f" location / {{ proxy_pass http://{peer.address}; }} }} }}"
    )
    for version, hop in {"1.1": "1.1 headgate", "1.0": "1.0 headgate"}.items():
        for theirs, seen in (({}, hop), ({"Via": "1.0 a, 1.1 b"}, f"1.0 a, 1.1 b, {hop}")):
            with server.client() as client:
                client.send(build("GET", "/", theirs, version=version))
                assert client.response().status == 200
            assert peer.requests[-1].header("via") == seen


@pytest.mark.parametrize(("body", "length"), [(b"", None), (b"body", "4")])
def test_internal_length(proxy: Proxying, body: bytes, length: str | None) -> None:
    proxy.server.request("POST", "/length/", {}, body)
    got = proxy.backend.requests[-1]
    assert (got.header("X-Length"), got.header("X-Chunked"), got.body) == (length, None, body)


Factory = Callable[..., Server]


def logged(server: Server) -> list[str]:
    return server.access_log(1, "logs/all.log")[-1].split("|")


def test_every_attempt_has_its_figures(either: Factory, backend: Callable[..., Backend]) -> None:
    one, two = backend(lambda r: CLOSE), backend(lambda r: Reply(503, body=b"busy"))
    three = backend(lambda r: Reply(body=b"fine"))
    with refused_port() as refused:
        peers = [f"127.0.0.1:{refused}", one.address, two.address, three.address]
        group = " ".join(f"server {peer} max_fails=0;" for peer in peers)
        conf = CONF.replace("server BACKEND;", group).replace("http://BACKEND;", "http://group;")
        server = either(conf.replace("http {", "http { proxy_next_upstream error http_503;", 1))
        server.allow("while connecting to upstream", "while reading response header")
        assert server.get("/").body == b"fine"
    addr, status, length, sent, received, connect, header, response = logged(server)
    assert addr == ", ".join(peers)
    assert status == "502, 502, 503, 200"
    assert length == "0, 0, 0, 4"
    assert sent.split(", ")[0] == "0" and "0" not in sent.split(", ")[1:]
    assert received.split(", ")[:2] == ["0", "0"] and "0" not in received.split(", ")[2:]
    assert [part == "-" for part in connect.split(", ")] == [True, False, False, False]
    assert [part == "-" for part in header.split(", ")] == [True, True, False, False]
    assert "-" not in response.split(", ") and len(response.split(", ")) == 4


def test_no_live_upstreams(either: Factory) -> None:
    server = either(
        CONF.replace("server BACKEND;", "server 127.0.0.1:1 down;").replace("http://BACKEND;", "http://group;")
    )
    server.allow("no live upstreams")
    assert server.get("/").status == 502
    assert logged(server) == ["group", "502", "0", "0", "0", "-", "-", "0.000"]


def test_a_body_cut_short_has_what_came(either: Factory, backend: Callable[..., Backend]) -> None:
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012"
    peer = backend(lambda r: wire + CLOSE)
    server = either(CONF.replace("BACKEND", peer.address))
    server.allow("prematurely closed")
    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_all()
    addr, status, length, _, received, *_ = logged(server)
    assert (addr, status, length, received) == (peer.address, "200", "3", str(len(wire)))
