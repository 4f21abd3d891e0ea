"""Segments: private, nameless, sparse, and freed with their last user."""

import gc
import mmap
import os
import stat

import pytest
from headgate.shm.segment import Segment


def test_a_segment_is_zeroed_private_and_sparse() -> None:
    segment = Segment.create(1 << 30)
    status = os.fstat(segment.fd)
    assert (stat.S_IMODE(status.st_mode), status.st_nlink, status.st_size, status.st_blocks) == (0o600, 0, 1 << 30, 0)
    segment.map[5] = 7
    assert os.fstat(segment.fd).st_blocks * 512 == mmap.PAGESIZE
    assert segment.map[:10] == b"\0\0\0\0\0\7\0\0\0\0"


def test_an_attached_segment_is_the_same_memory() -> None:
    segment = Segment.create(4096)
    other = Segment.attach(os.dup(segment.fd))
    segment.map[:3] = b"abc"
    assert other.map[:3] == b"abc"
    assert len(other.map) == 4096


def test_the_descriptor_is_closed_on_exec_and_with_the_segment() -> None:
    segment = Segment.create(4096)
    fd = segment.fd
    assert not os.get_inheritable(fd)
    del segment
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_reserved_memory_is_there_before_it_is_written() -> None:
    segment = Segment.create(1 << 20)
    segment.reserve(8192, 100)
    assert os.fstat(segment.fd).st_blocks * 512 == mmap.PAGESIZE


def test_what_the_system_refuses_is_an_oserror() -> None:
    with pytest.raises(OSError):
        Segment.create(1 << 62)
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, ValueError)):
        Segment.create(0)
    assert len(os.listdir("/proc/self/fd")) == fds
