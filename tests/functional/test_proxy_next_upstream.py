"""proxy_next_upstream: which failures go to the next peer, what the client gets, what is logged; as nginx."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.backends import RESET, Backend, Reply, Request, named, refused_port
from tests.client import Client, TruncatedError, build, chunked
from tests.harness import Server

Factory = Callable[..., Server]


@pytest.fixture
def hold() -> Iterator[threading.Event]:
    """An event that handlers may wait for; it happens at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


SHOW = "add_header X-Addr $upstream_addr always; add_header X-Status $upstream_status always;"


def config(*parts: str, http: str = "") -> str:
    """`parts`: (upstreams and locations) in one server."""
    upstreams = "\n".join(part for part in parts if part.startswith("upstream "))
    locations = "\n".join(part for part in parts if not part.startswith("upstream "))
    return f"""
        http {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            {http}
            {upstreams}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                {SHOW}
                {locations}
            }}
        }}"""


def group(name: str, *servers: Any, parameters: str = "max_fails=0", more: str = "") -> str:
    """An upstream block; a server is a backend or an address."""
    lines = "".join(f"server {getattr(each, 'address', each)} {parameters};" for each in servers)
    return f"upstream {name} {{ {lines} {more} }}"


def tail(server: Server) -> list[str]:
    """The error log's [warn] lines and worse, without date, pid and connection number."""
    lines = server.matching(r"\[(warn|error|crit|alert|emerg)\]")
    return [re.sub(r"^\S+ \S+ (\[\w+\]) \d+#\d+: (\*\d+ )?", r"\1 ", line) for line in lines]


def status(code: int) -> Callable[[Request], Reply]:
    return lambda request: Reply(code, [("X-Peer", "bad")], b"bad")


def broken(kind: str, hold: threading.Event) -> Callable[[Request], Any]:
    """A handler that fails in this way."""
    if kind.startswith("http_"):
        return status(int(kind[5:]))
    if kind == "timeout":
        return lambda request: hold.wait(15) and None
    if kind == "invalid_header":
        return lambda request: b"HTTP/1.1 200 OK\r\nX-A: 1\r\nbad\x01: 1\r\n\r\n"
    return lambda request: b"" + RESET


KINDS = ["error", "timeout", "invalid_header"] + [f"http_{code}" for code in (500, 502, 503, 504, 403, 404, 429)]
PLAIN = {"error": 502, "timeout": 504, "invalid_header": 502}


def test_each_kind_is_retried_if_listed(
    either: Factory, backend: Callable[..., Backend], hold: threading.Event
) -> None:
    good = backend(named("good"))
    parts = []
    for kind in KINDS:
        bad = backend(broken(kind, hold))
        for listed in ("yes", "no"):
            parts.append(group(f"{kind}_{listed}", bad, good))
            words = kind if listed == "yes" else " ".join(each for each in KINDS if each != kind)
            parts.append(
                f"location /{listed}/{kind} {{ proxy_pass http://{kind}_{listed}; proxy_next_upstream {words};"
                f" proxy_read_timeout 300ms; }}"
            )
    running = either(config(*parts))
    for kind in KINDS:
        code = PLAIN.get(kind) or int(kind[5:])
        reply = running.get(f"/yes/{kind}")
        assert (reply.status, reply.text, reply.header("x-status")) == (200, "good", f"{code}, 200"), kind
        reply = running.get(f"/no/{kind}")
        assert (reply.status, reply.header("x-status")) == (code, str(code)), kind
        assert reply.header("x-peer") == ("bad" if kind.startswith("http_") else None), kind
    running.allow("upstream", "recv")


def test_off_and_the_default(either: Factory, backend: Callable[..., Backend]) -> None:
    bad, good = backend(lambda request: None), backend(named("good"))
    running = either(
        config(
            group("a", bad, good),
            group("b", bad, good),
            "location /off { proxy_pass http://a; proxy_next_upstream off; }",
            "location /default { proxy_pass http://b; }",
        )
    )
    assert running.get("/off").status == 502
    assert running.get("/default").text == "good"
    running.allow("prematurely closed")


@pytest.mark.parametrize(("kind", "later"), [("http_404", ["404, 200", "200", "404, 200"]), ("http_500", ["200"] * 3)])
def test_only_403_and_404_say_nothing_against_the_peer(
    either: Factory, backend: Callable[..., Backend], kind: str, later: list[str]
) -> None:
    bad, good = backend(status(int(kind[5:]))), backend(named("good"))
    running = either(
        config(
            group("u", bad, good, parameters=""), f"location / {{ proxy_pass http://u; proxy_next_upstream {kind}; }}"
        )
    )
    assert running.get("/").header("x-status") == f"{kind[5:]}, 200"
    rest = [running.get("/").header("x-status") for _ in range(3)]
    assert sorted(filter(None, rest)) == sorted(later) if kind == "http_500" else "404, 200" in rest


@pytest.mark.parametrize("method", ["POST", "LOCK", "PATCH", "PUT", "GET", "DELETE"])
def test_what_was_sent_is_repeated_only_when_that_is_safe_or_allowed(
    either: Factory, backend: Callable[..., Backend], method: str
) -> None:
    bad, good = backend(lambda request: None), backend(named("good"))
    with refused_port() as port:
        running = either(
            config(
                group("sent", bad, good),
                group("sent2", bad, good),
                group("unsent", f"127.0.0.1:{port}", good),
                "location /sent { proxy_pass http://sent; }",
                "location /allowed { proxy_pass http://sent2; proxy_next_upstream error non_idempotent; }",
                "location /unsent { proxy_pass http://unsent; }",
            )
        )
        safe = method not in ("POST", "LOCK", "PATCH")
        assert running.request(method, "/sent", body=b"x").header("x-status") == ("502, 200" if safe else "502")
        assert running.request(method, "/allowed", body=b"x").header("x-status") == "502, 200"
        assert running.request(method, "/unsent", body=b"x").header("x-status") == "502, 200"
    running.allow("prematurely closed", "refused")


def test_a_status_of_a_post_is_passed_on_unless_it_may_be_repeated(
    either: Factory, backend: Callable[..., Backend]
) -> None:
    bad, good = backend(status(503)), backend(named("good"))
    running = either(
        config(
            group("a", bad, good),
            group("b", bad, good),
            "location /a { proxy_pass http://a; proxy_next_upstream http_503; }",
            "location /b { proxy_pass http://b; proxy_next_upstream http_503 non_idempotent; }",
        )
    )
    assert running.request("POST", "/a", body=b"x").text == "bad"
    assert running.request("POST", "/b", body=b"x").text == "good"


def test_the_last_peers_answer_is_passed_on(either: Factory, backend: Callable[..., Backend]) -> None:
    peers = [backend(lambda request, n=n: Reply(500, body=f"answer {n}".encode())) for n in range(3)]
    running = either(config(group("u", *peers), "location / { proxy_pass http://u; proxy_next_upstream http_500; }"))
    reply = running.get("/")
    assert (reply.status, reply.text) == (500, "answer 2")
    assert reply.header("x-status") == "500, 500, 500"
    assert reply.header("x-addr") == ", ".join(peer.address for peer in peers)


def test_tries(either: Factory, backend: Callable[..., Backend]) -> None:
    bad = [backend(status(503)) for _ in range(2)] + [backend(lambda request: None)]
    good = backend(named("good"))
    words = "proxy_next_upstream error http_503;"
    running = either(
        config(
            *(group(f"u{n}", *bad, good) for n in range(5)),
            *(f"location /{n} {{ proxy_pass http://u{n}; {words} proxy_next_upstream_tries {n}; }}" for n in range(5)),
        )
    )
    seen = [running.get(f"/{n}").header("x-status") for n in range(5)]
    assert seen == ["503, 503, 502, 200", "503", "503, 503", "503, 503, 502", "503, 503, 502, 200"]
    running.allow("prematurely closed")


def test_no_retry_when_the_time_is_over(
    either: Factory, backend: Callable[..., Backend], hold: threading.Event
) -> None:
    slow, good = backend(broken("timeout", hold)), backend(named("good"))
    running = either(
        config(
            group("a", slow, good),
            group("b", slow, good),
            "location /late { proxy_pass http://a; proxy_next_upstream_timeout 100ms; }",
            "location /early { proxy_pass http://b; proxy_next_upstream_timeout 30s; }",
            http="proxy_read_timeout 300ms;",
        )
    )
    assert running.get("/late").header("x-status") == "504"
    assert running.get("/early").header("x-status") == "504, 200"
    running.allow("timed out")


def test_a_buffered_body_is_sent_again_whole(either: Factory, backend: Callable[..., Backend]) -> None:
    body = bytes(range(256)) * (16 << 12)  # 16 MiB: in a temporary file
    bad, good = backend(lambda request: None), backend(lambda request: Reply(body=b"%d" % (request.body == body)))
    running = either(
        config(
            group("u", bad, good),
            group("v", bad, good),
            "location / { proxy_pass http://u; client_max_body_size 20m; }",
            "location /memory { proxy_pass http://v; client_max_body_size 20m; client_body_buffer_size 17m; }",
        )
    )
    for target in ("/", "/memory"):
        reply = running.request("PUT", target, body=body)
        assert (reply.text, reply.header("x-status")) == ("1", "502, 200")
    running.allow("prematurely closed")


def test_a_body_that_was_passed_on_as_it_came_is_not_sent_again(
    either: Factory, backend: Callable[..., Backend]
) -> None:
    bad, good = backend(connection=lambda sock: sock.recv(65536)), backend(named("good"))
    with refused_port() as port:
        running = either(
            config(
                group("u", bad, good),
                group("v", f"127.0.0.1:{port}", good),
                "location /sent { proxy_pass http://u; proxy_request_buffering off; }",
                "location /unsent { proxy_pass http://v; proxy_request_buffering off; }",
            )
        )
        for target, seen in (("/sent", "502"), ("/unsent", "502, 200")):
            client = running.client()
            client.send(build("PUT", target, {"Content-Length": "2"}, b"x"))
            (bad if target == "/sent" else good).wait_connections(1)
            client.send(b"y")
            assert client.response().header("x-status") == seen
    running.allow("prematurely closed", "refused", "recv")


def test_nothing_is_tried_again_once_the_head_was_passed_on(either: Factory, backend: Callable[..., Backend]) -> None:
    bad = backend(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf" + RESET)
    good = backend(named("good"))
    running = either(config(group("u", bad, good), "location / { proxy_pass http://u; proxy_next_upstream error; }"))
    with pytest.raises(TruncatedError):
        running.get("/")
    assert len(bad.requests) == 1 and not good.requests
    running.allow("prematurely closed", "recv|readv")


def test_a_dead_cached_connection_is_a_free_try(either: Factory, backend: Callable[..., Backend]) -> None:
    """The server closes as the second request comes: it is sent again, on a new connection."""

    def once(request: Request) -> Any:
        return None if request.nth == 2 else Reply(body=b"fine")

    peer = backend(once)
    running = either(
        config(
            group("u", peer, parameters="", more="keepalive 4;"),
            group("w", peer, parameters="", more="keepalive 4;"),
            "location / { proxy_pass http://u; }",
            "location /off { proxy_pass http://w; proxy_next_upstream off; }",
        )
    )
    assert [running.get("/").header("x-status") for _ in range(3)] == ["200", "502, 200", "502, 200"]
    assert [running.get("/off").status for _ in range(2)] == [200, 502]
    running.allow("prematurely closed")


def test_a_dead_cached_connection_is_no_failure_of_the_peer(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """nginx counts it, and would leave this peer alone for fail_timeout."""
    peer = backend(lambda request: None if request.nth == 2 else Reply(body=b"fine"))
    other = backend(lambda request: None if request.nth == 2 else Reply(body=b"fine"))
    running = headgate(
        config(group("u", peer, other, parameters="", more="keepalive 4;"), "location / { proxy_pass http://u; }")
    )
    for _ in range(8):
        assert running.get("/").text == "fine"
    assert not running.matching("temporarily disabled|no live")
    assert len(peer.requests) > 2 and len(other.requests) > 2
    running.allow("prematurely closed")


def test_a_client_that_has_gone_ends_the_tries(
    headgate: Factory, backend: Callable[..., Backend], hold: threading.Event
) -> None:
    slow, good = backend(broken("timeout", hold)), backend(named("good"))
    running = headgate(config(group("u", slow, good), "location / { proxy_pass http://u; proxy_read_timeout 10s; }"))
    client = running.client()
    client.send(build("GET", "/"))
    slow.wait_requests(1)
    client.close()
    (line,) = running.access_log(1)
    assert " 499 " in line and not good.requests


# Who may be tried


def test_every_peer_is_tried_once(headgate: Factory) -> None:
    with ExitStack() as held:
        dead = [f"127.0.0.{n}:{held.enter_context(refused_port(f'127.0.0.{n}'))}" for n in range(1, 71)]
        running = headgate(config(group("u", *dead, parameters=""), "location / { proxy_pass http://u; }"))
        reply = running.get("/")
        tried = (reply.header("x-addr") or "").split(", ")
        assert reply.status == 502 and len(tried) == 70 and sorted(tried) == sorted(dead)
        assert len(running.matching("temporarily disabled")) == 70
        reply = running.get("/")
        assert (reply.status, reply.header("x-addr"), reply.header("x-status")) == (502, "u", "502")
    running.allow("refused", "no live upstreams")


def test_backups_come_after_all_others(either: Factory, backend: Callable[..., Backend]) -> None:
    good = backend(named("good"))
    with refused_port() as one, refused_port() as two:
        conf = config(
            f"upstream u {{ server 127.0.0.1:{one} max_fails=0; server {good.address} backup;"
            f" server 127.0.0.1:{two}; }}",
            "location / { proxy_pass http://u; }",
        )
        running = either(conf)
        assert running.get("/").header("x-addr") == f"127.0.0.1:{one}, 127.0.0.1:{two}, {good.address}"
        assert running.get("/").header("x-addr") == f"127.0.0.1:{one}, {good.address}"
    running.allow("refused")


def test_servers_that_are_down_do_not_count_as_tries(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(status(404))
    running = either(
        config(
            f"upstream u {{ server {peer.address}; server 127.0.0.1:1 down; }}",
            "location / { proxy_pass http://u; proxy_next_upstream http_404; }",
        )
    )
    reply = running.get("/")
    assert (reply.status, reply.text, reply.header("x-status")) == (404, "bad", "404")


def test_a_single_peer_is_always_tried(either: Factory) -> None:
    with refused_port() as port:
        running = either(config(f"upstream u {{ server 127.0.0.1:{port}; }}", "location / { proxy_pass http://u; }"))
        for _ in range(3):
            reply = running.get("/")
            assert (reply.status, reply.header("x-addr")) == (502, f"127.0.0.1:{port}")
    assert not running.matching("no live|disabled")
    running.allow("refused")


def test_a_single_peer_with_a_backup_is_not(either: Factory, backend: Callable[..., Backend]) -> None:
    good = backend(named("good"))
    with refused_port() as port:
        running = either(
            config(
                f"upstream u {{ server 127.0.0.1:{port}; server {good.address} backup; }}",
                "location / { proxy_pass http://u; }",
            )
        )
        assert [running.get("/").header("x-status") for _ in range(2)] == ["502, 200", "200"]
    running.allow("refused")


# The error log


def _full_listener(held: ExitStack) -> str:
    """An address whose queue of connections is full: a further connect() gets no answer."""
    import socket

    listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    address = listener.getsockname()
    while True:
        filler = held.enter_context(socket.socket())
        filler.settimeout(0.2)
        try:
            filler.connect(address)
        except TimeoutError:
            return f"127.0.0.1:{address[1]}"


def test_error_lines_are_nginxs(
    headgate: Factory, nginx: Factory, backend: Callable[..., Backend], hold: threading.Event
) -> None:
    closes, resets = backend(lambda request: None), backend(broken("error", hold))
    slow, invalid = (
        backend(broken("timeout", hold)),
        backend(lambda request: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000),
    )
    with ExitStack() as held:
        dead = held.enter_context(refused_port())
        full = _full_listener(held)
        peers = {
            "refused": f"127.0.0.1:{dead}",
            "closes": closes.address,
            "resets": resets.address,
            "slow": slow.address,
            "big": invalid.address,
            "full": full,
            "unix": "unix:/nowhere/at/all.sock",
        }
        conf = config(
            *(f"upstream {name} {{ server {peer}; server {peer} down; }}" for name, peer in peers.items()),
            *(f"location /{name} {{ proxy_pass http://{name}/uri; }}" for name in peers),
            http="proxy_read_timeout 300ms; proxy_connect_timeout 300ms;",
        )
        logs = []
        for factory in (headgate, nginx):
            running = factory(conf)
            for name in peers:
                running.get(f"/{name}?a=1", {"Referer": "http://r/"})
                reply = running.get(f"/{name}")
                assert (reply.status, reply.header("x-addr")) == (502, name)
            running.allow("upstream")
            logs.append(tail(running))
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3 * len(peers)


def test_a_body_in_chunks_is_sent_again(either: Factory, backend: Callable[..., Backend]) -> None:
    bad, good = backend(lambda request: None), backend(lambda request: Reply(body=request.body))
    running = either(config(group("u", bad, good), "location / { proxy_pass http://u; }"))
    with Client(running.port()) as client:
        client.send(build("PUT", "/", {"Transfer-Encoding": "chunked"}, chunked(b"one ", b"two")))
        assert client.response().text == "one two"
    running.allow("prematurely closed")
