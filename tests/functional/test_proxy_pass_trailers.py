"""proxy_pass_trailers and $upstream_trailer_*: what comes behind a chunked body."""

from collections.abc import Iterator

import pytest

from tests.backends import Reply, Request
from tests.client import chunked
from tests.proxying import Proxying, proxying

TRAILERS = [("X-Sum", "1"), ("x-two", "2"), ("X-Sum", "3"), ("X-Accel-Expires", "0")]

CONF = """
    http {
        log_format trailers "$upstream_trailer_x_sum|$upstream_trailer_x_two"
                            "|$sent_trailer_x_sum|$upstream_trailer_none";
        proxy_pass_trailers on;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            access_log logs/trailers.log trailers;
            location / { proxy_pass http://BACKEND; }
            location /off/ { proxy_pass http://BACKEND; proxy_pass_trailers off; }
            location /hide/ { proxy_pass http://BACKEND; proxy_hide_header X-Two; }
            location /unbuffered/ { proxy_pass http://BACKEND; proxy_buffering off; }
            location /add/ { proxy_pass http://BACKEND; add_trailer X-Sum $upstream_trailer_x_two; }
            location /plain/ { proxy_pass http://BACKEND; chunked_transfer_encoding off; }
            location /small/ { proxy_pass http://BACKEND; proxy_buffer_size 1k; }
        }
    }"""


def answer(request: Request) -> Reply | Iterator[bytes]:
    if request.target == "/one-byte-at-a-time":
        return single_bytes()
    if request.target == "/small/":
        return Reply(chunks=[b"body"], trailers=[("X-Long", "x" * 2000)])
    return Reply(headers=[("Trailer", "X-Sum")], chunks=[b"bo", b"dy"], trailers=TRAILERS)


def single_bytes() -> Iterator[bytes]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for i in range(len(wire := head + chunked(b"bo", b"dy", trailers=TRAILERS))):
        yield wire[i : i + 1]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying("headgate", tmp_path_factory, CONF, answer, ["too large trailers"]) as running:
        yield running


SHOWN = TRAILERS[:3]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", SHOWN),
        ("/off/", []),
        ("/hide/", [SHOWN[0], SHOWN[2]]),
        ("/unbuffered/", SHOWN),
        ("/one-byte-at-a-time", SHOWN),
        ("/add/", [*SHOWN, ("X-Sum", "2")]),
    ],
)
def test_trailers(proxy: Proxying, target: str, expected: list[tuple[str, str]]) -> None:
    with proxy.server.client() as client:
        reply = client.get(target)
        assert (reply.body, reply.trailers) == (b"body", expected)
        assert client.get(target).trailers == expected


def test_not_without_chunks(proxy: Proxying) -> None:
    assert proxy.server.get("/plain/").trailers == []
    with proxy.server.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().body == b"body"


@pytest.mark.parametrize(("target", "line"), [("/", "1, 3|2|1, 3|-"), ("/off/", "-|-|-|-")])
def test_variables(proxy: Proxying, target: str, line: str) -> None:
    before = len(proxy.server.log_lines("logs/trailers.log"))
    proxy.server.get(target)
    assert proxy.server.access_log(before + 1, "logs/trailers.log")[before] == line


def test_they_fit_into_one_buffer(proxy: Proxying) -> None:
    with proxy.server.client() as client:
        client.send(b"GET /small/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not client.read_all().endswith(b"0\r\n\r\n")
    proxy.server.expect_log("upstream sent invalid chunked response: too large trailers")


def test_the_connection_is_used_again(headgate: object, backend: object) -> None:
    peer = backend(answer)  # type: ignore[operator]
    conf = CONF.replace("BACKEND", "u").replace(
        "http {", f"http {{ upstream u {{ server {peer.address}; keepalive 1; }}", 1
    )
    server = headgate(conf)  # type: ignore[operator]
    for _ in range(3):
        assert server.get("/").trailers == SHOWN
    assert peer.connections == 1
