"""proxy_bind, proxy_socket_keepalive, proxy_socket_rcvbuf and _sndbuf: the socket to the server; as nginx."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.backends import Backend, read_head
from tests.harness import Server

Factory = Callable[..., Server]


def site(address: str, *locations: str) -> str:
    blocks = "\n".join(f"location /{n} {{ proxy_pass http://{address}; {text} }}" for n, text in enumerate(locations))
    return f"""
        http {{
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                proxy_http_version 1.1;
                proxy_set_header Connection close;
                {blocks}
            }}
        }}"""


class Sources:
    """A raw backend that answers with the address that the connection came from."""

    def __call__(self, sock: socket.socket) -> None:
        read_head(sock)
        host, port = sock.getpeername()[:2]
        body = f"{host} {port}".encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def source(server: Server, location: int, **options: str) -> tuple[str, int]:
    host, port = server.get(f"/{location}?{'&'.join(f'{k}={v}' for k, v in options.items())}").text.split()
    return host, int(port)


def test_addresses(either: Factory, backend: Callable[..., Backend], free_port: int) -> None:
    peer = backend(connection=Sources())
    server = either(
        site(
            peer.address,
            "",
            "proxy_bind 127.0.0.2;",
            f"proxy_bind 127.0.0.3:{free_port};",
            "proxy_bind $arg_a;",
            "proxy_bind $arg_a:$arg_p;",
        )
    )
    assert source(server, 0)[0] == "127.0.0.1"
    assert source(server, 1)[0] == "127.0.0.2"
    assert source(server, 2) == ("127.0.0.3", free_port)
    assert source(server, 3, a="127.0.0.4")[0] == "127.0.0.4"
    assert source(server, 3)[0] == "127.0.0.1", "an empty value is no address"
    assert source(server, 4, a="127.0.0.5", p=str(free_port)) == ("127.0.0.5", free_port)


def test_inheritance(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=Sources())
    conf = site(peer.address, "", "proxy_bind off;", "proxy_bind 127.0.0.3;")
    server = either(conf.replace("listen", "proxy_bind 127.0.0.2; listen", 1))
    assert [source(server, n)[0] for n in range(3)] == ["127.0.0.2", "127.0.0.1", "127.0.0.3"]


def test_what_is_no_address_is_logged_and_left_out(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=Sources())
    server = either(site(peer.address, "proxy_bind $arg_a;"))
    server.allow('invalid local address "nonsense"')
    assert source(server, 0, a="nonsense")[0] == "127.0.0.1"
    server.expect_log(r'\[error\].* invalid local address "nonsense"')


def test_an_address_that_is_not_ours(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=Sources())
    server = either(site(peer.address, "proxy_bind 192.0.2.1;"))
    server.allow(r"\[crit\].* bind\(192.0.2.1\)")
    assert server.get("/0").status == 500
    server.expect_log(r"\[crit\].* bind\(192.0.2.1\) failed \(99: Cannot assign requested address\)")
    assert peer.connections == 0


def test_ipv6(either: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=Sources(), host="::1")
    server = either(site(peer.address, "proxy_bind ::1;"))
    assert source(server, 0)[0] == "::1"


def test_many_connections_share_a_port_range(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """Without a port the kernel chooses one for each pair of addresses (IP_BIND_ADDRESS_NO_PORT)."""
    peers = [backend(connection=Sources()) for _ in range(2)]
    server = headgate(
        f"""
        http {{
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                proxy_bind 127.0.0.2;
                location /0 {{ proxy_pass http://{peers[0].address}; }}
                location /1 {{ proxy_pass http://{peers[1].address}; }}
            }}
        }}"""
    )
    for _ in range(20):
        assert source(server, 0)[0] == source(server, 1)[0] == "127.0.0.2"


@contextmanager
def unprivileged() -> Iterator[list[str]]:
    """A command prefix that takes the super-user's rights away."""
    if os.geteuid() != 0:
        yield []
    elif (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("no setpriv")
    else:
        yield [setpriv, "--reuid=65534", "--clear-groups"]


def test_transparent_is_refused_where_it_is_not_permitted(headgate: Factory) -> None:
    server = headgate(site("127.0.0.1:1", "proxy_bind 127.0.0.2 transparent;"), start=False)
    for path in (server.prefix, *server.prefix.parents):
        if "pytest" in str(path):
            path.chmod(0o777 if path == server.prefix else 0o755)
    (server.prefix / "logs").chmod(0o777)
    with unprivileged() as prefix:
        argv = [*prefix, *server.argv("-t")]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    wanted = (
        '"proxy_bind ... transparent" is not permitted: setsockopt(IP_TRANSPARENT) failed '
        "(1: Operation not permitted), it needs the super-user or CAP_NET_RAW in "
    )
    assert wanted in result.stderr


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_transparent(either: Factory, backend: Callable[..., Backend], user: str) -> None:
    """Also for workers that are not the super-user; of the rights they keep this one alone."""
    if os.geteuid() != 0:
        pytest.skip("only the super-user may")
    peer = backend(connection=Sources())
    group = "root" if user == "root" else "nogroup"
    server = either(site(peer.address, "proxy_bind 127.0.0.2 transparent;") + f"\nuser {user} {group};\n")
    assert source(server, 0)[0] == "127.0.0.2"
    (worker,) = server.workers()
    text = Path(f"/proc/{worker}/status").read_text()
    status = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
    if user == "nobody":
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 13


def sockets(server: Server) -> list[str]:
    """`ss` lines of the workers' connections, with timers and memory."""
    result = subprocess.run(["ss", "-tnopmH"], capture_output=True, text=True, check=True)
    pids = [f"pid={pid}," for pid in server.workers()]
    return [line for line in result.stdout.replace("\n\t", " ").splitlines() if any(pid in line for pid in pids)]


class Held:
    """A raw backend that answers when told to."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def __call__(self, sock: socket.socket) -> None:
        sock.recv(65536)
        self.asked.set()
        self.release.wait(10)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss")
@pytest.mark.parametrize("value", ["on", "off"])
def test_socket_keepalive(either: Factory, backend: Callable[..., Backend], value: str) -> None:
    held = Held()
    peer = backend(connection=held)
    server = either(site(peer.address, f"proxy_socket_keepalive {value};"))
    with server.client() as client:
        client.send(b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.asked.wait(10)
        (line,) = [line for line in sockets(server) if f":{peer.port} " in line]
        assert ("timer:(keepalive," in line) is (value == "on")
        held.release.set()
        assert client.response().text == "ok"


@pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss")
def test_socket_buffers(headgate: Factory, backend: Callable[..., Backend]) -> None:
    held = Held()
    peer = backend(connection=held)
    server = headgate(site(peer.address, "proxy_socket_rcvbuf 20k; proxy_socket_sndbuf 30k;"))
    with server.client() as client:
        client.send(b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert held.asked.wait(10)
        (line,) = [line for line in sockets(server) if f":{peer.port} " in line]
        assert f"rb{2 * 20480}," in line and f"tb{2 * 30720}," in line  # the kernel doubles them
        held.release.set()
        client.response()


@pytest.mark.parametrize(
    "directive",
    [
        "proxy_bind foo;",
        "proxy_bind 127.0.0.1 bar;",
        "proxy_bind off x;",
        "proxy_bind 127.0.0.1:99999;",
        "proxy_bind 127.0.0.1:0;",
        "proxy_bind [::1];",
        "proxy_bind unix:/tmp/x;",
        "proxy_bind localhost;",
        'proxy_bind "";',
        "proxy_bind off transparent;",
        "proxy_bind 1.2.3;",
        "proxy_socket_keepalive x;",
        "proxy_bind off; proxy_bind off;",
    ],
)
def test_nginx_refuses_it_in_the_same_words(headgate: Factory, nginx: Factory, directive: str) -> None:
    said = []
    for factory in (nginx, headgate):
        server = factory(site("127.0.0.1:1", directive), start=False)
        result = server.check()
        assert result.returncode == 1
        said.append(result.stderr.split("[emerg] ")[1].split(" in /")[0])
    assert said[0] == said[1]
