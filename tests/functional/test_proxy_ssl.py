"""proxy_pass https:// and the proxy_ssl_* directives that decide whom we speak to, on headgate and on nginx alike."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import CLOSE, Backend, Reply, Request, echo
from tests.client import Client, TruncatedError
from tests.harness import Server, descriptors, until
from tests.tls import Authority, Leaf, TlsBackend

Factory = Callable[..., Server]


@pytest.fixture(params=["headgate", "nginx"])
def either(request: pytest.FixtureRequest) -> Factory:
    """headgate, and nginx with the same configuration."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Pki:
    """An authority with an intermediate and two certificates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root, self.other = Authority("root"), Authority("other")
        self.middle = Authority("middle", Authority("upper", self.root))
        self.ca = self.root.write(path / "ca.crt")
        self.other_ca = self.other.write(path / "other.crt")
        self.leaf = self.root.issue("localhost", path, names=["backend.example", "*.wild.example"])
        self.deep = self.middle.issue("deep", path, names=["backend.example"])


@pytest.fixture
def secure() -> Iterator[Callable[..., TlsBackend]]:
    made: list[TlsBackend] = []

    def factory(leaf: Leaf, handler: Any = echo, *, notify: bool = False, **options: Any) -> TlsBackend:
        made.append(TlsBackend(handler, leaf.server(**options), notify=notify))
        return made[-1]

    yield factory
    for each in made:
        each.stop()
    assert not [error for each in made for error in each.errors]


def conf(*locations: str, http: str = "") -> str:
    return f"http {{ {http} server {{ listen 127.0.0.1:%%PORT_0%%; {' '.join(locations)} }} }}"


def test_requests_and_bodies_both_ways(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    big = bytes(range(256)) * 12000
    one = secure(
        pki.leaf, lambda request: Reply(body=request.body or b"-", headers=[("X-Host", request.header("host"))])
    )
    running = either(
        conf(
            f"location / {{ proxy_pass https://{one.address}; proxy_http_version 1.1; }}",
            f"location /var/ {{ set $where {one.address}; proxy_pass https://$where; }}",
            "location /group/ { proxy_pass https://u/x/; }",
            http=f"client_max_body_size 0; proxy_ssl_protocols TLSv1.2 TLSv1.3; upstream u {{ server {one.address}; }}",
        )
    )
    assert running.request("POST", "/", body=big).body == big
    assert running.get("/var/").header("x-host") == one.address
    assert running.get("/group/y").header("x-host") == "u"
    assert one.requests[-1].target == "/x/y"
    assert {shake.version for shake in one.handshakes} == {"TLSv1.3"}
    assert {shake.sni for shake in one.handshakes} == {None}


UNKNOWN = (
    # headgate stops at the first error, nginx goes on and reports the last
    r"upstream SSL certificate verify error: "
    r"\((20:unable to get local issuer certificate|21:unable to verify the first certificate)\)"
)
NAMES = {
    "backend.example": None,
    "backend.example:443": None,
    "BACKEND.example": None,
    "a.wild.example": None,
    "$arg_name": None,
    "a.b.wild.example": r'upstream SSL certificate does not match "a.b.wild.example"',
    "localhost": r'upstream SSL certificate does not match "localhost"',
}


def test_verification(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    url = f"https://{one.address}"
    running = either(
        conf(
            *(f"location /{i} {{ proxy_pass {url}; proxy_ssl_name {name}; }}" for i, name in enumerate(NAMES)),
            f"location /none {{ proxy_pass {url}; }}",
            f"location /other {{ proxy_pass {url}; proxy_ssl_name backend.example;"
            f" proxy_ssl_trusted_certificate {pki.other_ca}; }}",
            http=f"proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_trusted_certificate {pki.ca};",
        )
    )
    expected: dict[str, str | None] = {f"/{i}": message for i, message in enumerate(NAMES.values())}
    expected |= {"/none": r'upstream SSL certificate does not match "127.0.0.1"', "/other": UNKNOWN}
    good = 0
    for target, message in expected.items():
        assert running.get(f"{target}?name=backend.example").status == (200 if message is None else 502), target
        good += message is None
        assert len(one.requests) == good
        if message is not None:
            running.expect_log(f'{message} while SSL handshaking to upstream, client: .* request: "GET {target}')
    running.allow("upstream SSL certificate")


def test_a_self_signed_certificate_is_called_so(
    either: Factory, pki: Pki, secure: Callable[..., TlsBackend], tmp_path: Path
) -> None:
    alone = Authority("alone")
    path = alone.write(tmp_path / "alone.crt")
    from cryptography.hazmat.primitives import serialization

    key = tmp_path / "alone.key"
    key.write_bytes(
        alone.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    one = secure(Leaf(alone.certificate, path, key))
    running = either(
        conf(
            f"location / {{ proxy_pass https://{one.address}; proxy_ssl_verify on;"
            f" proxy_ssl_trusted_certificate {pki.ca}; }}"
        )
    )
    assert running.get("/").status == 502
    running.expect_log(r"upstream SSL certificate verify error: \(18:self-signed certificate\)")
    running.allow("verify error")


def test_verify_depth(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.deep)
    running = either(
        conf(
            *(f"location /{n} {{ proxy_pass https://{one.address}; proxy_ssl_verify_depth {n}; }}" for n in range(3)),
            f"location /default {{ proxy_pass https://{one.address}; }}",
            http="proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_name backend.example;"
            f" proxy_ssl_trusted_certificate {pki.ca};",
        )
    )
    assert [running.get(f"/{n}").status for n in (0, 1, 2, "default")] == [502, 502, 200, 502]
    running.expect_log(r"verify error: \((22:certificate chain too long|20:unable to get local issuer.*)\)", 3)
    running.allow("verify error")


def test_revoked(either: Factory, pki: Pki, secure: Callable[..., TlsBackend], tmp_path: Path) -> None:
    one = secure(pki.leaf)
    good = pki.root.write_crl(tmp_path / "good.crl")
    bad = pki.root.write_crl(tmp_path / "bad.crl", [pki.leaf])
    other = pki.other.write_crl(tmp_path / "other.crl")
    lists = {"good": good, "bad": bad, "other": other}
    running = either(
        conf(
            *(
                f"location /{name} {{ proxy_pass https://{one.address}; proxy_ssl_crl {path}; }}"
                for name, path in lists.items()
            ),
            http="proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_name backend.example;"
            f" proxy_ssl_trusted_certificate {pki.ca};",
        )
    )
    assert [running.get(f"/{name}").status for name in lists] == [200, 502, 502]
    running.expect_log(r"verify error: \(23:certificate revoked\)")
    running.expect_log(r"verify error: \(3:unable to get certificate CRL\)")
    running.allow("verify error")


def test_server_name(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    running = either(
        conf(
            "location /default { proxy_pass https://u; }",
            "location /named { proxy_pass https://u; proxy_ssl_name $arg_n; }",
            "location /off { proxy_pass https://u; proxy_ssl_server_name off; }",
            f"location /ip {{ proxy_pass https://{one.address}; }}",
            http=f"proxy_ssl_session_reuse off; proxy_ssl_server_name on; upstream u {{ server {one.address}; }}",
        )
    )
    for target in ("/default", "/named?n=a.example:1", "/named?n=b.example", "/off", "/ip", "/named?n=[::1]:443"):
        assert running.get(target).status == 200
    assert [shake.sni for shake in one.handshakes] == ["u", "a.example", "b.example", None, None, None]


def test_sessions_resume_only_where_they_may(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    old = secure(pki.leaf, maximum_version=ssl.TLSVersion.TLSv1_2)
    running = either(
        conf(
            f"location /on {{ proxy_pass https://{one.address}; }}",
            f"location /off {{ proxy_pass https://{one.address}; proxy_ssl_session_reuse off; }}",
            f"location /old {{ proxy_pass https://{old.address}; }}",
        )
    )
    for target in ("/on", "/on", "/off", "/off", "/on", "/old", "/old"):
        assert running.get(target).status == 200
    assert [shake.reused for shake in one.handshakes] == [False, True, False, False, True]
    assert [(shake.reused, shake.version) for shake in old.handshakes] == [(False, "TLSv1.2"), (True, "TLSv1.2")]


def test_protocols_ciphers_and_commands(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    running = either(
        conf(
            f"location /12 {{ proxy_pass https://{one.address}; proxy_ssl_protocols TLSv1.2;"
            " proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; }",
            f"location /13 {{ proxy_pass https://{one.address}; proxy_ssl_protocols TLSv1.3;"
            " proxy_ssl_conf_command Ciphersuites TLS_CHACHA20_POLY1305_SHA256; }",
            f"location /max {{ proxy_pass https://{one.address}; proxy_ssl_conf_command MaxProtocol TLSv1.2;"
            " proxy_ssl_conf_command Options -SessionTicket; }",
        )
    )
    for target in ("/12", "/13", "/max"):
        assert running.get(target).status == 200
    assert [(shake.version, shake.cipher) for shake in one.handshakes][:2] == [
        ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    ]
    assert one.handshakes[2].version == "TLSv1.2"


def test_no_common_protocol_is_a_handshake_that_failed(
    either: Factory, pki: Pki, secure: Callable[..., TlsBackend]
) -> None:
    one = secure(pki.leaf, minimum_version=ssl.TLSVersion.TLSv1_3)
    running = either(conf(f"location / {{ proxy_pass https://{one.address}; proxy_ssl_protocols TLSv1.2; }}"))
    assert running.get("/").status == 502
    running.allow("SSL_do_handshake")
    running.expect_log(r"SSL_do_handshake\(\) failed \(SSL: error:0A00042E:SSL routines::tlsv1 alert protocol version")


def test_the_next_server_gets_what_a_bad_certificate_loses(
    either: Factory, pki: Pki, secure: Callable[..., TlsBackend]
) -> None:
    bad = secure(pki.other.issue("bad", pki.path, names=["backend.example"]))
    good = secure(pki.leaf)
    running = either(
        conf(
            "location / { proxy_pass https://u; add_header X-Addr $upstream_addr; }",
            http=f"upstream u {{ server {bad.address}; server {good.address}; }} proxy_ssl_verify on;"
            f" proxy_ssl_name backend.example; proxy_ssl_trusted_certificate {pki.ca};",
        )
    )
    assert running.get("/").header("x-addr") == f"{bad.address}, {good.address}"
    running.expect_log("verify error")
    running.allow("verify error")


def test_a_handshake_has_the_time_of_a_connect(either: Factory, backend: Callable[..., Backend]) -> None:
    done = threading.Event()

    def silent(sock: socket.socket) -> None:
        done.wait(10)

    one = backend(connection=silent)
    running = either(conf(f"location / {{ proxy_pass https://{one.address}; proxy_connect_timeout 300ms; }}"))
    assert running.get("/").status == 504
    done.set()
    running.expect_log(r"upstream timed out \(110: Connection timed out\) while SSL handshaking to upstream")
    running.allow("timed out")


def test_a_server_that_hangs_up(either: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(connection=lambda sock: sock.recv(10000) and None)
    running = either(conf(f"location / {{ proxy_pass https://{one.address}; }}"))
    assert running.get("/").status == 502
    running.expect_log(r"peer closed connection in SSL handshake (\(104: .*\) )?while SSL handshaking to upstream")
    running.allow("peer closed")


def test_plain_http_where_tls_was_due(either: Factory, backend: Callable[..., Backend]) -> None:
    one = backend(connection=lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + sock.recv(10000)[:0]))
    running = either(conf(f"location / {{ proxy_pass https://{one.address}; }}"))
    assert running.get("/").status == 502
    running.expect_log(r"SSL_do_handshake\(\) failed \(SSL: error:0A00010B:SSL routines::wrong version number")
    running.allow("wrong version")


def test_kept_connections_are_not_shared_by_names(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    running = either(
        conf(
            "location /a { proxy_pass https://u; }",
            http=f"upstream u {{ server {one.address}; keepalive 8; }} proxy_http_version 1.1;"
            " proxy_set_header Connection ''; proxy_ssl_server_name on;",
        )
    )
    for _ in range(3):
        assert running.get("/a").status == 200
    assert one.connections == 1


def test_two_names_two_connections(headgate: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    """nginx 1.22 knows no difference here; headgate never sends one name's request where another was verified."""
    one = secure(pki.leaf)
    running = headgate(
        conf(
            "location / { proxy_pass https://u; proxy_ssl_name $arg_n; proxy_ssl_server_name on; }",
            http=f"upstream u {{ server {one.address}; keepalive 8; }} proxy_http_version 1.1;"
            " proxy_set_header Connection '';",
        )
    )
    for name in ("a.example", "b.example", "a.example", "b.example"):
        assert running.get(f"/?n={name}").status == 200
    assert [shake.sni for shake in one.handshakes] == ["a.example", "b.example"]


def test_a_name_that_cannot_be_sent(headgate: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf)
    running = headgate(
        conf(f"location / {{ proxy_pass https://{one.address}; proxy_ssl_server_name on; proxy_ssl_name $arg_n; }}")
    )
    for name in (".a.example", "a" * 300):
        assert running.get(f"/?n={name}").status == 500
    running.expect_log(r'SSL_set_tlsext_host_name\("\.a\.example"\) failed')
    running.allow("SSL_set_tlsext_host_name")


def _ends_with_close(request: Request) -> bytes:
    return b"HTTP/1.0 200 OK\r\n\r\nall of it" + CLOSE


def test_the_end_of_a_body_is_a_close_notify(either: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    one = secure(pki.leaf, _ends_with_close, notify=True)
    running = either(conf(f"location / {{ proxy_pass https://{one.address}; }}"))
    assert running.get("/").body == b"all of it"


def test_a_close_without_notice_cuts_the_body_short(
    headgate: Factory, pki: Pki, secure: Callable[..., TlsBackend]
) -> None:
    """nginx takes any close for the end, and an attacker's too; headgate does not, and its client sees that."""
    one = secure(pki.leaf, _ends_with_close)
    running = headgate(conf(f"location / {{ proxy_pass https://{one.address}; }}"))
    with Client(running.port()) as client, pytest.raises(TruncatedError):
        client.request("GET", "/")
    running.expect_log(r"SSL_read\(\) failed \(SSL: error:0A000126:SSL routines::unexpected eof while reading\)")
    running.allow("unexpected eof")


def test_a_slow_client_holds_the_server_back(headgate: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    size = 30_000_000
    sent = []

    def much(request: Request) -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        for _ in range(size // 1_000_000):
            yield b"x" * 1_000_000
            sent.append(1)

    one = secure(pki.leaf, much)
    running = headgate(conf(f"location / {{ proxy_pass https://{one.address}; proxy_max_temp_file_size 0; }}"))
    with Client(running.port(), receive_buffer=65536) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        one.wait_requests(1)
        client.read_until(b"\r\n\r\n")
        assert len(sent) < 29
        got = len(client.buffer)
        while got < size:
            data = client.socket.recv(1 << 20)
            assert data == b"x" * len(data) != b""
            got += len(data)


def test_aborts_at_any_moment_leave_nothing(headgate: Factory, pki: Pki, secure: Callable[..., TlsBackend]) -> None:
    def some(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
        for _ in range(20):
            yield b"x" * 10000

    one = secure(pki.leaf, some)
    running = headgate(
        conf(
            "location / { proxy_pass https://u; proxy_http_version 1.1; proxy_set_header Connection ''; }",
            http=f"upstream u {{ server {one.address} max_conns=10; server {one.address} backup; keepalive 4; }}",
        )
    )
    (worker,) = running.workers()

    def count() -> int:
        return len(descriptors(worker))

    assert running.get("/").status == 200
    before = count()
    chance = random.Random(3)
    for _ in range(300):
        with Client(running.port()) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            wanted = chance.choice((0, 0, 1, 1000, 100000))
            got = 0
            while got < wanted:
                data = client.socket.recv(wanted - got)
                assert data, "closed inside the answer"
                got += len(data)
            if chance.random() < 0.5:
                client.reset()
    until(lambda: count() <= before + 4, lambda: f"{count()} descriptors, {before} before")
    assert running.get("/").body == b"x" * 200000
    lines = running.access_log(302)
    assert {line.split('" ')[1].split(" ")[0] for line in lines} <= {"200", "499"}
