from collections.abc import Callable
from types import TracebackType
from typing import Any

class Lock:
    def __init__(
        self, buffer: Any, offset: int, *, create: bool = False, repair: Callable[[], object] | None = None
    ) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
