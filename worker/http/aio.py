"""Blocking file I/O off the event loop: `aio threads[=POOL]`, `aio_write`.

With `aio threads` files are read, and with `aio_write on` as well temporary files are written, by a pool of threads.
Without it both happen at once: the page cache answers sooner than a thread does, until a disk is slow or memory short.
`aio on` is refused as nginx refuses it where the system has no such thing.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from headgate.conf import slots, threads
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.conf.threads import ThreadPool
from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

T = TypeVar("T")


class _Named:
    """`aio threads=$name`: the pool is chosen for each request."""

    __slots__ = ("pools", "template")

    def __init__(self, template: Template, pools: dict[str, ThreadPool]) -> None:
        self.template = template
        self.pools = pools

    def get(self, r: "Request") -> ThreadPool | None:
        name = self.template.get(r).decode("utf-8", "surrogateescape")
        pool = self.pools.get(name)
        if pool is None:
            r.log(Level.ERROR, f'thread pool "{name}" not found')
        return pool


def _aio(call: Call) -> ThreadPool | _Named | None:
    word = call.args[0]
    if word == "off":
        return None
    if word == "on":
        raise call.error_at('"aio on" is unsupported on this platform')
    kind, named, name = word.partition("=")
    if kind != "threads":
        raise call.error("invalid value")
    if not named:
        return threads.use(call)
    template = call.template(name)
    if template.const is None:
        threads.use(call)  # so that the name `default` is known too
        return _Named(template, call.scope.config.thread_pools)
    return threads.use(call, name)


class AioConf(Conf, level=Ctx.LOCATION):
    """Who reads and writes files."""

    aio: ThreadPool | _Named | None = directive("aio", HSL, "1", _aio)
    write: bool = directive("aio_write", HSL, "flag", slots.flag, default=False)


class _Threads:
    """One pool's threads in this worker."""

    __slots__ = ("executor", "waiting")

    def __init__(self, pool: ThreadPool) -> None:
        self.executor = ThreadPoolExecutor(pool.threads, f"pool {pool.name}")
        self.waiting = 0  # tasks given and not done


_running: dict[str, _Threads] = {}  # by the pool's name; filled after the fork


async def reading(r: "Request", work: Callable[[], T]) -> T:
    """Do `work`, which reads a file, here or in a thread."""
    conf = r.location.get(AioConf)
    return work() if conf.aio is None else await _in_thread(r, conf.aio, work)


async def writing(r: "Request", work: Callable[[], T]) -> T:
    """Do `work`, which writes a temporary file, here or in a thread."""
    conf = r.location.get(AioConf)
    return work() if conf.aio is None or not conf.write else await _in_thread(r, conf.aio, work)


async def _in_thread(r: "Request", aio: ThreadPool | _Named, work: Callable[[], T]) -> T:
    """What ends the request meanwhile is raised when the thread is done: it still uses what the request has open."""
    pool = aio.get(r) if isinstance(aio, _Named) else aio
    if pool is None:
        return work()
    running = _running.get(pool.name)
    if running is None:
        running = _running[pool.name] = _Threads(pool)
    if running.waiting >= pool.threads + pool.max_queue:
        r.log(Level.ERROR, f'thread pool "{pool.name}" queue overflow: {running.waiting} tasks waiting')
        return work()
    running.waiting += 1
    future: asyncio.Future[T] = r.conn.worker.loop.run_in_executor(running.executor, work)
    stop: Exception | None = None
    while not future.done():
        try:
            await future
        except Exception as error:
            stop = stop or (None if future.done() else error)
    running.waiting -= 1
    if stop is not None:
        raise stop
    return future.result()
