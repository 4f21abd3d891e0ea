"""`listen ... ssl` and the ssl_* directives: TLS to clients, on headgate and on nginx alike."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Backend, Reply
from tests.client import Client, Response
from tests.harness import Server
from tests.tls import Authority

Factory = Callable[..., Server]


@pytest.fixture(params=["headgate", "nginx"])
def either(request: pytest.FixtureRequest) -> Factory:
    """headgate, and nginx with the same configuration."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


class Pki:
    """Certificates of two servers and two clients."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root, self.other = Authority("root"), Authority("other")
        self.ca = self.root.write(path / "ca.crt")
        self.a = self.root.issue("a.test", path, names=["a.test"])
        self.b = self.root.issue("b.test", path, names=["b.test"])
        self.client = self.root.issue("client", path)
        self.stranger = self.other.issue("stranger", path)

    def server(self, body: str, name: str = "a", more: str = "") -> str:
        leaf = getattr(self, name)
        return (
            f"server {{ listen 127.0.0.1:%%PORT_0%% ssl; server_name {name}.test; ssl_certificate {leaf.cert};"
            f" ssl_certificate_key {leaf.key}; {more} {body} }}"
        )


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class Secure(Client):
    """A client behind TLS, which trusts the test's authority."""

    def __init__(self, running: Server, pki: Pki, name: str | None = "a.test", **options: Any) -> None:
        super().__init__(running.port())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki.ca)
        context.check_hostname = False
        client = options.pop("client", None)
        session = options.pop("session", None)
        for key, value in options.items():
            setattr(context, key, value)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        if session is not None:
            session, context = session
        try:
            self.socket: ssl.SSLSocket = context.wrap_socket(self.socket, server_hostname=name, session=session)
        except BaseException:
            self.close()
            raise


def ask(running: Server, pki: Pki, target: str = "/", host: str = "a.test", **options: Any) -> Response:
    with Secure(running, pki, **options) as client:
        return client.request("GET", target, {"Host": host, "Connection": "close"})


def test_files_bodies_and_proxying(either: Factory, pki: Pki, backend: Callable[..., Backend]) -> None:
    big = bytes(range(256)) * 20000
    one = backend(lambda request: Reply(body=request.body or big))
    running = either(
        "http { client_max_body_size 0; "
        + pki.server(f"sendfile on; location /p {{ proxy_pass http://{one.address}; }} location /f/ {{ }}")
        + " }",
        files={"html/f/big": big},
    )
    assert ask(running, pki, "/f/big").body == big
    assert ask(running, pki, "/p").body == big
    with Secure(running, pki) as client:
        for _ in range(3):
            assert client.request("POST", "/p", {"Host": "a.test"}, big).body == big
        client.send(b"GET /f/big HTTP/1.1\r\nHost: a.test\r\n\r\n" * 3)
        assert [client.response().body == big for _ in range(3)] == [True] * 3


def test_variables_and_redirects(either: Factory, pki: Pki) -> None:
    text = "$scheme $https $ssl_protocol $ssl_cipher $ssl_server_name $ssl_client_verify $ssl_session_reused"
    running = either(
        "http { ssl_protocols TLSv1.2 TLSv1.3; "
        + pki.server(f'location / {{ return 200 "{text}"; }} location /d {{ }} location /r {{ return 301 /x; }}')
        + " }",
        files={"html/d/x": "x"},
    )
    parts = ask(running, pki).text.split(" ")
    assert parts[:3] == ["https", "on", "TLSv1.3"]
    assert parts[4:] == ["a.test", "NONE", "."]
    assert ask(running, pki, name=None).text.split(" ")[4:] == ["", "NONE", "."]
    assert ask(running, pki, maximum_version=ssl.TLSVersion.TLSv1_2).text.split(" ")[2] == "TLSv1.2"
    assert ask(running, pki, "/d").header("location") == f"https://a.test:{running.port()}/d/"
    assert ask(running, pki, "/r").header("location") == f"https://a.test:{running.port()}/x"


def test_the_name_chooses_server_and_certificate(either: Factory, pki: Pki) -> None:
    running = either(f"http {{ {pki.server('return 200 a;')} {pki.server('return 200 b;', 'b')} }}")
    for name, common in (("a.test", "a.test"), ("b.test", "b.test"), ("c.test", "a.test"), (None, "a.test")):
        with Secure(running, pki, name) as client:
            assert dict(part[0] for part in client.socket.getpeercert()["subject"])["commonName"] == common  # type: ignore
            reply = client.request("GET", "/", {"Host": name or "x"})
            assert reply.text == common[0]
    assert ask(running, pki, name="a.test", host="b.test").text == "b"  # the Host of a request has the last word


def test_plain_http_is_told_so(either: Factory, pki: Pki) -> None:
    running = either(f"http {{ {pki.server('error_page 497 = /moved; location /moved { return 426; }')} }}")
    assert running.get("/").status == 426
    running2 = either(f"http {{ {pki.server('')} }}")
    reply = running2.get("/")
    assert (reply.status, "The plain HTTP request was sent to HTTPS port" in reply.text) == (400, True)
    running2.expect_log("client sent plain HTTP request to HTTPS port while reading client request headers|HTTPS port")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("on", {"none": 400, "client": 200, "stranger": 400}),
        ("optional", {"none": 200, "client": 200, "stranger": 400}),
        ("optional_no_ca", {"none": 200, "client": 200, "stranger": 200}),
        ("off", {"none": 200, "client": 200, "stranger": 200}),
    ],
)
def test_client_certificates(either: Factory, pki: Pki, mode: str, expected: dict[str, int]) -> None:
    more = f"ssl_verify_client {mode}; ssl_client_certificate {pki.ca};"
    body = 'return 200 "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_fingerprint";'
    running = either(f"http {{ {pki.server(body, more=more)} }}")
    for who, status in expected.items():
        client = None if who == "none" else getattr(pki, who)
        reply = ask(running, pki, client=client)
        assert reply.status == status, who
        if mode == "off" or who == "none":
            assert status == 400 or reply.text == "NONE|||"
        elif status == 200:
            issuer = "root" if who == "client" else "other"
            verified = "SUCCESS" if who == "client" else "FAILED:unable to verify the first certificate"
            assert reply.text.split("|")[:3] == [verified, f"CN={who}", f"CN={issuer}"]
            assert len(reply.text.split("|")[3]) == 40
        else:
            running.expect_log(r"client SSL certificate verify error: \(21:unable to verify the first certificate\)")
    if mode == "on":
        running.expect_log("client sent no required SSL certificate")
        assert "No required SSL certificate was sent" in ask(running, pki).text


def test_sessions_resume(either: Factory, pki: Pki) -> None:
    more = "ssl_session_cache shared:s:1m;"
    running = either(f"http {{ {pki.server('return 200 $ssl_session_reused;', more=more)} }}")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Secure(running, pki, maximum_version=version) as client:
            assert client.request("GET", "/", {"Host": "a.test"}).text == "."
            session = client.socket.session, client.socket.context
        assert ask(running, pki, session=session).text == "r"


def test_tickets_hold_in_all_workers_and_not_when_off(headgate: Factory, pki: Pki) -> None:
    body = "return 200 $ssl_session_reused$pid;"
    running = headgate(f"worker_processes 2; http {{ {pki.server(body)} }}")
    with Secure(running, pki) as client:
        first = client.request("GET", "/", {"Host": "a.test"}).text
        session = client.socket.session, client.socket.context
    seen = {first[1:]}
    for _ in range(200):
        again = ask(running, pki, session=session).text
        assert again[0] == "r"
        seen.add(again[1:])
        if len(seen) == 2:
            break
    assert len(seen) == 2
    off = headgate(f"http {{ {pki.server(body, more='ssl_session_tickets off;')} }}")
    with Secure(off, pki) as client:
        client.request("GET", "/", {"Host": "a.test"})
        session = client.socket.session, client.socket.context
    assert ask(off, pki, session=session).text[0] == "."


def test_protocols_and_rejected_names(either: Factory, pki: Pki) -> None:
    running = either(
        "http { ssl_protocols TLSv1.2;"
        " server { listen 127.0.0.1:%%PORT_0%% ssl default_server; ssl_reject_handshake on; } "
        + pki.server("return 200 $ssl_cipher;", more="ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;")
        + " }"
    )
    assert ask(running, pki).text == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        Secure(running, pki, "b.test")
    with pytest.raises(ssl.SSLError, match="VERSION"):
        Secure(running, pki, minimum_version=ssl.TLSVersion.TLSv1_3)


def test_a_silent_client_is_closed_in_time(either: Factory, pki: Pki) -> None:
    running = either(f"http {{ client_header_timeout 300ms; {pki.server('')} }}")
    with running.client() as client:
        assert client.closed()
    with running.client() as client:
        client.send(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        assert client.closed()


def test_rubbish_is_no_crash(either: Factory, pki: Pki) -> None:
    running = either(f"http {{ {pki.server('return 200 ok;')} }}")
    for data in (b"\x16" * 600, b"\x80" + b"\xff" * 300, b"\x16\x03\x01\x00\x05hello" * 20):
        with running.client() as client:
            client.send(data)
            client.half_close()
            client.read_all()
    with Secure(running, pki) as client:
        raw = socket.socket(fileno=client.socket.detach())
        raw.sendall(b"not a record at all")
        raw.close()
    assert ask(running, pki).text == "ok"
    running.allow(r"SSL_read\(\) failed|SSL_do_handshake\(\) failed")


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("listen 127.0.0.1:1 ssl;", 'no "ssl_certificate" is defined for the "listen ... ssl" directive'),
        ("ssl_certificate CERT;", 'no "ssl_certificate_key" is defined for certificate "CERT"'),
        (
            "ssl_certificate /absent; ssl_certificate_key KEY;",
            'cannot load certificate "/absent": BIO_new_file() failed',
        ),
        (
            "ssl_certificate CERT; ssl_certificate_key KEY; ssl_verify_client on;",
            "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
        ),
        ("ssl_session_cache some;", 'invalid session cache "some"'),
        ("ssl_verify_client maybe;", 'invalid value "maybe"'),
        ("ssl_stapling on;", 'directive "ssl_stapling" is known to nginx but not implemented by headgate'),
    ],
)
def test_refused(headgate: Factory, pki: Pki, server: str, message: str) -> None:
    def named(text: str) -> str:
        return text.replace("CERT", str(pki.a.cert)).replace("KEY", str(pki.a.key))

    result = headgate(f"http {{ server {{ {named(server)} }} }}", start=False).check()
    assert result.returncode == 1
    assert named(message) in result.stderr
