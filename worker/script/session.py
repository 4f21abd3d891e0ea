"""Running a user's coroutine for a request.

User code runs in an asyncio task of its own, because asyncio's libraries expect one. What it wants of the request (a
piece of the body, sending) is done by the request's own coroutine: `Session.do` queues it, `Session.run` serves the
queue until the task has ended. The client's leaving cancels the task.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from headgate.worker.http.head import BadRequest
from headgate.worker.http.request import Interrupted, Replaced

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

T = TypeVar("T")
Operation = tuple[Coroutine[Any, Any, Any], "asyncio.Future[Any]"]


class Session:
    """One handler's run. `abandoned`: the request has ended before the handler."""

    __slots__ = ("_over", "_queue", "_waiter", "abandoned", "loop", "request")

    def __init__(self, request: "Request") -> None:
        self.request = request
        self.loop = request.conn.worker.loop
        self._queue: deque[Operation] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self.abandoned = False

    async def do(self, operation: Coroutine[Any, Any, T]) -> T:
        """Have the request's coroutine run `operation`; for user code, in whichever task it is."""
        if self._over:
            operation.close()
            raise RuntimeError("the request's handler has ended")
        future: asyncio.Future[T] = self.loop.create_future()
        self._queue.append((operation, future))
        self._wake()
        return await future

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self, coroutine: Coroutine[Any, Any, T], late: Callable[[BaseException], None]) -> T:
        """Run user code in a task to its end and return what it returns; in the request's coroutine.

        late: hears what it raises when the request has not waited for its end.
        """
        task = self.loop.create_task(_contained(coroutine))
        task.add_done_callback(self._wake)
        try:
            while True:
                if self._queue:
                    await self._serve(*self._queue.popleft())
                elif task.done():
                    return task.result()
                else:
                    self._waiter = self.loop.create_future()
                    await self._waiter
        except asyncio.CancelledError:  # the handler cancelled itself: an error like others, not the end of the worker
            raise RuntimeError("the handler was cancelled") from None
        finally:
            self._over = True
            if task.cancel():
                self.abandoned = True
                task.add_done_callback(lambda ended: _ended_late(ended, late))
            elif not task.cancelled():
                task.exception()  # it counts as retrieved, also where the request's end came first
            for operation, future in self._queue:
                operation.close()
                future.cancel()

    async def _serve(self, operation: Coroutine[Any, Any, Any], future: "asyncio.Future[Any]") -> None:
        if future.cancelled():
            operation.close()
            return
        try:
            result = await operation
        except Exception as error:
            if future.cancelled():
                raise
            if not for_user(error):
                future.cancel()
                raise
            future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)


async def _contained(coroutine: Coroutine[Any, Any, T]) -> T:
    """sys.exit() in a library ends the handler, not the worker."""
    try:
        return await coroutine
    except SystemExit as error:
        raise RuntimeError("the handler has called for the end of the process") from error


def _ended_late(task: "asyncio.Task[Any]", late: Callable[[BaseException], None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        late(error)


def for_user(error: Exception) -> bool:
    """Whether a handler may see it; what ends the request as a whole passes it by."""
    return not isinstance(error, BadRequest | Interrupted | Replaced)
