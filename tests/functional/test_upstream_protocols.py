"""docs/upstream-protocols.md: its files, as they stand there, run and keep what it promises."""

import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, refused_port
from tests.client import TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]
DOC = (Path(__file__).parents[2] / "docs/upstream-protocols.md").read_text()
FINGER, HERE, REDIS = re.findall(r"```python\n(.*?)```", DOC, re.S)
(CONF,) = re.findall(r"```nginx\n(.*?)```", DOC, re.S)


# Servers


def finger(sock: socket.socket) -> None:
    line = b""
    while not line.endswith(b"\r\n"):
        line += sock.recv(100)
    if line == b"nobody\r\n":
        return
    sock.sendall(b"Login: " + line[:-2] + b"\n" + b"Plan: none.\n" * 10_000)


class RedisServer:
    """GET over a dict; the keys `bad`, `cut`, `more` and `slow` misbehave."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.commands = 0

    def __call__(self, sock: socket.socket) -> None:
        with sock.makefile("rwb", buffering=0) as stream:
            while stream.readline() == b"*2\r\n":
                words = [stream.read(int(stream.readline()[1:]) + 2)[:-2] for _ in range(2)]
                assert words[0] == b"GET"
                self.commands += 1
                key = words[1]
                if key == b"bad":
                    stream.write(b"-ERR unknown\r\n")
                elif key == b"cut":
                    stream.write(b"$10\r\nhalf")
                    return
                elif key == b"more":
                    stream.write(b"$4\r\nmoreover\r\n")
                elif key in self.values:
                    value = self.values[key]
                    wire = b"$%d\r\n%b\r\n" % (len(value), value)
                    step = 1 if key == b"slow" else len(wire)
                    for at in range(0, len(wire), step):
                        stream.write(wire[at : at + step])
                else:
                    stream.write(b"$-1\r\n")


def redis_conf(*servers: str, upstream: str = "", location: str = "") -> str:
    lines = "".join(f"server {server};" for server in servers)
    return f"""
        py_module redis.py;
        http {{
            upstream u {{ {lines} {upstream} }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                error_page 404 /none;
                location /none {{ return 200 "no such key"; }}
                location /v/ {{
                    redis_pass u;
                    {location}
                    add_header X-Addr $upstream_addr always;
                    add_header X-Status $upstream_status always;
                }}
            }}
        }}"""


# The complete example


def test_the_complete_example(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one, two = backend(connection=finger), backend(connection=finger)
    conf = (
        CONF.replace("10.0.0.1", one.address).replace("10.0.0.2", two.address).replace("8080", "127.0.0.1:%%PORT_0%%")
    )
    running = headgate(conf, files={"modules/finger.py": FINGER})
    for _ in range(4):
        reply = running.get("/people/ada")
        assert reply.status == 200 and reply.header("content-type") == "text/plain; charset=utf-8"
        assert reply.text == "Login: ada\n" + "Plan: none.\n" * 10_000
    assert one.connections == two.connections == 2
    reply = running.get("/people/nobody")  # neither server has anything to say
    assert reply.status == 502
    lines = running.matching("upstream prematurely closed connection while reading response header from upstream")
    assert len(lines) == 2
    running.allow("prematurely closed")


def test_a_request_may_name_its_servers(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """The lines of the documentation, with addresses that are here: the first one refuses."""
    imports, call = HERE.rsplit("\n\n", 1)
    peer, other = backend(connection=finger), backend(connection=finger)
    with refused_port() as dead:
        for old, new in {
            'numeric("10.0.0.7", 79)': f'numeric("127.0.0.1", {dead})',
            'numeric("::1", 79)': f'numeric("127.0.0.1", {peer.port})',
        }.items():
            assert old in call
            call = call.replace(old, new)
        protocol = FINGER.replace("from headgate.conf", f"{imports}\nfrom headgate.conf", 1)
        protocol = protocol.replace(
            "    def create_request(self, u):\n", f"    def create_request(self, u):\n        {call}"
        )
        conf = CONF.replace("10.0.0.1", other.address).replace("server 10.0.0.2;", "")
        conf = conf.replace("8080;", "127.0.0.1:%%PORT_0%%; add_header X-Addr $upstream_addr;")
        running = headgate(conf, files={"modules/finger.py": protocol})
        running.allow("Connection refused")
        for _ in range(3):
            reply = running.get("/people/ada")
            assert reply.status == 200 and reply.text.startswith("Login: ada\n")
            assert reply.header("x-addr") == f"127.0.0.1:{dead}, {peer.address}"
    assert (peer.connections, other.connections) == (3, 0)


def test_the_shared_directives_come_with_it(headgate: Factory, backend: Callable[..., Backend]) -> None:
    server = headgate(CONF.replace("5s", "soon"), files={"modules/finger.py": FINGER}, start=False)
    assert '"finger_read_timeout" directive invalid value' in server.check().stderr
    server.configure(CONF.replace("finger_pass people", "finger_pass people:99"))
    assert 'upstream "people" may not have port 99' in server.check().stderr


# The one with a frame


def test_values(headgate: Factory, backend: Callable[..., Backend]) -> None:
    big = bytes(range(256)) * 8192
    redis = RedisServer({b"a": b"one", b"empty": b"", b"big": big, b"slow": b"piece by piece"})
    peer = backend(connection=redis)
    running = headgate(redis_conf(peer.address), files={"redis.py": REDIS})
    reply = running.get("/v/missing")
    assert (reply.status, reply.text) == (404, "no such key")
    for key, value in redis.values.items():  # the last ones come in pieces: a client has all before the end is there
        reply = running.get(f"/v/{key.decode()}")
        assert (reply.status, reply.body) == (200, value)
        assert reply.header("content-length") == str(len(value))
        assert reply.header("x-status") == "200"
        if key in (b"a", b"empty"):
            assert peer.connections == 1
    assert running.request("HEAD", "/v/a").header("content-length") == "3"
    assert redis.commands == len(redis.values) + 2


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("def finalize_request", "def finalize", "upstream protocol Redis must have finalize_request"),
        (
            "def create_request",
            "create_request = None\n\n    def make",
            "upstream protocol Redis must have create_request",
        ),
        ("    PROTOCOL = Redis\n", "", "RedisConf must say its PROTOCOL"),
    ],
)
def test_a_protocol_that_is_not_whole(headgate: Factory, old: str, new: str, error: str) -> None:
    """It is refused when the configuration is read."""
    files = {"redis.py": REDIS.replace(old, new, 1)}
    running = headgate(redis_conf("127.0.0.1:1"), files=files, start=False)
    done = running.check()
    assert done.returncode == 1
    assert f"{error} in {running.prefix}/nginx.conf:" in done.stderr


def test_answers_that_are_none(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=RedisServer({b"a": b"one"}))
    running = headgate(redis_conf(peer.address), files={"redis.py": REDIS})
    assert running.get("/v/bad").status == 502
    assert running.matching(r"upstream sent no bulk string: .* while reading response header from upstream, client")
    for key in ("cut", "more"):
        with pytest.raises(TruncatedError):
            running.get(f"/v/{key}")
        assert running.get("/v/a").text == "one"
    peer.wait_closed(3)
    running.allow("no bulk string", "prematurely closed", "more than the value")


def test_the_next_server_is_asked(headgate: Factory, backend: Callable[..., Backend]) -> None:
    empty, full = backend(connection=RedisServer({})), backend(connection=RedisServer({b"a": b"one"}))
    conf = redis_conf(empty.address, full.address, location="redis_next_upstream http_404;")
    running = headgate(conf, files={"redis.py": REDIS})
    reply = running.get("/v/a")
    assert (reply.text, reply.header("x-addr")) == ("one", f"{empty.address}, {full.address}")
    assert reply.header("x-status") == "404, 200"


# py_module


BROKEN = {
    "a mistake": ("x = 1\ny = z\n", "\"{path}\" failed: NameError: name 'z' is not defined (line 2)"),
    "bad syntax": ("x = = 1\n", '"{path}" failed: SyntaxError: invalid syntax (line 1)'),
    "a known directive": (
        "from headgate.conf.directive import Ctx, command\n@command('root', Ctx.HTTP, '1')\ndef f(call): ...\n",
        '"{path}" declares the directive "root", which is known already',
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file(headgate: Factory, case: str) -> None:
    text, message = BROKEN[case]
    server = headgate("py_module m.py;\nhttp { }\n", files={"m.py": text}, start=False)
    checked = server.check()
    assert checked.returncode == 1
    assert f"[emerg] {message.format(path=server.prefix / 'm.py')} in {server.prefix}/nginx.conf:1\n" in checked.stderr


def test_a_file_that_is_not_there(headgate: Factory) -> None:
    server = headgate("py_module m.py;\nhttp { }\n", start=False)
    message = f'open() "{server.prefix}/m.py" failed (2: No such file or directory) in {server.prefix}/nginx.conf:1'
    assert message in server.check().stderr


def test_too_late(headgate: Factory) -> None:
    server = headgate("http { }\npy_module m.py;\n", files={"m.py": ""}, start=False)
    assert '"py_module" directive is specified too late in' in server.check().stderr


def test_a_reload_runs_the_file_anew(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=finger)
    conf = CONF.replace("10.0.0.1", peer.address).replace("server 10.0.0.2;", "")
    conf = conf.replace("8080", "127.0.0.1:%%PORT_0%%")
    running = headgate(conf, files={"modules/finger.py": FINGER})
    assert running.get("/people/a").text.startswith("Login: a\n")
    running.write("modules/finger.py", FINGER.replace('[2] + b"', '[2].upper() + b"'))
    running.reload()
    assert running.get("/people/a").text.startswith("Login: A\n")
    running.write("modules/finger.py", "broken(")
    running.send_signal(signal.SIGHUP)
    running.expect_log(r'\[emerg\].*finger\.py" failed: SyntaxError')
    assert running.get("/people/a").text.startswith("Login: A\n")
    running.allow("SyntaxError")


def test_a_mistake_in_a_callback_ends_that_request_alone(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(connection=RedisServer({b"a": b"one"}))
    text = REDIS.replace("length = int(text)", "length = int(text) if u.request.args else 1 // 0")
    running = headgate(redis_conf(peer.address), files={"redis.py": text})
    with running.client() as client:
        client.send("GET /v/a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.closed()
    assert running.get("/v/a?x").text == "one"
    assert running.matching(r"\[crit\].*request failed: .*ZeroDivisionError")
    running.allow("ZeroDivisionError")
