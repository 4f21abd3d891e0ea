"""A segment of POSIX shared memory: created, mapped, and without a name from then on.

Rules: the name lives only between two system calls, so a killed process leaves nothing in /dev/shm; children
inherit the map, another program can be given the descriptor. A segment is sparse: its size is address space, and
a page costs memory once it is written.
"""

import contextlib
import mmap
import os
import secrets

import posix_ipc


class Segment:
    """Memory shared with every process that is forked later; unmapped when nothing refers to `map` any more."""

    __slots__ = ("__weakref__", "fd", "map")

    fd: int
    map: mmap.mmap

    def __init__(self, fd: int, size: int) -> None:
        """Maps `size` bytes of an open segment and owns `fd` from then on; OSError or ValueError if it cannot."""
        self.fd = fd
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    @classmethod
    def create(cls, size: int) -> "Segment":
        """A new segment of zero bytes, readable by this user only; OSError when the system refuses it."""
        try:
            memory = posix_ipc.SharedMemory(f"/headgate.{secrets.token_hex(16)}", posix_ipc.O_CREX, mode=0o600)
        except (posix_ipc.Error, ValueError) as error:
            raise OSError(f"shm_open() failed: {error}") from error
        memory.unlink()
        try:
            os.ftruncate(memory.fd, size)
            return cls(memory.fd, size)
        except BaseException:
            memory.close_fd()
            raise

    @classmethod
    def attach(cls, fd: int) -> "Segment":
        """The segment behind an inherited descriptor."""
        return cls(fd, os.fstat(fd).st_size)

    def reserve(self, offset: int, length: int) -> None:
        """Gives these bytes their memory now: OSError here, rather than SIGBUS when they are written."""
        os.posix_fallocate(self.fd, offset, length)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)
