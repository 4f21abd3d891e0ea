"""Balancing on nginx and on headgate: the same requests go to the same servers, in the same order, or as often."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests import balancing
from tests.backends import Backend, refused_port
from tests.client import Client, build
from tests.harness import Server

Factory = Callable[..., Server]

UPSTREAMS = {
    "rr": "server {a} weight=5; server {b}; server {c};",
    "backup": "server {x}; server {y} max_fails=0; server {a} backup; server {b} backup weight=2;",
    "fails": "server {x} weight=3 max_fails=3; server {a}; server {b} weight=2;",
    "down": "server {a} down; server {b} weight=2; server {c};",
    "least": "least_conn; server {a} weight=2; server {b}; server {c} weight=3;",
    "least_limit": "least_conn; server {a} max_conns=1; server {b} max_conns=2; server {c} backup;",
    "ip": "ip_hash; server {a}; server {b} weight=3; server {c}; server {d} down;",
    "ip_fails": "ip_hash; server {a}; server {x} max_fails=0; server {c};",
    "hash": "hash $arg_k; server {a} weight=2; server {b}; server {c}; server {d};",
    "hash_fails": "hash $arg_k; server {a}; server {x}; server {c} down; server {d};",
    "hash_limit": "hash $arg_k; server {a} max_conns=1; server {b}; server {c};",
    "ring": "hash $arg_k consistent; server {a}; server {b}; server {c} weight=3; server {d};",
    "ring_fails": "hash $arg_k consistent; server {a}; server {x}; server {y} max_fails=0; server {d};",
    "ring_limit": "hash $uri$arg_k consistent; server {a} max_conns=1; server {b}; server {c};",
    "ring_name": "hash $arg_k consistent; server localhost:%%PORT_9%% down; server {b}; server {c};",
}
KEYS = [*"abcdefghijklmnopqrstuvwxyz", *(f"/path/{n}" for n in range(60)), "", "0", "%00", "é"]


@pytest.fixture
def both(headgate: Factory, nginx: Factory, backend: Callable[..., Backend]) -> Any:
    """A function that runs the same on each, and a dict of the backends that they share."""
    peers: dict[str, Any] = balancing.make(backend)
    with refused_port() as x, refused_port() as y:
        text = balancing.config(
            {**peers, "x": f"127.0.0.1:{x}", "y": f"127.0.0.1:{y}"},
            UPSTREAMS,
            http="proxy_connect_timeout 2s; set_real_ip_from 127.0.0.1;",
        )
        servers = [factory(text) for factory in (nginx, headgate)]
        for server in servers:
            server.allow(r"connect\(\) failed", "no live upstreams")

        def run(what: Callable[[Server], Any]) -> Any:
            want, got = (what(server) for server in servers)
            assert got == want
            return got

        yield run, peers


@pytest.mark.parametrize("name", ["rr", "down", "least"])
def test_sequences_without_load(both: Any, name: str) -> None:
    run, _ = both
    got = run(lambda server: balancing.names(server, [f"/{name}/"] * 42))
    assert len(set(got)) > 1


@pytest.mark.parametrize("name", ["fails", "backup", "hash_fails", "ring_fails"])
def test_sequences_and_tries_with_servers_that_refuse(both: Any, name: str) -> None:
    run, _ = both

    def tries(server: Server) -> list[Any]:
        return [(reply.text, reply.header("x-addr")) for n in range(40) for reply in [server.get(f"/{name}/?k={n}")]]

    got = run(tries)
    assert any("," in addresses for _, addresses in got), "some request was tried twice"


@pytest.mark.parametrize("name", ["hash", "ring", "ring_name"])
def test_keys_map_to_the_same_servers(both: Any, name: str) -> None:
    run, _ = both
    got = run(lambda server: balancing.names(server, [f"/{name}/?k={key}" for key in KEYS]))
    assert len(set(got)) > 1


@pytest.mark.parametrize("name", ["ip", "ip_fails"])
def test_addresses_map_to_the_same_servers(both: Any, name: str) -> None:
    run, _ = both

    def ask(server: Server) -> list[Any]:
        out = []
        for n in range(60):
            with Client(server.port(), source=(f"127.{n * 37 % 256}.{n * 11 % 256}.{n % 250 + 1}", 0)) as client:
                reply = client.get(f"/{name}/")
                out.append((reply.text, reply.header("x-addr")))
        return out

    got = run(ask)
    assert len({text for text, _ in got}) > 1


@pytest.mark.parametrize("name", ["ip", "ip_fails"])
def test_addresses_of_any_family_map_to_the_same_servers(both: Any, name: str) -> None:
    run, _ = both
    addresses = [f"2001:db8:{n:x}::{n * 7:x}" for n in range(60)] + [f"{n}.{n * 7 % 256}.9.1" for n in range(1, 60)]

    def ask(server: Server) -> list[Any]:
        replies = [server.get(f"/{name}/", [("X-Real-IP", address)]) for address in ("::ffff:10.1.2.3", *addresses)]
        return [(reply.text, reply.header("x-addr")) for reply in replies]

    got = run(ask)
    assert len({text for text, _ in got}) > 1


@pytest.mark.parametrize("name", ["least", "least_limit", "hash_limit", "ring_limit"])
def test_where_requests_go_while_others_are_held(both: Any, name: str) -> None:
    run, peers = both

    def load(server: Server) -> list[Any]:
        begun = {key: len(peer.requests) for key, peer in peers.items()}
        clients, order = [], []
        for n in range(7):
            clients.append(balancing.start(server, f"/{name}/hold?k={n % 2}"))
            while (now := {key: len(peer.requests) for key, peer in peers.items()}) == begun:
                if not clients[-1].silent(0.01):
                    break  # no server was found for it: it is answered at once
            order.append("".join(key for key in now if now[key] > begun[key]))
            order.append(balancing.names(server, [f"/{name}/?k={key}" for key in "xyz"]))
            begun = {key: len(peer.requests) for key, peer in peers.items()}
        for peer in peers.values():
            peer.release.set()
        order += [str(client.response().status) for client in clients]
        for peer in peers.values():
            peer.release.clear()
        return order

    run(load)


DRAWN = 24_000  # requests: 1 % is then more than four standard deviations of any server's share
WEIGHTS = dict(zip("abcdefghi", (1, 2, 1, 2, 1, 2, 1, 2, 1), strict=True))


@pytest.mark.parametrize("method", ["random", "random two"])
@pytest.mark.parametrize("binary", ["nginx", "headgate"])
def test_servers_drawn_by_lot_have_their_shares(binary: str, method: str, request: pytest.FixtureRequest) -> None:
    total = sum(WEIGHTS.values())
    shares = {name: weight / total for name, weight in WEIGHTS.items()}
    if method == "random two":  # without load the second one drawn serves, and it is not the first
        shares = {
            name: sum(other / total * weight / (total - other) for key, other in WEIGHTS.items() if key != name)
            for name, weight in WEIGHTS.items()
        }
    ports = {name: f"%%PORT_{n}%%" for n, name in enumerate(WEIGHTS, 1)}
    peers = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    servers = "".join(f"server {{{name}}} weight={weight};" for name, weight in WEIGHTS.items())
    here = "".join(f"server {{ listen {peers[name]}; return 200 {name}; }}" for name in WEIGHTS)
    http = f"access_log off; keepalive_requests {DRAWN}; {here}"
    text = balancing.config(peers, {"u": f"{method}; {servers}"}, http=http)
    server: Server = request.getfixturevalue(binary)(text)
    counts: Counter[str] = Counter()
    with server.client() as client:
        for _ in range(DRAWN // 100):
            client.send(build("GET", "/u/") * 100)
            counts.update(client.response().text for _ in range(100))
    assert {name: counts[name] / DRAWN for name in WEIGHTS} == pytest.approx(shares, abs=0.01, rel=0)


WRONG = [
    "least_conn 1; server {a};",
    "least_time; server {a};",
    "ip_hash a; server {a};",
    "hash; server {a};",
    "hash $x y; server {a};",
    "hash $arg_a consistently; server {a};",
    "random three; server {a};",
    "random two least; server {a};",
    "ip_hash; server {a} backup;",
    "hash $arg_a; server {a} backup;",
    "random; server {a} weight=0;",
    "random; server {a}; server {b} backup;",
    "least_conn; server {a}; ip_hash;",
    "least_conn; random two least_conn; server {a} backup;",
    "hash $nothing; server {a};",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_alike(headgate: Factory, nginx: Factory, text: str) -> None:
    conf = balancing.config({"a": "127.0.0.1:1", "b": "127.0.0.1:2"}, {"u": text})
    told = []
    for factory in (nginx, headgate):
        server = factory(conf, start=False)
        result = server.check()
        lines = [line.partition("[")[2] for line in result.stderr.splitlines() if "[emerg]" in line or "[warn]" in line]
        told.append([line.replace(str(server.prefix), "") for line in lines])
    if "least_time" in text:
        assert told[1], "1.22 does not know it"
    else:
        assert told[1] == told[0]
