"""py_balancer: the example of docs/balancing.md runs; what cannot be loaded is told when the configuration is read."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from headgate.conf.build import load
from headgate.conf.errors import ConfError

from tests import balancing
from tests.backends import Backend
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]
DOC = (Path(__file__).parents[2] / "docs/balancing.md").read_text()
(SPARING,) = re.findall(r"```python\n(.*?)```", DOC, re.S)
NOTED = '''
class Noted:
    """Round robin that tells what it hears, in a header of the request's own."""

    notifies = True

    def __init__(self, peers):
        self.peers = peers

    def init(self, request):
        return Choice(self.peers, request)


class Choice:
    def __init__(self, peers, request):
        self.peers, self.request, self.heard = peers, request, []

    def get(self, tried, now=-1, hint=-1, spare=-1):
        return self.peers.pick(tried, now, hint, spare)

    def free(self, index, state):
        self.heard.append(f"free {state}")
        if state:
            self.request.fields.append((b"X-Failed", b"%d" % index))
        return self.peers.free(index, state)

    def notify(self, index, event):
        assert self.request.upstream.attempt.header_time is not None
        self.request.fields.append((b"X-Notified", f"{event} {index}".encode()))
'''


def test_the_documented_example_is_no_longer_than_it_says() -> None:
    assert len([line for line in SPARING.splitlines() if line.strip()]) <= 15


def test_the_documented_example_fills_the_first_peers_first(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "abc")
    block = "py_balancer sparing.py:Sparing 2; server {a}; server {b} down; server {c};"
    server = headgate(balancing.config(peers, {"u": block}, workers=2), files={"sparing.py": SPARING})
    held = []
    for n in range(6):
        held.append(balancing.start(server, "/u/hold"))
        until(lambda n=n: sum(len(peer.requests) for peer in peers.values()) == n + 1, "it is held")
    got = Counter({name: len(peer.requests) for name, peer in peers.items()})
    assert got["b"] == 0
    assert (got["a"] >= 2, got["c"] >= 2) == (True, True)
    for peer in peers.values():
        peer.release.set()
    assert "".join(client.response().text for client in held[:4]) == "aacc"
    assert [client.response().status for client in held[4:]] == [200, 200]
    assert balancing.names(server, ["/u/"] * 5) == "aaaaa"


def test_a_class_may_make_an_object_for_each_request(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    address = peers["a"].address
    peers["a"].stop()
    block = "py_balancer conf/noted.py:Noted; server {a} max_fails=0; server {b}; sticky route $arg_r; queue 5;"
    conf = balancing.config({"a": address, "b": peers["b"]}, {"u": block})
    server = headgate(conf, files={"conf/noted.py": NOTED})
    server.allow(r"connect\(\) failed")
    reply = server.get("/u/")
    assert reply.text == "b"
    assert (reply.header("x-failed"), reply.header("x-notified")) == ("0", "header 1")


def test_a_reload_takes_the_file_as_it_is_now(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    block = "py_balancer one.py:Sparing 100; server {a}; server {b};"
    server = headgate(balancing.config(peers, {"u": block}), files={"one.py": SPARING})
    assert balancing.names(server, ["/u/"] * 3) == "aaa"
    server.write("one.py", SPARING.replace("range(len(self.peers))", "range(1, 2)"))
    server.reload()
    assert balancing.names(server, ["/u/"] * 3) == "bbb"
    server.write("one.py", "class Sparing: pass")
    server.allow("is no balancer")
    result = server.check()
    assert '[emerg] class "Sparing" is no balancer: it has no method "init" in ' in result.stderr
    assert balancing.names(server, ["/u/"] * 2) == "bb"


FAILING = """
class Failing:
    notifies = True

    def __init__(self, peers, how):
        self.peers, self.how = peers, how

    def init(self, request):
        return self.fails("init", self)

    def get(self, tried, now=-1, hint=-1, spare=-1):
        if self.how == "untaken":
            return 0
        if self.how == "strange":
            return "a"
        return self.fails("get", self.peers.pick(tried))

    def free(self, index, state):
        if self.how == "keeps":
            return 0
        disabled = self.peers.free(index, state)
        return self.fails("free", disabled)

    def notify(self, index, event):
        self.fails("notify", None)

    def fails(self, where, result):
        if where == self.how:
            raise ValueError("in " + where)
        if "exit-" + where == self.how:
            raise SystemExit("in " + where)
        return result
"""


@pytest.mark.parametrize(
    "how",
    [
        "init",
        "get",
        "free",
        "notify",
        "exit-init",
        "exit-get",
        "exit-free",
        "exit-notify",
        "untaken",
        "strange",
        "keeps",
    ],
)
def test_a_mistake_costs_no_request_and_no_count(headgate: Factory, backend: Backends, how: str) -> None:
    peers = balancing.make(backend, "ab")
    block = f"py_balancer failing.py:Failing {how}; server {{a}} max_conns=2; server {{b}} max_conns=2; queue 3;"
    conf = balancing.config(peers, {"u": block}, server="location = /status { upstream_status; }")
    server = headgate(conf, files={"failing.py": FAILING})
    server.allow('balancer "Failing" failed')
    assert set(balancing.names(server, ["/u/"] * 6)) == {"a", "b"}
    lines = server.matching(r'\[error\].* balancer "Failing" failed: .*, client: .*request: "GET /u/')
    assert len(lines) == (0 if how == "keeps" else 6)
    if how in ("init", "free", "notify"):
        assert all(f"ValueError: in {how}" in line for line in lines)
    left = [peer["active"] for peer in json.loads(server.get("/status").body)["u"]["peers"]]
    assert left == [0, 0]


FILE = """
class Raises:
    def __init__(self, peers): raise ValueError("no")
    def init(self, request): return self

class Strange:
    def init(self, request, more): return self

class Short:
    def init(self, request): return self
    def get(self): return -1

class Nothing: pass

number = 1
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("my.py:Raises", 'balancer "Raises" cannot be made: ValueError: no'),
        ("my.py:Raises 1 2", 'balancer "Raises" cannot be made: TypeError: '),
        ("my.py:Strange", '"init" of class "Strange" cannot be called: missing a required argument: \'more\''),
        ("my.py:Short", '"get" of class "Short" cannot be called: too many positional arguments'),
        ("my.py:Nothing", 'class "Nothing" is no balancer: it has no method "init"'),
        ("my.py:Missing", 'there is no class "Missing" in "my.py"'),
        ("my.py:number", 'there is no class "number" in "my.py"'),
        ("missing.py:Some", 'open() "{}/missing.py" failed (2: No such file or directory)'),
        ("broken.py:Some", '"{}/broken.py" failed: SyntaxError: '),
        ("no.such.module.Some", 'cannot import "no.such.module": ModuleNotFoundError: '),
        ("json.decoder.JSONDecoder", 'class "JSONDecoder" is no balancer: it has no method "init"'),
        ("Some", '"Some" names no class: FILE.py:Class or package.module.Class is expected'),
    ],
)
def test_what_cannot_be_loaded_is_told(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "my.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("class\n")
    path = tmp_path / "nginx.conf"
    path.write_text(f"events {{}} http {{ upstream u {{\npy_balancer {name}; server 127.0.0.1:1; }} }}")
    with pytest.raises(ConfError) as error:
        load(str(path), str(tmp_path))
    assert error.value.reason.startswith(told.format(tmp_path))
    assert str(error.value).endswith("nginx.conf:2")
