"""The file that names the master's process id.

It appears only when every socket listens: whoever waits for it may connect at once.
"""

import os

MODE = 0o644


def write(path: str) -> None:
    """Write this process's id. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    try:
        os.write(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Whether `write` would work, without touching a running server's file. Raises OSError."""
    existed = os.path.lexists(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE))
    if not existed:
        os.unlink(path)


def read(path: str) -> int:
    """The process id in the file. Raises OSError, or ValueError with the text that is no number."""
    with open(path, "rb") as file:
        text = file.read(32).rstrip(b"\r\n")
    if not text.isdigit():
        raise ValueError(text.decode("ascii", "replace"))
    return int(text)
