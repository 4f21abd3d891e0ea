"""Generated requests through nginx and headgate: paths, names, ranges and dates that nobody thought of.

The generator is seeded: the same requests in every run, so that a failure can be repeated and explained.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.client import build
from tests.differential.cases import words
from tests.differential.compare import Case, Pair
from tests.differential.differences import GENERATED as RULES
from tests.differential.site import MODIFIED, running
from tests.harness import NGINX

pytestmark = pytest.mark.skipif(shutil.which(NGINX) is None, reason="nginx is not installed")
COUNT = 300

PIECES = {
    "path": words(
        r"/ / / . .. a b exact prefix nested inner dir %2e %2F %61 %00 %zz %2 % + ; ? # & = \ ~ %3f %23 é . .php x"
    ),
    "host": words("example.com www. sub. .example mail. users. joe . .. a - _ 1 : :80 [::1] [ ] @ é %41 deep. dotted"),
    "range": [" ", *words("bytes= bytes 0 5 35 36 99 - - - , , ; a 18446744073709551616 1")],
    "tag": [" ", ",", "\\", *words('"6553f180-24" "6553f180-24" W/ " , * x ""')],
    "header": [
        *(" ", "\t", "\r\n", "\r\n", "\x00", ": "),
        *words("X X-One Content-Length Transfer-Encoding Connection : : chunked 0 close , é _ ( Expect 100-continue"),
    ],
}


def mixed(rng: random.Random, kind: str, most: int = 8) -> str:
    """A text of some of the pieces of `kind`."""
    return "".join(rng.choice(PIECES[kind]) for _ in range(rng.randint(1, most)))


def requests(kind: str, make: Callable[[random.Random], bytes]) -> Iterator[Case]:
    rng = random.Random(f"{MODIFIED} {kind}")
    for number in range(COUNT):
        yield Case(f"{kind} {number}", make(rng))


def _header(rng: random.Random) -> bytes:
    lines = "\r\n".join(mixed(rng, "header", 5) for _ in range(rng.randint(1, 3)))
    return f"GET /exact HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n\r\n".encode("latin-1")


GENERATED = {
    "path": lambda rng: f"GET /{mixed(rng, 'path')} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"),
    "proxied path": lambda rng: build(
        "GET", "/strip/" + mixed(rng, "path").replace("é", ""), {"Host": "proxy.example"}
    ),
    "host": lambda rng: f"GET / HTTP/1.1\r\nHost: {mixed(rng, 'host', 4)}\r\n\r\n".encode("latin-1"),
    "range": lambda rng: build("GET", "/plain.txt", {"Range": "bytes=" * rng.randint(0, 1) + mixed(rng, "range")}),
    "tag": lambda rng: build("GET", "/plain.txt", {rng.choice(("If-Match", "If-None-Match")): mixed(rng, "tag")}),
    "header": _header,
}


@pytest.fixture(scope="module", params=["nginx", "headgate"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(request.param, tmp_path_factory.mktemp("generated")) as pair:
        yield pair


@pytest.mark.parametrize("kind", GENERATED)
def test_generated(pair: Pair, kind: str) -> None:
    rules = [] if pair.other.server.is_nginx else [rule for rule in RULES if rule.kind == kind]
    needed = set()
    unknown = {}
    for case in requests(kind, GENERATED[kind]):
        found = pair.differences(case)
        if not found:
            continue
        why = next((rule.why for rule in rules if rule.knows(case, found)), None)
        if why is None:
            unknown[case.wire] = found
        needed.add(why)
    assert not unknown, f"{len(unknown)} of {COUNT} differ: {unknown}"
    assert needed == {rule.why for rule in rules}
