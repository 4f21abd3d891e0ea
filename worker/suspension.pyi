from collections.abc import Generator

class Suspension:
    def __await__(self) -> Generator[None]: ...
