"""outlier_ejection: servers whose responses stand out are not used for a time, by any worker."""

import re
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests import balancing
from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]
Backends = Callable[..., Backend]


class Failing:
    """A backend that answers with `status`, and `slow` seconds late."""

    def __init__(self, backend: Backends, name: str) -> None:
        self.name = name
        self.status = 200
        self.slow = 0.0
        self.address = backend(self.answer).address

    def answer(self, request: Request) -> Reply:
        if self.slow:
            time.sleep(self.slow)
        return Reply(self.status, headers=[("X-Peer", self.name)])


def servers(backend: Backends, names: str) -> dict[str, Failing]:
    return {name: Failing(backend, name) for name in names}


def config(peers: dict[str, Failing], parameters: str, workers: int = 2) -> str:
    block = "".join(f"server {{{name}}} max_fails=0;" for name in peers)
    return balancing.config(peers, {"u": f"{block} outlier_ejection {parameters};"}, workers=workers)


def asked(server: Server, n: int = 12) -> Counter[str]:
    """Who answers how often."""
    return Counter(server.get("/u/").header("x-peer") or "" for _ in range(n))


@pytest.mark.parametrize("workers", [1, 3])
def test_failures_in_a_row_eject_a_server_for_all_workers(headgate: Factory, backend: Backends, workers: int) -> None:
    peers = servers(backend, "abc")
    server = headgate(config(peers, "consecutive_5xx=3 interval=1h", workers))
    peers["b"].status = 503
    assert asked(server, 12)["b"] == 3
    who = re.escape(peers["b"].address)
    assert len(server.matching(rf'\[warn\].*peer {who} in upstream "u" is ejected: consecutive failures')) == 1
    server.reload()
    assert asked(server, 12)["b"] == 0, "a reload keeps it"


def test_a_success_between_failures_counts(headgate: Factory, backend: Backends) -> None:
    peers = servers(backend, "ab")
    server = headgate(config(peers, "consecutive_5xx=3 interval=1h", 1))
    for _ in range(4):
        peers["b"].status = 500
        asked(server, 4)
        peers["b"].status = 200
        asked(server, 2)
    assert not server.matching("is ejected")


def test_an_ejection_ends_and_the_next_one_is_longer(headgate: Factory, backend: Backends) -> None:
    peers = servers(backend, "ab")
    server = headgate(config(peers, "consecutive_5xx=1 interval=100ms base_ejection_time=300ms"))
    peers["b"].status = 503
    lengths = []
    for n in range(1, 3):
        began = time.monotonic()
        while len(server.matching("is ejected")) < n:
            server.get("/u/")
        server.expect_log(r"\[notice\].*is back from its ejection", n)
        lengths.append(time.monotonic() - began)
    assert lengths[0] >= 0.3 and lengths[1] >= 0.6, lengths
    peers["b"].status = 200
    assert asked(server, 12)["a"] >= 6


def test_no_more_than_the_share_is_ejected(headgate: Factory, backend: Backends) -> None:
    peers = servers(backend, "abcd")
    server = headgate(config(peers, "consecutive_5xx=1 interval=1h max_ejection_percent=50"))
    for name in "abc":
        peers[name].status = 503
    answers = asked(server, 20)
    assert len(server.matching("is ejected")) == 2
    assert sum(answers[name] > 4 for name in "abc") == 1, "one of them is used on"


def test_in_panic_ejections_are_ignored(headgate: Factory, backend: Backends) -> None:
    peers = servers(backend, "abcd")
    server = headgate(config(peers, "consecutive_5xx=2 interval=1h max_ejection_percent=100 panic_threshold=50"))
    for name in "abc":
        peers[name].status = 503
    asked(server, 12)
    assert len(server.matching("is ejected")) >= 3
    assert set(asked(server, 12)) == set("abcd")


@pytest.mark.parametrize("how", ["success rate", "latency"])
def test_a_server_that_stands_out_is_ejected(headgate: Factory, backend: Backends, how: str) -> None:
    peers = servers(backend, "abcde")
    if how == "latency":
        peers["c"].slow = 0.06
    else:
        peers["c"].status = 500
    parameters = "consecutive_5xx=0 interval=1s success_rate_request_volume=3"
    server = headgate(config(peers, parameters + " success_rate_stdev_factor=1.5"))
    who = re.escape(peers["c"].address)
    deadline = time.monotonic() + 15
    while not server.matching("is ejected"):
        assert time.monotonic() < deadline, server.tail()
        asked(server, 5)
    assert len(server.matching(rf"peer {who} in upstream .u. is ejected: {how}")) == 1
    assert asked(server, 12)["c"] == 0


@pytest.mark.parametrize("word", ["interval=0", "consecutive_5xx=x", "panic_threshold=101", "latency_factor=a", "x=1"])
def test_what_is_refused(headgate: Factory, word: str) -> None:
    text = f"http {{ upstream u {{ server 127.0.0.1:1; outlier_ejection {word}; }} }}"
    assert f'[emerg] invalid parameter "{word}"' in re.sub(r"\d+#\d+: ", "", headgate(text, start=False).check().stderr)
