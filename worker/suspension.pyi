from collections.abc import Coroutine, Generator
from typing import Any, Final

ENDED: Final[object]

class Suspension:
    def __await__(self) -> Generator[None]: ...

def step(coroutine: Coroutine[Any, Any, Any]) -> Any: ...
