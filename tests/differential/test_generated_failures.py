"""Generated failures: random groups, random proxy_next_upstream, servers that refuse, reset, stop short or say no.

For each request nginx and headgate must give the same answer, ask the same servers in the same order, count the same
bytes and log the same errors. Servers' failures are counted and remembered on the way, so that turns, bans, backups and
what is left of the tries come into it. The generator is seeded; connections are not kept (there headgate differs).
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import CLOSE, RESET, Answer, Backend, Reply, Request, refused_port
from tests.client import Client, build
from tests.differential.cases import words
from tests.differential.compare import PRODUCT
from tests.harness import NGINX, Server

pytestmark = pytest.mark.skipif(shutil.which(NGINX) is None, reason="nginx is not installed")
COUNT = 150
GROUPS, LOCATIONS = 6, 24

KINDS = words("error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429")
STATUSES = words("500 502 503 504 403 404 429")
BROKEN = {
    "closed": CLOSE,
    "reset": RESET,
    "cut": b"HTTP/1.1 200 OK\r\nX-Cut: " + CLOSE,
    "invalid": b"HTTP/1.1 200 OK\r\nX\0: 1\r\n\r\n" + CLOSE,
}
WAYS = ["well", "well", *BROKEN, *STATUSES]
CONF = """
    http {
        log_format tried "$status|$upstream_addr|$upstream_status|$upstream_response_length|$upstream_bytes_received|"
                         "$upstream_bytes_sent";
        access_log logs/tried.log tried;
        client_body_buffer_size 64k;
        proxy_http_version 1.0;
        proxy_set_header Connection close;
        error_page 404 503 /page;
        GROUPS
        server {
            listen 127.0.0.1:%%PORT_0%%;
            LOCATIONS
            location /page { return 200 page; }
        }
    }"""


def group(rng: random.Random, addresses: list[str]) -> str:
    """Some servers: weights, a backup, one that is down; failures count or do not."""
    limit = rng.choice(["max_fails=0", "max_fails=0", "max_fails=2"])
    servers = [
        f"server {address} {limit} fail_timeout=1h weight={rng.randint(1, 2)}"
        for address in rng.sample(addresses, rng.randint(1, len(addresses)))
    ]
    if len(servers) > 1 and rng.random() < 0.5:
        servers[-1] += " backup"
    if len(servers) > 2 and rng.random() < 0.3:
        servers[0] += " down"
    return "; ".join(servers)


def location(rng: random.Random) -> str:
    """A group, and what is followed by another try."""
    kinds = rng.sample(KINDS, rng.randint(1, 5)) + ["non_idempotent"] * (rng.random() < 0.3)
    more = rng.choice(["", "", "proxy_next_upstream_tries 1;", "proxy_next_upstream_tries 2;"])
    more += rng.choice(["", "proxy_intercept_errors on;"])
    listed = "off" if rng.random() < 0.1 else " ".join(kinds)
    return f"proxy_pass http://group{rng.randrange(GROUPS)}; proxy_next_upstream {listed}; {more}"


def asked(server: Server, wire: bytes, method: str) -> tuple[int, str, bytes]:
    """The answer, without the product's name."""
    with Client(server.port()) as client:
        client.send(wire)
        reply = client.response(method)
        return reply.status, reply.reason, PRODUCT.sub(b"PRODUCT", reply.body)


def errors(server: Server) -> list[str]:
    """The lines of level warn and above, without times and numbers."""
    lines = (re.match(r"\S+ \S+ (\[(?:warn|error|crit|alert)\]) \S+ \*\d+ (.*)", line) for line in server.log_lines())
    return [f"{line[1]} {line[2]}" for line in lines if line]


@pytest.mark.parametrize("seed", range(4))
def test_same(tmp_path: Path, backend: Callable[..., Backend], seed: int) -> None:
    rng = random.Random(f"failures {seed}")
    plan: dict[str, str] = {}

    def answering(name: str) -> Callable[[Request], Answer]:
        def answer(request: Request) -> Answer:
            way = plan[name]
            if way in BROKEN:
                return BROKEN[way]
            return Reply(200 if way == "well" else int(way), body=f"{way}, says {name}".encode(), close=True)

        return answer

    names = ["one", "two", "three"]
    with refused_port() as dead:
        addresses = [*(backend(answering(name)).address for name in names), f"127.0.0.1:{dead}"]
        groups = (f"upstream group{number} {{ {group(rng, addresses)}; }}" for number in range(GROUPS))
        locations = (f"location /{number}/ {{ {location(rng)} }}" for number in range(LOCATIONS))
        conf = CONF.replace("GROUPS", "\n".join(groups)).replace("LOCATIONS", "\n".join(locations))
        servers = [Server(conf, tmp_path / binary, binary).start() for binary in ("nginx", "headgate")]
        try:
            for number in range(COUNT):
                plan.update({name: rng.choice(WAYS) for name in names})
                method = rng.choice(words("GET GET HEAD POST PUT PATCH DELETE"))
                body = b"z" * rng.choice([0, 3, 20_000]) if method.startswith("P") else b""
                wire = build(method, f"/{rng.randrange(LOCATIONS)}/{number}", {}, body)
                nginx, headgate = (
                    (asked(server, wire, method), server.access_log(number + 1, "logs/tried.log")[number])
                    for server in servers
                )
                assert headgate == nginx, (wire[:40], plan)
            first, second = map(errors, servers)
            assert second == first and len(first) > 20
        finally:
            for server in servers:
                server.kill()
