"""Requests in all states cut by clients and servers: no descriptor, no connection count and no request is left behind.

10,000 requests; HEADGATE_TEST_FULL=1 makes it 100,000.
"""

import asyncio
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from tests import harness
from tests.backends import Backend
from tests.client import Client, build, chunked, fetch
from tests.harness import Server, until

Factory = Callable[..., Server]
REQUESTS = 100_000 if os.environ.get("HEADGATE_TEST_FULL") else 10_000
CLIENTS = 24
RESET = struct.pack("ii", 1, 0)

# Counts, in a file that all workers append to: C for each request made, F for its end, 2 for an end too many.
COUNTING = """
import os
from headgate.worker.proxy import handler

FILE = os.open(os.path.join(os.path.dirname(__file__), "counts"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
Upstream = handler.Upstream


class Counting:
    def __init__(self, protocol):
        self.protocol = protocol
        self.ends = 0

    def __getattr__(self, name):
        return getattr(self.protocol, name)

    def create_request(self, u):
        os.write(FILE, b"C")
        return self.protocol.create_request(u)

    def finalize_request(self, u, status):
        os.write(FILE, b"2" if self.ends else b"F")
        self.ends += 1
        self.protocol.finalize_request(u, status)


handler.Upstream = lambda request, conf, group, protocol: Upstream(request, conf, group, Counting(protocol))
"""

CONF = """
    worker_processes 2;
    py_module counting.py;
    events { worker_connections 4096; }
    http {
        access_log off;
        keepalive_requests 100000;
        upstream u { SERVERS keepalive 8; keepalive_requests 50; }
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        proxy_read_timeout 300ms;
        proxy_send_timeout 300ms;
        proxy_next_upstream error timeout invalid_header http_503 non_idempotent;
        client_body_buffer_size 8k;
        proxy_buffers 4 4k;
        proxy_max_temp_file_size 64k;
        proxy_temp_file_write_size 8k;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://u; }
            location /pid { return 200 $pid; }
            location /unbuffered/ { proxy_pass http://u; proxy_buffering off; proxy_request_buffering off; }
            location /patient/ { proxy_pass http://u; proxy_ignore_client_abort on; }
        }
    }
"""


def cut(writer: asyncio.StreamWriter) -> None:
    """Closes with a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


# The servers: what they do is drawn for each request


BODY = bytes(range(256)) * 100
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
ANSWERS: list[tuple[int, bytes | None, bool]] = [
    # weight, bytes, whether they are followed by a reset (else by more requests); None: a close without a word
    (40, GOOD % 5 + b"hello", False),
    (10, GOOD % len(BODY) + BODY, False),
    (10, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:3000], BODY), False),
    (5, b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", False),
    (5, b"HTTP/1.1 204 No Content\r\n\r\n", False),
    (5, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY, True),
    (5, None, False),
    (5, b"", True),
    (5, b"HTTP/1.1 200 O", True),
    (5, GOOD % len(BODY) + BODY[:9000], True),
    (5, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", True),
    (3, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nwhat\r\n", False),
    (3, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", False),
    (3, GOOD % 5 + b"hello and more", False),
    (3, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello", False),
]


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chance = random.Random()
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if chance.random() < 0.95:
                await body(reader, head)
            if chance.random() < 0.02:
                await asyncio.sleep(chance.choice((0.01, 0.4)))
            _, wire, reset = chance.choices(ANSWERS, [weight for weight, *_ in ANSWERS])[0]
            if wire is None:
                break
            if chance.random() < 0.2:
                half = chance.randrange(len(wire) + 1)
                writer.write(wire[:half])
                await asyncio.sleep(0)
                wire = wire[half:]
            writer.write(wire)
            await writer.drain()
            if reset:
                cut(writer)
                return
            if b"101 Switching" in wire and b"\r\nupgrade:" in head:
                while data := await reader.read(1000):
                    writer.write(data)
                break
    writer.close()


@asynccontextmanager
async def serving(count: int) -> AsyncIterator[list[int]]:
    """The ports of servers of that kind. They are closed in any case: what a failed test leaves open fails the next."""
    servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in range(count)]
    try:
        yield [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


async def body(reader: asyncio.StreamReader, head: bytes) -> None:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
        elif line.startswith(b"transfer-encoding:"):
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")


# The clients: what they send and when they leave is drawn too


async def client(port: int, tickets: list[int], seen: Counter[str]) -> None:
    chance = random.Random()
    while tickets:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in range(chance.randrange(1, 20)):
                if not tickets:
                    break
                tickets.pop()
                if not await request(chance, reader, writer, seen):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            seen["cut by the server"] += 1
        finally:
            writer.transport.abort()


async def request(
    chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Counter[str]
) -> bool:
    """One request; False when the connection is to be given up."""
    target = chance.choice(("/", "/", "/unbuffered/", "/patient/")) + str(chance.random())
    kind = chance.choices(("get", "put", "chunked", "upgrade"), (70, 15, 10, 5))[0]
    content = BODY[: chance.choice((1, 5000, len(BODY)))]
    if kind == "get":
        wire = build("GET", target)
    elif kind == "put":
        wire = build(chance.choice(("PUT", "POST")), target, body=content)
    elif kind == "chunked":
        wire = build("PUT", target, {"Transfer-Encoding": "chunked"}, chunked(content[:100], content))
    else:
        wire = build("GET", target, {"Upgrade": "x", "Connection": "upgrade"})
    leave = chance.random()
    if leave < 0.08:  # inside the request
        writer.write(wire[: chance.randrange(len(wire))])
        await asyncio.sleep(chance.choice((0, 0.001)))
        return gone(chance, writer, seen)
    writer.write(wire)
    if leave < 0.2:  # before the answer
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))
        return gone(chance, writer, seen)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        seen[head[9:12].decode()] += 1
        low = head.lower()
        if leave < 0.3:  # inside the answer
            return gone(chance, writer, seen)
        if head.startswith(b"HTTP/1.1 101"):
            writer.write(b"x" * chance.randrange(5000))
            await reader.read(chance.randrange(1, 1000))
            return gone(chance, writer, seen)
        if b"content-length:" in low or b"transfer-encoding:" in low:
            await body(reader, low)
    return b"connection: close" not in low


def gone(chance: random.Random, writer: asyncio.StreamWriter, seen: Counter[str]) -> bool:
    seen["left"] += 1
    if chance.random() < 0.5:
        cut(writer)
    return False


def descriptors(running: Server) -> dict[int, Counter[str]]:
    """What each worker has open: files by name, pipes and the like by kind; `connection` is one of TCP."""
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    connected = {f"socket:[{fields[9]}]" for fields in table if fields[3] != "0A"}
    found: dict[int, Counter[str]] = {}
    for pid in running.workers():
        targets = harness.descriptors(pid).values()
        found[pid] = Counter("connection" if each in connected else each.partition(":[")[0] for each in targets)
    return found


def counts(running: Server) -> Counter[int]:
    return Counter(Path(running.prefix / "counts").read_bytes())


def test_nothing_is_left_behind(headgate: Factory, backend: Callable[..., Backend]) -> None:
    seen: Counter[str] = Counter()

    async def chaos() -> None:
        async with serving(2) as found:
            ports.extend(found)
            running = start()
            until(lambda: not any(each["connection"] for each in descriptors(running).values()), "workers at rest")
            before.update(descriptors(running))
            tickets = list(range(REQUESTS))
            await asyncio.gather(*(client(running.port(), tickets, seen) for _ in range(CLIENTS)))

    def start() -> Server:
        servers = "".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        made.append(headgate(CONF.replace("SERVERS", servers), files={"counting.py": COUNTING}))
        until(lambda: len(pids.add(made[0].get("/pid").text) or pids) == 2, "an answer from each worker")
        return made[0]

    ports: list[int] = []
    made: list[Server] = []
    pids: set[str] = set()
    before: dict[int, Counter[str]] = {}
    asyncio.run(chaos())
    running = made[0]
    running.allow(r"\[error\]")
    assert seen["200"] > REQUESTS / 4 and seen["502"] and seen["101"] and seen["cut by the server"] and seen["left"]

    until(lambda: descriptors(running) == before, lambda: f"descriptors as before: {before}, {descriptors(running)}")
    assert not os.listdir(running.prefix / "temp_proxy") and not os.listdir(running.prefix / "temp_client_body")
    ends = counts(running)
    assert ends[ord("C")] == ends[ord("F")] > REQUESTS / 2
    assert not ends[ord("2")]

    # each peer is held by nobody: it has room for as many as it may, and for no more
    peers = [backend(lambda request: b"", port=port) for port in ports]
    lines = "".join(f"server {peer.address} max_fails=0 max_conns=3;" for peer in peers)
    running.reload(CONF.replace("SERVERS", lines).replace("300ms", "30s"))
    with ExitStack() as stack:
        for n in range(6):
            held = stack.enter_context(Client(running.port()))
            held.send(build("GET", "/hold"))
            until(lambda n=n: sum(len(peer.requests) for peer in peers) == n + 1, "a place at a peer")  # type: ignore[misc]
        assert fetch(running.port()).status == 502
    until(lambda: sum(peer.open for peer in peers) == 0, "closed connections")
