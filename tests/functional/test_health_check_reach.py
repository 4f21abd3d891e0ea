"""health_check over TLS, to Unix-domain sockets, of servers that come and go; beside outlier ejection's panic."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, Reply, named
from tests.dns_server import NameServer
from tests.harness import Server, until
from tests.tls import Authority, TlsBackend

Factory = Callable[..., Server]
Backends = Callable[..., Backend]


def conf(upstream: str, location: str, http: str = "") -> str:
    return (
        f"worker_processes 2;\nhttp {{ {http} upstream u {{ {upstream} }}\n"
        f"server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ {location} }} }} }}"
    )


@pytest.mark.parametrize("name, good", [("backend.example", True), ("other.example", False)])
def test_tls(headgate: Factory, tmp_path: Path, name: str, good: bool) -> None:
    ca = Authority("root")
    ca.write(tmp_path / "ca.crt")
    secure = TlsBackend(named("a"), ca.issue("backend.example", tmp_path).server())
    try:
        tls = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {tmp_path}/ca.crt; proxy_ssl_server_name on;"
        check = f"proxy_pass https://u; proxy_ssl_name {name}; {tls} health_check mandatory interval=50ms;"
        server = headgate(conf(f"server {secure.address};", check))
        if good:
            server.expect_log("peer is healthy")
            assert server.get("/").text == "a"
            assert secure.handshakes[0].sni == name
        else:
            reason = r'SSL handshaking to upstream \(certificate does not match "other.example"\)'
            server.expect_log(f"peer is unhealthy while {reason}")
    finally:
        secure.stop()


def test_a_tls_server_that_nobody_trusts(headgate: Factory, tmp_path: Path) -> None:
    Authority("other").write(tmp_path / "ca.crt")
    secure = TlsBackend(named("a"), Authority("root").issue("backend.example", tmp_path).server())
    try:
        tls = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {tmp_path}/ca.crt;"
        server = headgate(conf(f"server {secure.address};", f"proxy_pass https://u; {tls} health_check interval=50ms;"))
        server.expect_log(r"peer is unhealthy while SSL handshaking to upstream \(CERTIFICATE_VERIFY_FAILED\)")
    finally:
        secure.stop()


def test_a_name_with_variables_is_refused(headgate: Factory) -> None:
    text = conf("server 127.0.0.1:1;", "proxy_pass https://u; proxy_ssl_name $host; health_check;")
    assert 'cannot be used with variables in "proxy_ssl_name"' in headgate(text, start=False).check().stderr


def test_a_unix_domain_socket(headgate: Factory, backend: Backends, tmp_path: Path) -> None:
    one = backend(named("a"), unix=str(tmp_path / "a"))
    server = headgate(conf(f"server unix:{tmp_path}/a;", "proxy_pass http://u; health_check mandatory interval=50ms;"))
    server.expect_log("peer is healthy")
    assert server.get("/").text == "a"
    one.stop()
    server.expect_log("peer is unhealthy while connecting to upstream")


def test_servers_that_are_resolved_at_run_time(headgate: Factory, backend: Backends) -> None:
    names = NameServer(ttl=1)
    try:
        one = backend(lambda request: Reply(body=b"a"))
        names.records["app.test"] = ["127.0.0.1"]
        http = f"resolver {names.address} ipv6=off valid=1s;"
        upstream = f"zone z 1m; server app.test:{one.port} resolve;"
        server = headgate(conf(upstream, "proxy_pass http://u; health_check mandatory interval=50ms;", http))
        server.allow("no live upstreams")
        server.expect_log(rf'peer is healthy, health check "" of peer {re.escape(one.address)} in upstream "u"')
        until(lambda: server.get("/").text == "a", "an answer")
        names.records["app.test"] = ["127.0.0.9"]
        server.expect_log(rf'peer is unhealthy .* of peer 127.0.0.9:{one.port} in upstream "u"')
    finally:
        names.stop()
