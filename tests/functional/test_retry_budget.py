"""retry_budget: how many requests may be at a further server at a time, all workers together."""

import re
from collections.abc import Callable

import pytest

from tests import balancing
from tests.backends import Backend, Reply, refused_port
from tests.harness import Server

Factory = Callable[..., Server]
Backends = Callable[..., Backend]
LINE = r"\[warn\].*retry budget of upstream \"u\" is exhausted"


@pytest.mark.parametrize("workers", [1, 3])
def test_a_request_beyond_the_budget_ends_with_its_status(headgate: Factory, backend: Backends, workers: int) -> None:
    peers = balancing.make(backend, "a")
    with refused_port() as port:
        block = f"server 127.0.0.1:{port} max_fails=0; server {{a}} backup; retry_budget percent=0 min_retries=2;"
        server = headgate(balancing.config(peers, {"u": block}, workers=workers))
        server.allow(r"connect\(\) failed")
        held = [balancing.start(server, "/u/hold") for _ in range(2)]
        peers["a"].wait_requests(2)
        for n in range(3):
            reply = server.get("/u/")
            assert (reply.status, reply.header("x-addr")) == (502, f"127.0.0.1:{port}")
            server.expect_log(LINE, n + 1)
        assert len(server.matching(LINE)) == 3, "one line each"
        peers["a"].release.set()
        assert [client.response().text for client in held] == ["a", "a"]
        assert server.get("/u/").text == "a", "the budget is free again"


def test_it_grows_with_the_active_requests(headgate: Factory, backend: Backends) -> None:
    peers = balancing.make(backend, "ab")
    with refused_port() as port:
        servers = f"server {{a}} max_conns=4; server 127.0.0.1:{port} max_fails=0 down; server {{b}} backup;"
        conf = balancing.config(peers, {"u": f"{servers} retry_budget percent=50 min_retries=0;"}, workers=2)
        server = headgate(conf)
        server.allow(r"connect\(\) failed")
        held = [balancing.start(server, "/u/hold") for _ in range(4)]
        peers["a"].wait_requests(4)
        server.reload(conf.replace(" down;", ";"))
        # a is full, so all others fail first: with 4 at a, n of them are at b as long as n is less than half of 5 + n.
        for n in range(4):
            held.append(balancing.start(server, "/u/hold"))
            peers["b"].wait_requests(n + 1)
        reply = server.get("/u/hold")
        assert (reply.status, reply.header("x-addr")) == (502, f"127.0.0.1:{port}")
        assert len(peers["b"].requests) == 4
        for peer in peers.values():
            peer.release.set()
        assert [client.response().text for client in held] == ["a"] * 4 + ["b"] * 4


def test_a_response_is_passed_on_when_the_budget_is_exhausted(headgate: Factory, backend: Backends) -> None:
    busy = backend(lambda request: Reply(503, body=b"busy"))
    good = balancing.make(backend, "g")["g"]
    text = balancing.config(
        {"a": busy, "g": good},
        {"u": "server {a} max_fails=0; server {g} backup; retry_budget percent=0 min_retries=0;"},
        server="proxy_next_upstream http_503;",
    )
    server = headgate(text)
    reply = server.get("/u/")
    assert (reply.status, reply.text, reply.header("x-addr")) == (503, "busy", busy.address)
    server.reload(text.replace("min_retries=0", "min_retries=1"))
    assert [server.get("/u/").text for _ in range(3)] == ["g"] * 3
    assert len(server.matching(LINE)) == 1


@pytest.mark.parametrize("word", ["percent=101", "percent=x", "min_retries=-1", "other=1"])
def test_what_is_refused(headgate: Factory, word: str) -> None:
    text = f"http {{ upstream u {{ server 127.0.0.1:1; retry_budget {word}; }} }}"
    assert f'[emerg] invalid parameter "{word}"' in re.sub(r"\d+#\d+: ", "", headgate(text, start=False).check().stderr)
