"""What the tests of balancing share: upstream blocks, each behind a location of its name, over named backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.backends import Answer, Backend, Reply, Request
from tests.client import Client, build
from tests.harness import Server

Backends = Callable[..., Backend]


def make(backend: Backends, names: str = "abcd") -> dict[str, Backend]:
    """Backends that answer with their name; /hold... waits for `release` of the same backend (a threading.Event)."""
    return {name: held(backend, name) for name in names}


def held(backend: Backends, name: str) -> Backend:
    """One such backend."""
    release = threading.Event()

    def answer(request: Request) -> Answer:
        reply = Reply(headers=[("X-Peer", name)], body=name.encode())
        return wait(reply.encode(request)) if request.target.startswith("/hold") else reply

    def wait(wire: bytes) -> Iterator[bytes]:
        assert release.wait(20)
        yield wire

    made = backend(answer)
    made.release = release
    return made


def config(peers: dict[str, Any], upstreams: dict[str, str], http: str = "", server: str = "", workers: int = 1) -> str:
    """`upstreams`: name -> its block's text, in which {a} is backend a's address; /name/... goes to upstream `name`."""
    addresses = {name: getattr(peer, "address", peer) for name, peer in peers.items()}
    blocks = "\n".join(f"upstream {name} {{ {text.format(**addresses)} }}" for name, text in upstreams.items())
    locations = "\n".join(f"location /{name}/ {{ proxy_pass http://{name}/; }}" for name in upstreams)
    return f"""
        worker_processes {workers};
        http {{
            {http}
            {blocks}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                add_header X-Addr $upstream_addr always;
                {server}
                {locations}
            }}
        }}"""


def names(server: Server, targets: Iterable[str]) -> str:
    """Who answers these requests, each before the next: a letter each, - for a status that is not 200."""
    out = ""
    for target in targets:
        reply = server.get(target)
        out += reply.text if reply.status == 200 else "-"
    return out


def start(server: Server, target: str) -> Client:
    """A request whose answer is to come later."""
    client = server.client()
    client.send(build("GET", target))
    return client
