"""Certificates that headgate shows to upstream servers: files, `data:`, variables, passwords, the cache; refusals."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import echo
from tests.harness import Server
from tests.tls import Authority, Leaf, TlsBackend

Factory = Callable[..., Server]


@pytest.fixture(params=["headgate", "nginx"])
def either(request: pytest.FixtureRequest) -> Factory:
    """headgate, and nginx with the same configuration."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


class Pki:
    """An authority, a server's certificate, and clients' ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = Authority("root")
        self.ca = self.root.write(path / "ca.crt")
        self.leaf = self.root.issue("localhost", path)
        self.one = self.root.issue("one", path)
        self.two = self.root.issue("two", path)
        self.locked = self.root.issue("locked", path, password=b"secret")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def asking(pki: Pki) -> Iterator[TlsBackend]:
    """A server that wants to see a certificate, and takes none for an answer."""
    context = pki.leaf.server(verify_mode=ssl.CERT_OPTIONAL)
    context.load_verify_locations(pki.ca)
    server = TlsBackend(echo, context)
    yield server
    server.stop()
    assert not server.errors


def conf(*locations: str, http: str = "") -> str:
    # nginx would resume the session of another client, headgate does not
    http = f"proxy_ssl_session_reuse off; {http}"
    return f"http {{ {http} server {{ listen 127.0.0.1:%%PORT_0%%; {' '.join(locations)} }} }}"


def pair(leaf: Leaf) -> str:
    return f"proxy_ssl_certificate {leaf.cert}; proxy_ssl_certificate_key {leaf.key};"


def test_files_and_passwords(either: Factory, pki: Pki, asking: TlsBackend, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("wrong\nsecret\n")
    running = either(
        conf(
            f"location /none {{ proxy_pass https://{asking.address}; }}",
            f"location /one {{ proxy_pass https://{asking.address}; {pair(pki.one)} }}",
            f"location /locked {{ proxy_pass https://{asking.address}; {pair(pki.locked)}"
            f" proxy_ssl_password_file {passwords}; }}",
            f"location /in {{ {pair(pki.two)} location /in/herited {{ proxy_pass https://{asking.address}; }} }}",
        )
    )
    for target in ("/none", "/one", "/locked", "/in/herited"):
        assert running.get(target).status == 200
    assert [shake.client for shake in asking.handshakes] == [None, "one", "locked", "two"]


def test_an_empty_name_is_no_certificate(headgate: Factory, pki: Pki, asking: TlsBackend) -> None:
    running = headgate(
        conf(
            f'location /empty {{ proxy_pass https://{asking.address}; proxy_ssl_certificate ""; }}',
            f"location / {{ proxy_pass https://{asking.address}; }}",
            http=pair(pki.one),
        )
    )
    assert running.get("/empty").status == running.get("/").status == 200
    assert [shake.client for shake in asking.handshakes] == [None, "one"]


def test_names_with_variables(either: Factory, pki: Pki, asking: TlsBackend) -> None:
    running = either(
        conf(
            f"location / {{ proxy_pass https://{asking.address}; proxy_ssl_certificate $cert;"
            f" proxy_ssl_certificate_key {pki.path}/$arg_c.key; }}",
            http=f"map $arg_c $cert {{ default {pki.path}/$arg_c.crt; '' ''; }}",
        )
    )
    for target in ("/?c=one", "/?c=two", "/", "/?c=one"):
        assert running.get(target).status == 200
    assert [shake.client for shake in asking.handshakes] == ["one", "two", None, "one"]
    assert running.get("/?c=absent").status == 500
    running.expect_log(
        r'cannot load certificate "\S+/absent.crt": BIO_new_file\(\) failed \(SSL: error:80000002:system'
    )
    assert running.get("/?c=locked").status == 500
    running.expect_log(r'cannot load certificate key "\S+/locked.key": PEM_read_bio_PrivateKey\(\) failed \(SSL: ')
    running.allow("cannot load")


def test_the_text_itself(headgate: Factory, pki: Pki, asking: TlsBackend) -> None:
    text = {name: path.read_text() for name, path in (("cert", pki.one.cert), ("key", pki.one.key))}
    running = headgate(
        conf(
            f"location / {{ proxy_pass https://{asking.address}; proxy_ssl_certificate data:$cert;"
            " proxy_ssl_certificate_key data:$key; }",
            http="".join(f"map '' ${name} {{ default '{value}'; }}" for name, value in text.items()),
        )
    )
    assert running.get("/").status == 200
    assert [shake.client for shake in asking.handshakes] == ["one"]


def test_the_cache_keeps_what_was_read(headgate: Factory, pki: Pki, asking: TlsBackend) -> None:
    def location(name: str, cache: str) -> str:
        return (
            f"location /{name} {{ proxy_pass https://{asking.address}; {cache}"
            f" proxy_ssl_certificate {pki.path}/$arg_c.crt; proxy_ssl_certificate_key {pki.path}/$arg_c.key; }}"
        )

    running = headgate(conf(location("kept", "proxy_ssl_certificate_cache max=2;"), location("read", "")))
    assert running.get("/kept?c=one").status == running.get("/read?c=one").status == 200
    pki.one.cert.write_bytes(pki.two.cert.read_bytes())
    pki.one.key.write_bytes(pki.two.key.read_bytes())
    assert running.get("/kept?c=one").status == running.get("/read?c=one").status == 200
    assert running.get("/kept?c=two").status == 200  # another pair, and there is room for one
    assert running.get("/kept?c=one").status == 200
    assert [shake.client for shake in asking.handshakes] == ["one", "one", "one", "two", "two", "two"]


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ("proxy_ssl_verify on;", "no proxy_ssl_trusted_certificate for proxy_ssl_verify"),
        (
            "proxy_ssl_certificate ONE.crt;",
            'no "proxy_ssl_certificate_key" is defined for certificate "ONE.crt"',
        ),
        (
            "proxy_ssl_certificate ONE.crt; proxy_ssl_certificate_key /absent;",
            'cannot load certificate key "/absent": BIO_new_file() failed (SSL: error:80000002:system library::No such',
        ),
        (
            "proxy_ssl_certificate ONE.key; proxy_ssl_certificate_key ONE.key;",
            'cannot load certificate "ONE.key": PEM_read_bio_X509_AUX() failed (SSL: ',
        ),
        (
            "proxy_ssl_certificate ONE.crt; proxy_ssl_certificate_key TWO.key;",
            'SSL_CTX_use_PrivateKey("TWO.key") failed (SSL: error:05800074:x509 certificate',
        ),
        (
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate /absent;",
            'cannot load certificate "/absent": BIO_new_file() failed (SSL: error:80000002:system library::No',
        ),
        (
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate ONE.crt; proxy_ssl_crl ONE.key;",
            'cannot load CRL "ONE.key": PEM_read_bio_X509_CRL() failed (SSL: ',
        ),
        ("proxy_ssl_ciphers NOTHING;", 'SSL_CTX_set_cipher_list("NOTHING") failed (SSL: '),
        ("proxy_ssl_protocols TLSv9;", 'invalid value "TLSv9"'),
        ("proxy_ssl_conf_command NoSuch x;", 'SSL_CONF_cmd("NoSuch", "x") failed (SSL: '),
        ("proxy_ssl_certificate_cache inactive=1;", '"proxy_ssl_certificate_cache" must have the "max" parameter'),
        ("proxy_ssl_certificate_cache max=0;", 'invalid parameter "max=0"'),
        ("proxy_ssl_password_file /absent;", 'open() "/absent" failed (2: No such file or directory)'),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(headgate: Factory, pki: Pki, directives: str, message: str) -> None:
    def named(text: str) -> str:
        return text.replace("ONE", str(pki.path / "one")).replace("TWO", str(pki.path / "two"))

    text = conf(f"\nlocation / {{ proxy_pass https://127.0.0.1;\n{named(directives)}\n}}")
    result = headgate(text, start=False).check()
    assert result.returncode == 1
    assert named(message) in result.stderr
    assert ".conf:2" in result.stderr or ".conf:3" in result.stderr


def test_without_https_nothing_is_loaded(headgate: Factory) -> None:
    result = headgate(conf("location / { proxy_pass http://127.0.0.1; }", http="proxy_ssl_verify on;"), start=False)
    assert result.check().returncode == 0
