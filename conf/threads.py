"""`thread_pool NAME threads=N [max_queue=N]`, and the pools that other directives name.

A pool may be named before its line is read; `check`, when all is read, finds those that have none. The pool
`default` needs none: it has 32 threads.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf.directive import Call, Ctx, command
from headgate.conf.errors import ConfError

if TYPE_CHECKING:
    from headgate.conf.build import Config

DEFAULT = "default"
DEFAULT_THREADS = 32


@dataclass(slots=True)
class ThreadPool:
    """One pool; `threads` is 0 until its line is read. A worker's threads start with its first task."""

    name: str
    file: str
    line: int
    threads: int = 0
    max_queue: int = 65536


def use(call: Call, name: str = DEFAULT) -> ThreadPool:
    """The pool of this name, whose line may come later."""
    pools = call.scope.config.thread_pools
    return pools.setdefault(name, ThreadPool(name, call.statement.file, call.statement.line))


@command("thread_pool", Ctx.MAIN, "2|3")
def thread_pool(call: Call) -> None:
    """A pool's line."""
    pool = use(call, call.args[0])
    if pool.threads:
        raise call.error_at(f'duplicate thread pool "{pool.name}"')
    for word in call.args[1:]:
        name, _, value = word.partition("=")
        number = int(value) if value.isascii() and value.isdigit() else -1
        if name == "threads":
            if number <= 0:
                raise call.error_at(f'invalid threads value "{word}"')
            pool.threads = number
        elif name == "max_queue":
            if number < 0:
                raise call.error_at(f'invalid max_queue value "{word}"')
            pool.max_queue = number
        else:  # nginx takes no notice of it
            raise call.error_at(f'invalid parameter "{word}"')
    if not pool.threads:
        raise call.error_at('"thread_pool" must have "threads" parameter')


def check(config: "Config") -> None:
    """When all is read: every pool that is named exists. Raises ConfError."""
    for pool in config.thread_pools.values():
        if not pool.threads and pool.name == DEFAULT:
            pool.threads = DEFAULT_THREADS
        if not pool.threads:
            raise ConfError(f'unknown thread pool "{pool.name}"', pool.file, pool.line)
