"""Refuses to run compiled modules whose sources have changed since: only a build in place leaves the list it checks."""

import hashlib
from pathlib import Path

STAMP = Path(__file__).with_name("compiled.txt")


def check(stamp: Path = STAMP) -> None:
    """Raises ImportError naming the first file that is not what was compiled."""
    if not stamp.exists():
        return
    root = stamp.parent.parent
    for line in stamp.read_text().splitlines():
        digest, name = line.split(" ", 1)
        if hashlib.sha256((root / name).read_bytes()).hexdigest() != digest:
            raise ImportError(f"{name} has changed since it was compiled; run scripts/build, or scripts/build pure")
