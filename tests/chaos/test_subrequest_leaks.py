"""Requests with subrequests of every kind, cut by clients and servers: no descriptor, task or request is left behind.

4,000 requests; HEADGATE_TEST_FULL=1 makes it 50,000.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable

from tests.chaos.test_leaks import BODY, cut, descriptors, serving
from tests.client import build
from tests.harness import Server, until

Factory = Callable[..., Server]
REQUESTS = 50_000 if os.environ.get("HEADGATE_TEST_FULL") else 4_000
CLIENTS = 16

# $alive: requests, their parts and asyncio tasks that exist; fan_out: a handler that waits for three subrequests
MODULE = """
import asyncio
import gc

from headgate.conf.directive import Conf, Ctx, directive
from headgate.conf.template import Variable
from headgate.worker.http import special
from headgate.worker.http.request import Request
from headgate.worker.subrequest.postpone import Part, Tree
from headgate.worker.subrequest.subrequest import fetch


def alive(r):
    gc.collect()
    kinds = (Request, Part, Tree, asyncio.Task)
    return b"%d" % sum(isinstance(each, kinds) for each in gc.get_objects())


VARIABLES = [Variable("alive", alive)]


class FanOutConf(Conf, level=Ctx.LOCATION):
    task = directive("fan_out", Ctx.LOCATION, "1", lambda call: call.args[0] == "task", inherit=False)

    def attach(self, node):
        if self.task is not None:
            node.handler = fan_out


async def gather(r):
    return await asyncio.gather(*(fetch(r, b"/b/%d" % n, keep_errors=True) for n in range(3)))


async def fan_out(r):
    replies = await (asyncio.create_task(gather(r)) if r.location.get(FanOutConf).task else gather(r))
    return special.respond(r, 200, b"".join(reply.body for reply in replies), b"text/plain")
"""

# the same by a user's Python: each waits for, streams or leaves subrequests, or the body
HANDLERS = """
import asyncio


async def fan(r):
    replies = await asyncio.gather(*(r.subrequest(f"/b/{n}") for n in range(3)))
    return b"".join(reply.body for reply in replies)


async def race(r):
    asked = [asyncio.create_task(r.subrequest(f"/b/{n}")) for n in range(3)]
    done, pending = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    return done.pop().result().body


async def page(r):
    async def pieces():
        yield "<"
        await r.subrequest("/b/1", in_memory=False)
        await asyncio.gather(r.subrequest("/b/2", in_memory=False), r.subrequest("/b/3", in_memory=False))
        yield "x" * 90_000

    await r.respond(200, None, pieces())


async def echo(r):
    await r.respond(200, None, (piece async for piece in r.body))


async def ask(r):
    await r.body.read()
    await r.subrequest("/b/side", background=True)
    r.ctx["user"] = (await r.subrequest("/b/user")).status


async def asked(r):
    return str(r.ctx["user"])
"""

CONF = """
    py_module api.py;
    events { worker_connections 8192; }
    http {
        access_log off;
        default_type text/html;
        keepalive_requests 100000;
        subrequest_output_buffer_size 64k;
        client_body_buffer_size 8k;
        proxy_read_timeout 300ms;
        proxy_send_timeout 300ms;
        proxy_buffers 4 4k;
        py_import handlers.py as h;
        py_blocking_limit 0;
        upstream u { SERVERS keepalive 8; keepalive_requests 50; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location /alive { return 200 $alive; }
            location /b/ { proxy_pass http://u; }
            location /page/ { alias %%DIR%%/html/; ssi on; }
            location /proxied/ { ssi on; proxy_pass http://127.0.0.1:%%PORT_1%%/; }
            location /around/ { add_before_body /b/x; add_after_body /b/y; addition_types *; proxy_pass http://u; }
            location /auth/ { auth_request /b/auth; proxy_pass http://u; }
            location /mirror/ { mirror /b/m; mirror /b/n; proxy_pass http://u; }
            location /slice/ {
                slice 8k;
                proxy_pass http://127.0.0.1:%%PORT_1%%/;
                proxy_set_header Range $slice_range;
            }
            location /after/ { post_action /b/z; return 200 "done"; }
            location /after/file { alias %%DIR%%/html/sub.html; post_action /b/z; }
            location /fan { fan_out plain; }
            location /task { fan_out task; }
            location /py/fan { py_content h.fan; }
            location /py/race { py_content h.race; }
            location /py/page { py_content h.page; }
            location /py/echo { py_content h.echo; }
            location /py/asked { py_access h.ask; py_content h.asked; }
        }
        server {
            listen 127.0.0.1:%%PORT_1%%;
            location / { }
        }
    }
"""


def include(uri: str, more: str = "") -> str:
    return f'<!--#include virtual="{uri}" {more} -->'


FILES = {
    "api.py": MODULE,
    "handlers.py": HANDLERS,
    "html/four.html": "a" + "".join(f"{include(f'/b/{n}')}{n}" for n in range(4)) + "z",
    "html/wait.html": include("/b/1", 'wait="yes"')
    + include("/b/2", 'set="x"')
    + '<!--#echo var="x" -->'
    + "x" * 90_000,
    "html/deep.html": include("/page/four.html") + include("/page/wait.html") + include("/page/none.html"),
    "html/stub.html": '<!--#block name="s" -->s<!--#endblock -->' + include("/b/1", 'stub="s"'),
    "html/sub.html": "file",
    "html/large": BODY * 8,
}
TARGETS = (
    "/page/four.html", "/page/wait.html", "/page/deep.html", "/page/stub.html", "/proxied/four.html",
    "/proxied/wait.html", "/around/x", "/auth/x", "/mirror/x", "/slice/large", "/after/x", "/after/file", "/fan",
    "/task", "/py/fan", "/py/race", "/py/page", "/py/echo", "/py/asked",
)  # fmt: skip


async def client(port: int, tickets: list[int], seen: Counter[str]) -> None:
    chance = random.Random()
    while tickets:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for _ in range(chance.randrange(1, 10)):
                if not tickets:
                    break
                tickets.pop()
                target = chance.choice(TARGETS)
                try:
                    if not await request(chance, target, reader, writer, seen):
                        break
                except (ConnectionError, asyncio.IncompleteReadError):
                    break
                except TimeoutError:
                    port = writer.get_extra_info("sockname")[1]
                    raise AssertionError(f"no end of {target} on port {port}") from None
        finally:
            if chance.random() < 0.5:
                cut(writer)
            writer.transport.abort()


async def request(
    chance: random.Random,
    target: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    seen: Counter[str],
) -> bool:
    """One request; False when the connection is to be given up."""
    if chance.random() < 0.2:
        wire = build("POST", target, body=BODY[: chance.choice((5, len(BODY)))])
    else:
        wire = build("GET", target, {"Range": "bytes=5000-150000"} if "slice" in target else None)
    writer.write(wire)
    leave = chance.random()
    if leave < 0.15:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003, 0.01)))
        seen["left before the head"] += 1
        return False
    async with asyncio.timeout(20):  # far more than any timeout of the server's
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        seen[head[9:12].decode()] += 1
        framed = b"transfer-encoding:" in head or (b"content-length:" in head and b"content-length: 0\r" not in head)
        if leave < 0.3 and framed:
            await reader.read(chance.choice((1, 1000, 50_000)))
            seen["left inside the body"] += 1
            return False
        if b"transfer-encoding:" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
        elif b"content-length:" in head:
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    seen["whole"] += 1
    return b"connection: close" not in head


def test_nothing_is_left_behind(headgate: Factory) -> None:
    seen: Counter[str] = Counter()
    made: list[Server] = []
    before: list[object] = []

    def at_rest() -> object:
        """The descriptors, once there is no connection and no request but the one that asks."""
        until(lambda: made[0].get("/alive").text == "1", lambda: f"{made[0].get('/alive').text} objects", timeout=30)
        until(lambda: not any(each["connection"] for each in descriptors(made[0]).values()), "no connection")
        return descriptors(made[0])

    async def chaos() -> None:
        async with serving(2) as ports:
            lines = "".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
            made.append(headgate(CONF.replace("SERVERS", lines), files=FILES))
            before.append(at_rest())
            tickets = list(range(REQUESTS))
            await asyncio.gather(*(client(made[0].port(), tickets, seen) for _ in range(CLIENTS)))

    asyncio.run(chaos())
    running = made[0]
    running.allow(r"\[error\]", "too big subrequest response")
    assert seen["whole"] > REQUESTS / 4 and seen["left before the head"] and seen["left inside the body"], seen
    until(lambda: at_rest() == before[0], lambda: f"as before: {before[0]}, {at_rest()}")
    assert not os.listdir(running.prefix / "temp_proxy") and not os.listdir(running.prefix / "temp_client_body")
