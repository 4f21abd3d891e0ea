"""Generated answers of a backend through nginx and headgate: statuses, fields and framings that are all valid.

What a client gets, whether its connection lives on, and what the log says must be the same. The generator is seeded:
a failure can be repeated. One difference is meant: a 204 has no Content-Length (RFC 9110 section 8.6), though nginx
passes on a backend's; so none is made here.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import pytest

from tests.backends import CLOSE, Backend, Request
from tests.client import Client, TruncatedError, build, chunked
from tests.differential.cases import words
from tests.harness import NGINX, Server

pytestmark = pytest.mark.skipif(shutil.which(NGINX) is None, reason="nginx is not installed")
COUNT = 900

CONF = """
    http {
        log_format answers "$status $upstream_status $upstream_response_length $upstream_addr $request_completion";
        access_log logs/answers.log answers;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffers 4 4k;
        upstream one { server ONE max_fails=0; keepalive 4; }
        upstream two { server ONE max_fails=0; server TWO max_fails=0; keepalive 4; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location /plain/ { proxy_pass http://one; }
            location /unbuffered/ { proxy_pass http://one; proxy_buffering off; }
            location /streamed/ { proxy_pass http://one; proxy_max_temp_file_size 0; proxy_request_buffering off; }
            location /changed/ { proxy_pass http://one; proxy_force_ranges on; sub_filter ab <>; sub_filter_types *; }
            location /page/ { proxy_pass http://one; proxy_intercept_errors on; error_page 404 500 /here; }
            location /next/ { proxy_pass http://two; proxy_next_upstream error http_404 http_500; }
            location /here { return 200 "here"; }
            location /probe { access_log off; return 204; }
        }
    }"""
PLACES = words("plain unbuffered streamed changed page next")
FIELDS = """
    Content-Type: text/html | Content-Type: text/plain; charset=utf-8 | ETag: "x" | ETag: W/"y" | Age: 1 | Vary: *
    | Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT | Accept-Ranges: bytes | Accept-Ranges: none | Expires: 0 | X-Empty:
    | Cache-Control: no-cache | Set-Cookie: a=b; Path=/ | X-Space: \t v  | Content-Range: bytes 0-4/10 | Location: /x
    | Location: http://one/y | Content-Encoding: gzip | Link: <a> | X-Accel-Buffering: no | X-Accel-Buffering: yes
    | Upgrade: x | Trailer: X | Allow: GET | Refresh: 1; url=http://one/z
""".replace("\n", "").split("|")
ASKED = [
    {"Range": "bytes=0-0"}, {"Range": "bytes=2-"}, {"Range": "bytes=-2"}, {"Range": "bytes=0-0,2-3"},
    {"If-None-Match": '"x"'}, {"If-None-Match": "*"}, {"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"},
    {"Connection": "close"}, {"Connection": "keep-alive"}, {"TE": "trailers"},
]  # fmt: skip
SIZES = [0, 1, 5, 100, 4095, 4096, 4097, 20_000, 70_000, 200_000]


def answer(rng: random.Random, method: str) -> bytes:
    """An answer as a backend may give it: its framing is sound, and it ends the connection where it must."""
    status = rng.choice([200, 200, 200, 201, 204, 206, 301, 304, 400, 404, 500, 503])
    version = rng.choice(["1.1", "1.1", "1.1", "1.0"])
    body = bytes(rng.choices(b"abc\n", k=rng.choice(SIZES)))
    fields = {field.partition(":")[0].strip(): field.strip() for field in rng.sample(FIELDS, rng.randint(0, 4))}
    framing = rng.choice(["length", "length", "chunked" if version == "1.1" else "length", "close"])
    if framing == "length" and status != 204:
        fields["Content-Length"] = f"Content-Length: {len(body)}"
    if framing == "chunked" and status not in (204, 304):
        fields["Transfer-Encoding"] = "Transfer-Encoding: chunked"
        step = rng.choice([len(body) // 3 + 1, 4096, 65536])
        body = chunked(*(body[at : at + step] for at in range(0, len(body), step)))
    close = version == "1.0" or (framing == "close" and status not in (204, 304)) or rng.random() < 0.1
    if close and rng.random() < 0.5:
        fields["Connection"] = "Connection: close"
    lines = list(fields.values())
    rng.shuffle(lines)
    head = "\r\n".join([f"HTTP/{version} {status} {rng.choice(['OK', 'Some Reason'])}", *lines, "", ""]).encode()
    return head + (b"" if method == "HEAD" or status in (204, 304) else body) + (CLOSE if close else b"")


def pieces(rng: random.Random, wire: bytes) -> Iterator[bytes]:
    """`wire` as it may come: whole, or cut somewhere."""
    cuts = sorted(rng.randrange(len(wire) - len(CLOSE)) for _ in range(rng.choice([0, 0, 1, 3])))
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        yield wire[start:end]


def outcome(server: Server, wire: bytes, method: str) -> dict[str, object]:
    """What the client sees, and whether another request may follow."""
    with Client(server.port()) as client:
        client.send(wire)
        reply = client.response(method)
        found: dict[str, object] = {"status": reply.status, "reason": reply.reason, "body": reply.body}
        for name, value in reply.headers:
            if name.lower() not in ("server", "date"):
                found[name] = f"{found.get(name, '')}|{value.replace(str(server.port()), 'PORT')}"
        try:
            client.send(build("GET", "/probe", {"Connection": "close"}))
            found["kept"] = client.response().status
        except (TruncatedError, ConnectionError):
            found["kept"] = None
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Server], dict[str, list[bytes]]]]:
    wires: dict[str, list[bytes]] = {}

    def handle(request: Request) -> Iterator[bytes]:
        return iter(wires[request.target.rpartition("/")[2]])

    backends = [Backend(handle), Backend(handle)]
    conf = CONF.replace("ONE", backends[0].address).replace("TWO", backends[1].address)
    folder = tmp_path_factory.mktemp("answers")
    servers = [Server(conf, folder / binary, binary) for binary in ("nginx", "headgate")]
    try:
        yield [server.start() for server in servers], wires
        for server in servers:
            server.finish()
    finally:
        for server in servers:
            server.kill()
        for backend in backends:
            backend.stop()
    assert not [error for backend in backends for error in backend.errors]


@pytest.mark.parametrize("place", PLACES)
def test_same(running: tuple[list[Server], dict[str, list[bytes]]], place: str) -> None:
    servers, wires = running
    rng = random.Random(f"answers {place}")
    before = [len(server.log_lines("logs/answers.log")) for server in servers]
    for number in range(COUNT // len(PLACES)):
        method = rng.choice(["GET", "GET", "GET", "HEAD", "POST"])
        wires[str(number)] = list(pieces(rng, answer(rng, method)))
        headers = rng.choice(ASKED) if rng.random() < 0.5 else {}
        body = b"z" * rng.choice([0, 3, 20_000]) if method == "POST" else b""
        asked = build(method, f"/{place}/{number}", headers, body, rng.choice(["1.1", "1.1", "1.0"]))
        nginx, headgate = (outcome(server, asked, method) for server in servers)
        assert headgate == nginx, (asked[:300], wires[str(number)][0][:500])
    first, second = (
        server.access_log(start + COUNT // len(PLACES), "logs/answers.log")[start:]
        for server, start in zip(servers, before, strict=True)
    )
    assert second == first
