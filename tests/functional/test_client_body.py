"""client_body_buffer_size, client_body_in_file_only, client_body_in_single_buffer, client_body_temp_path; as nginx."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, Reply, Request
from tests.client import build, chunked
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
BODY = bytes(range(97, 123)) * 20_000
WARNING = "a client request body is buffered to a temporary file"
FRAMINGS = ["length", "chunked"]


def site(address: str, directives: str = "") -> str:
    return f"""
        http {{
            client_max_body_size 100m;
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{
                    proxy_pass http://{address};
                    add_header X-Body "[$request_body]";
                    add_header X-File "[$request_body_file]";
                    {directives}
                }}
            }}
        }}"""


def put(server: Server, body: bytes, framing: str) -> tuple[str, str]:
    """The request's X-Body and X-File."""
    if framing == "chunked":
        reply = server.request(
            "PUT", "/", {"Transfer-Encoding": "chunked"}, chunked(body[: len(body) // 2], body[len(body) // 2 :])
        )
    else:
        reply = server.request("PUT", "/", body=body)
    assert reply.status == 200
    return (reply.header("x-body") or "")[1:-1], (reply.header("x-file") or "")[1:-1]


def keeps(request: Request) -> Reply:
    assert BODY.startswith(request.body)
    return Reply()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_in_memory_or_in_a_file(either: Factory, backend: Callable[..., Backend], framing: str) -> None:
    peer = backend(keeps)
    server = either(site(peer.address, "client_body_buffer_size 2k;"))
    for size in (10, 2000):
        assert put(server, BODY[:size], framing) == (BODY[:size].decode(), "")
    for size in (5000, 50_000, 500_000):
        text, name = put(server, BODY[:size], framing)
        assert text == ""
        assert Path(name).parent == server.prefix / "temp_client_body"
        assert not Path(name).exists()
        assert server.matching(rf"\[warn\].* {WARNING} {name}")
    assert [len(request.body) for request in peer.requests] == [10, 2000, 5000, 50_000, 500_000]


def test_what_a_connection_reads_ahead_needs_no_file(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """64 kB beyond the buffer stay in memory unless somebody asks for the file; nginx writes them at once."""
    peer = backend(keeps)
    server = headgate(site(peer.address, "client_body_buffer_size 2k;").replace('"[$request_body_file]"', '"-"'))
    put(server, BODY[:60_000], "length")
    assert not server.matching(WARNING)
    put(server, BODY[:70_000], "length")
    assert server.matching(WARNING)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [10, 500_000])
def test_in_file_only_on(either: Factory, backend: Callable[..., Backend], framing: str, size: int) -> None:
    peer = backend(keeps)
    server = either(site(peer.address, "client_body_in_file_only on;"), level="notice")
    text, name = put(server, BODY[:size], framing)
    assert text == "" and Path(name).read_bytes() == BODY[:size]
    assert Path(name).stat().st_mode & 0o777 == 0o600
    assert server.matching(rf"\[notice\].* {WARNING} {name}")
    assert not server.matching(r"\[warn\]")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [10, 500_000])
def test_in_file_only_clean(either: Factory, backend: Callable[..., Backend], framing: str, size: int) -> None:
    files: list[list[bytes]] = []

    def handler(request: Request) -> Reply:
        files.append([path.read_bytes() for path in folder.iterdir()])
        return Reply()

    peer = backend(handler)
    server = either(site(peer.address, "client_body_in_file_only clean;"))
    folder = server.prefix / "temp_client_body"
    text, name = put(server, BODY[:size], framing)
    assert text == "" and name
    assert files == [[BODY[:size]]]
    until(lambda: not Path(name).exists(), "the file removed")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_in_single_buffer(either: Factory, backend: Callable[..., Backend], framing: str) -> None:
    peer = backend(keeps)
    server = either(site(peer.address, "client_body_in_single_buffer on; client_body_buffer_size 8k;"))
    with server.client() as client:
        body = BODY[:6000]
        head = f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        client.send(head + body[:100])
        client.send(body[100:3000])
        client.send(body[3000:])
        assert client.response().header("x-body") == f"[{body.decode()}]"


def test_levels_of_the_temporary_directory(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(keeps)
    server = either(site(peer.address, "client_body_in_file_only on; client_body_temp_path %%DIR%%/bodies 1 2;"))
    _, name = put(server, BODY[:100], "length")
    path = Path(name)
    assert path.parent == server.prefix / "bodies" / path.name[-1] / path.name[-3:-1]
    assert path.read_bytes() == BODY[:100]


def test_a_directory_that_is_gone(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(keeps)
    server = either(site(peer.address, "client_body_temp_path %%DIR%%/bodies;"))
    server.allow(r"\[crit\]")
    (server.prefix / "bodies").rmdir()
    reply = server.request("PUT", "/", body=BODY[:500_000])
    assert reply.status == 500
    server.expect_log(r"\[crit\].* open\(\) \"\S+/bodies/\d+\" failed \(2: No such file or directory\)")
    assert not peer.requests


@pytest.mark.parametrize("value", ["maybe", "ON OFF"])
def test_bad_values(either: Factory, value: str) -> None:
    result = either(site("127.0.0.1:1", f"client_body_in_file_only {value};"), start=False).check()
    assert result.returncode == 1
    wanted = 'invalid number of arguments in "client_body_in_file_only"' if " " in value else f'invalid value "{value}"'
    assert wanted in result.stderr


def test_an_aborted_upload_leaves_no_file(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(keeps)
    server = headgate(site(peer.address))
    (worker,) = server.workers()
    for _ in range(5):
        with server.client() as client:
            client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + BODY[:400_000])
            server.expect_log(WARNING)

    def open_files() -> list[str]:
        return [name for name in descriptors(worker).values() if "temp_client_body" in name]

    until(lambda: not open_files(), "temporary files closed")
    assert not list((server.prefix / "temp_client_body").iterdir())


@pytest.mark.parametrize("size", [5000, 500_000])
def test_subrequests_have_the_body_too(either: Factory, backend: Callable[..., Backend], size: int) -> None:
    """From memory or from the file, each from its start, and the request itself as well."""
    page = b'<!--#include virtual="/one" --> <!--#include virtual="/two" -->'

    def handler(request: Request) -> Reply:
        assert request.body == BODY[:size], request.target
        text = page if request.target == "/page" else request.target.encode()
        return Reply(headers=[("Content-Type", "text/html")], body=text)

    peer = backend(handler)
    server = either(site(peer.address, "ssi on;"))
    reply = server.request("POST", "/page", body=BODY[:size])
    assert reply.text == "/one /two"
    assert sorted(request.target for request in peer.requests) == ["/one", "/page", "/two"]


def test_the_location_says_how_long_to_wait_after_a_body_nobody_read(either: Factory) -> None:
    server = either("""
        http {
            server {
                listen 127.0.0.1:%%PORT_0%%;
                keepalive_timeout 60s;
                location / { keepalive_timeout 200ms; return 200 "unread"; }
            }
        }""")
    client = server.client()
    client.send(build("POST", "/", {"Content-Length": "10"}, b"first"))
    assert client.response().text == "unread"
    client.send(b"later")
    assert client.closed()
