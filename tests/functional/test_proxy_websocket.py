"""WebSockets through a tunnel, by a library of others: many connections, each with its own random bytes, both ways."""

import asyncio
import hashlib
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.functional.test_proxy_upgrade import config
from tests.harness import Server
from tests.tls import Authority

Factory = Callable[..., Server]
FULL = bool(os.environ.get("HEADGATE_TEST_FULL"))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_websockets_both_ways(headgate: Factory, free_port: int, tmp_path: Path, secure: bool) -> None:
    """A WebSocket library's server and client, many connections at once, each with its own random bytes."""
    connections, size = (100, 10 << 20) if FULL else (10, 1 << 20)
    message = 128 << 10

    def stream(seed: str) -> list[bytes]:
        source = random.Random(seed)
        return [source.randbytes(message) for _ in range(size // message)]

    async def talk(ws: object, seed_out: str, seed_in: str) -> bool:

        async def send() -> None:
            for data in stream(seed_out):
                await ws.send(data)  # type: ignore[attr-defined]

        sending = asyncio.create_task(send())
        digest, expected, total = hashlib.sha256(), hashlib.sha256(), 0
        while total < size:
            data = await ws.recv()  # type: ignore[attr-defined]
            digest.update(data)
            total += len(data)
        await sending
        for data in stream(seed_in):
            expected.update(data)
        return total == size and digest.digest() == expected.digest()

    async def run(port: int) -> list[bool]:
        good: list[bool] = []

        async def handle(ws: ServerConnection) -> None:
            number = (await ws.recv())[4:]
            good.append(await talk(ws, f"down {number}", f"up {number}"))

        async def client(number: int) -> bool:
            url = f"{'wss' if secure else 'ws'}://localhost:{port}/{number}"
            async with connect(
                url,
                host="127.0.0.1",
                ssl=ours,
                max_size=None,
                compression=None,
                ping_interval=None,
                close_timeout=60,
                proxy=None,
                open_timeout=60,
            ) as ws:
                await ws.send(f"I am{number}")
                return await talk(ws, f"up {number}", f"down {number}")

        async with serve(
            handle,
            "127.0.0.1",
            free_port,
            ssl=theirs,
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=60,
        ):
            good += await asyncio.gather(*(client(n) for n in range(connections)))
            while len(good) < 2 * connections:
                await asyncio.sleep(0.01)
        return good

    conf = config(f"127.0.0.1:{free_port}")
    ours = theirs = None
    if secure:
        authority = Authority("root")
        leaf = authority.issue("localhost", tmp_path)
        authority.write(tmp_path / "ca.crt")
        ours, theirs = ssl.create_default_context(cafile=str(tmp_path / "ca.crt")), leaf.server()
        conf = conf.replace(
            "%%PORT_0%%;", f"%%PORT_0%% ssl; ssl_certificate {leaf.cert}; ssl_certificate_key {leaf.key};"
        )
        conf = conf.replace("http://u", "https://u")
    running = headgate(conf)
    assert asyncio.run(run(running.port())) == [True] * (2 * connections)
    lines = running.access_log(connections, "logs/tunnel.log")
    assert len(lines) == connections
    for line in lines:
        fields = line.split()
        assert fields[0] == fields[4] == "101" and int(fields[2]) > size and int(fields[5]) > size
