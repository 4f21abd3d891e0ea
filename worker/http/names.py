"""Host names and their masks in nginx's order: exact, `*.example.com`, `mail.*` (ngx_hash_find_combined).

`.example.com` stands for `example.com` and `*.example.com`. Names are compared in lower case; of several
masks that fit the longest one wins.
"""

from typing import Generic, TypeVar

V = TypeVar("V")


class Names(Generic[V]):
    """Values by host name. `exact` may be used on its own for texts that are no host names."""

    __slots__ = ("_heads", "_tails", "exact")

    def __init__(self) -> None:
        self.exact: dict[bytes, V] = {}
        self._heads: dict[bytes, V] = {}  # "*.example.com" under b".example.com"
        self._tails: dict[bytes, V] = {}  # "mail.*" under b"mail."

    def add(self, name: bytes, value: V) -> bool:
        """Add a name or mask; False when it was there already and keeps its value. ValueError: not a valid mask."""
        stars = name.count(b"*")
        if stars > 1 or b".." in name or b"\0" in name:
            raise ValueError(name)
        if name.startswith(b"*.") and len(name) > 2:
            tables = [(self._heads, name[1:])]
        elif name.endswith(b".*") and len(name) > 2:
            tables = [(self._tails, name[:-1])]
        elif stars:
            raise ValueError(name)
        elif name.startswith(b".") and len(name) > 1:
            tables = [(self.exact, name[1:]), (self._heads, name)]
        else:
            tables = [(self.exact, name)]
        new = True
        for table, key in tables:
            new &= table.setdefault(key.lower(), value) is value
        return new

    def find(self, name: bytes) -> V | None:
        """The value for a name in lower case."""
        found = self.exact.get(name)
        if found is not None or not (self._heads or self._tails):
            return found
        at = name.find(b".")
        while at >= 0 and self._heads:  # the longest name before the shorter ones
            found = self._heads.get(name[at:])
            if found is not None:
                return found
            at = name.find(b".", at + 1)
        at = name.rfind(b".")
        while at >= 0 and self._tails:
            found = self._tails.get(name[: at + 1])
            if found is not None:
                return found
            at = name.rfind(b".", 0, at)
        return None
