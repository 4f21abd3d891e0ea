"""sticky cookie, route and learn; route= and drain of a server: requests of a client stay where they are."""

import hashlib
import re
import signal
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests import balancing
from tests.backends import Backend, Reply, Request, refused_port
from tests.harness import Server, until

Factory = Callable[..., Server]
Backends = Callable[..., Backend]
SERVERS = "server {a}; server {b}; server {c};"


def sid(backend: Backend) -> str:
    """What a peer is called in a cookie, unless a route names it."""
    return hashlib.md5(backend.address.encode()).hexdigest()


def with_cookie(server: Server, target: str, value: str, name: str = "srv") -> str:
    return server.get(target, [("Cookie", f"{name}={value}")]).text


def test_a_cookie_keeps_a_client_with_its_server_in_every_worker(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    server = headgate(balancing.config(peers, {"u": SERVERS + "sticky cookie srv;"}, workers=3))
    for _ in range(4):
        reply = server.get("/u/")
        (cookie,) = reply.all("set-cookie")
        assert cookie == f"srv={sid(peers[reply.text])}"
        assert {with_cookie(server, "/u/", cookie[4:]) for _ in range(6)} == {reply.text}
    assert len({with_cookie(server, "/u/", "unknown") for _ in range(9)}) == 3, "no server is called so"


def test_a_cookie_has_its_attributes_in_nginx_s_order(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "a")
    blocks = {
        "all": "server {a}; sticky cookie srv expires=1h domain=.example.com httponly secure samesite=Lax path=/x;",
        "max": "server {a}; sticky cookie srv expires=max;",
        "vars": "server {a}; sticky cookie srv domain=$arg_d samesite=$arg_s path=$uri;",
    }
    server = headgate(balancing.config(peers, blocks))
    name = sid(peers["a"])
    cookie = server.get("/all/").header("set-cookie") or ""
    match = re.fullmatch(
        rf"srv={name}; expires=(\w{{3}}, \d\d-\w{{3}}-\d\d \d\d:\d\d:\d\d GMT); max-age=3600; domain=\.example\.com; "
        "httponly; secure; samesite=Lax; path=/x",
        cookie,
    )
    assert match
    date = server.get("/all/").header("date")
    assert date
    ahead = parsedate_to_datetime(match[1].replace("-", " ")) - parsedate_to_datetime(date)
    assert abs(ahead.total_seconds() - 3600) <= 2
    forever = f"srv={name}; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000"
    assert server.get("/max/").header("set-cookie") == forever
    assert server.get("/vars/?d=a.example&s=none").header("set-cookie") == (
        f"srv={name}; domain=a.example; samesite=none; path=$uri"
    ), "the path is no text with variables"
    assert server.get("/vars/?s=bad").header("set-cookie") == f"srv={name}; samesite=strict; path=$uri"


def test_the_cookie_stands_beside_those_of_the_server(headgate: Factory, backend: Backends) -> None:
    own = backend(lambda request: Reply(headers=[("Set-Cookie", "own=1")], body=b"x"))
    server = headgate(balancing.config({"a": own}, {"u": "server {a}; sticky cookie srv;"}))
    assert server.get("/u/").all("set-cookie") == [f"srv={sid(own)}", "own=1"]


def test_a_route_names_a_server(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    block = "server {a} route=one; server {b} route=two; server {c}; sticky route $cookie_r $arg_r;"
    server = headgate(balancing.config(peers, {"u": block}))
    assert balancing.names(server, ["/u/?r=one"] * 4 + ["/u/?r=two"] * 4) == "aaaabbbb"
    assert {with_cookie(server, "/u/?r=one", "two", "r") for _ in range(3)} == {"b"}, "the first variable counts"
    assert balancing.names(server, [f"/u/?r={sid(peers['c'])}"] * 3) == "ccc"
    assert len(set(balancing.names(server, ["/u/?r=none"] * 6))) == 3
    assert "set-cookie" not in {name.lower() for name, _ in server.get("/u/").headers}


@pytest.mark.parametrize("method", ["", "least_conn;", "ip_hash;", "hash a;", "hash a consistent;", "random;",
                                    "random two;", "least_time header;", "peak_ewma;"])  # fmt: skip
def test_stickiness_goes_before_every_method(headgate: Factory, backend: Backends, method: str) -> None:
    peers = balancing.make(backend)
    names = "server {a} route=a; server {b} route=b; server {c} route=c max_conns=1;"
    server = headgate(balancing.config(peers, {"u": f"{method} {names} sticky route $arg_r;"}, workers=2))
    for name in "abc":
        assert balancing.names(server, [f"/u/?r={name}"] * 4) == name * 4
    held = balancing.start(server, "/u/hold?r=c")
    peers["c"].wait_requests(5)
    assert balancing.names(server, ["/u/?r=c"])[0] in "ab", "it has no room"
    peers["c"].release.set()
    held.response()


def test_where_the_wanted_server_fails_another_one_serves_and_is_told(headgate: Factory, backend: Backends) -> None:
    peers: dict[str, Any] = balancing.make(backend, "b")
    with refused_port() as x:
        peers["x"] = f"127.0.0.1:{x}"
        server = headgate(balancing.config(peers, {"u": "server {x} max_fails=0; server {b}; sticky cookie srv;"}))
        server.allow(r"connect\(\) failed")
        dead = hashlib.md5(f"127.0.0.1:{x}".encode()).hexdigest()
        reply = server.get("/u/", [("Cookie", f"srv={dead}")])
        assert reply.header("x-addr") == f"127.0.0.1:{x}, {peers['b'].address}"
        assert reply.all("set-cookie") == [f"srv={sid(peers['b'])}"], "the cookie of the one that failed is gone"


def test_a_server_that_drains_keeps_its_clients_over_reloads(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend)
    block = "server {a} route=a; server {b} route=b; sticky route $arg_r;"
    server = headgate(balancing.config(peers, {"u": block}, workers=2))
    server.reload(balancing.config(peers, {"u": block.replace("route=a", "route=a drain")}, workers=2))
    assert balancing.names(server, ["/u/"] * 6) == "bbbbbb"
    assert balancing.names(server, ["/u/?r=a"] * 4) == "aaaa"
    server.reload(balancing.config(peers, {"u": block.replace("route=a", "route=a down")}, workers=2))
    assert balancing.names(server, ["/u/?r=a"] * 2) == "bb"
    server.reload(balancing.config(peers, {"u": block}, workers=2))
    assert set(balancing.names(server, ["/u/"] * 4)) == {"a", "b"}


# learn

LEARN = "sticky learn create=$upstream_cookie_session lookup=$cookie_session zone=s:64k"


def sessions(backend: Backends, names: str = "abc") -> dict[str, Backend]:
    """Backends that begin the session that ?new= names."""

    def make(name: str) -> Backend:
        def answer(request: Request) -> Reply:
            new = re.search(r"new=(\w+)", request.target)
            return Reply(headers=[("Set-Cookie", f"session={new[1]}")] if new else [], body=name.encode())

        return backend(answer)

    return {name: make(name) for name in names}


def test_sessions_are_learned_by_all_workers_and_kept_by_reloads(headgate: Factory, backend: Backends) -> None:
    peers = sessions(backend)
    conf = balancing.config(peers, {"u": SERVERS + LEARN + ";"}, workers=3)
    server = headgate(conf)
    begun = {f"s{n}": server.get(f"/u/?new=s{n}").text for n in range(6)}
    assert len(set(begun.values())) == 3

    def kept() -> bool:
        return all(with_cookie(server, "/u/", session, "session") == name for session, name in begun.items())

    assert all(kept() for _ in range(3))
    server.reload(conf.replace("worker_processes 3", "worker_processes 2"))
    assert kept()
    # A server more: those that stay keep their sessions.
    server.reload(conf.replace("sticky learn", "server 127.0.0.1:1 backup; sticky learn"))
    assert kept()


def test_a_session_is_forgotten_when_it_is_not_used(headgate: Factory, backend: Backends) -> None:
    peers = sessions(backend, "ab")
    block = f"server {{a}}; server {{b}}; {LEARN} timeout=1s;"
    server = headgate(balancing.config(peers, {"u": block}))
    name = server.get("/u/?new=one").text
    assert [with_cookie(server, "/u/", "one", "session") for _ in range(3)] == [name] * 3
    other = {"a": "b", "b": "a"}[name]

    def served_by_other() -> bool:
        time.sleep(1.1)  # the timeout; every request in it would make it begin anew
        return with_cookie(server, "/u/", "one", "session") == other

    until(served_by_other, "the session is forgotten, and round robin gives the other server sooner or later")


def test_header_learns_before_the_body_is_there(headgate: Factory, backend: Backends) -> None:
    gate = threading.Event()

    def answer(request: Request) -> Any:
        def wire() -> Any:
            data = Reply(headers=[("Set-Cookie", "session=long")], body=b"long").encode(request)
            yield data[:-1]
            assert gate.wait(20)
            yield data[-1:]

        return wire() if "new" in request.target else Reply(body=b"a")

    peers = {"a": backend(answer), "b": balancing.held(backend, "b")}
    blocks = {
        "late": f"server {{a}}; server {{b}}; {LEARN.replace('zone=s', 'zone=late')};",
        "early": f"server {{a}}; server {{b}}; {LEARN.replace('zone=s', 'zone=early')} header;",
    }
    server = headgate(balancing.config(peers, blocks))
    for name, served in (("early", {"a"}), ("late", {"a", "b"})):
        client = balancing.start(server, f"/{name}/?new")
        client.read_until(b"\r\n\r\n")
        assert {with_cookie(server, f"/{name}/", "long", "session") for _ in range(4)} == served
    gate.set()


def test_when_the_zone_is_full_the_oldest_session_makes_room(headgate: Factory, backend: Backends) -> None:
    peers = sessions(backend, "ab")
    server = headgate(balancing.config(peers, {"u": f"server {{a}}; server {{b}}; {LEARN.replace('64k', '32k')};"}))
    with server.client() as client:
        for n in range(300):
            assert client.get(f"/u/?new=s{n}").status == 200
    (line, *_) = server.expect_log("expiring least recently used session")
    assert "[warn]" in line
    assert 'could not allocate node in sticky session zone "s", expiring' in line


def test_a_zone_that_changes_its_upstream_is_refused_by_a_reload(headgate: Factory, backend: Backends) -> None:
    peers = sessions(backend, "a")
    conf = balancing.config(peers, {"u": f"server {{a}}; {LEARN};"})
    server = headgate(conf)
    server.configure(conf.replace("upstream u ", "upstream v ").replace("http://u/", "http://v/"))
    server.send_signal(signal.SIGHUP)
    server.allow("sticky zone")
    server.expect_log(
        r'\[emerg\] .*sticky zone "s" is used in upstream "v" while previously it was used in upstream "u"'
    )
    assert server.get("/u/").text == "a"
