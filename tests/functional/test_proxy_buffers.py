"""proxy_buffers, proxy_buffer_size, proxy_busy_buffers_size: what a response holds while its client takes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend
from tests.functional.test_proxy_buffering import BIG, SMALL, Source, ask, site, stalls, take
from tests.harness import Server

Factory = Callable[..., Server]
READ = 32768  # what one read may bring on top
PIPE = 1 << 20  # what the kernel may have been given to move at once, where it moves a body


def in_kernel(*ports: int) -> int:
    """Bytes in the kernel's buffers of the TCP connections that end at these ports."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues = line.split()[:5]
        if state != "0A" and {int(end.partition(":")[2], 16) for end in (local, remote)} & set(ports):
            total += sum(int(queue, 16) for queue in queues.split(":"))
    return total


@pytest.mark.parametrize(
    ("directives", "buffers"),
    [
        ("", 8 * 4096 + 8192),
        ("proxy_buffers 64 4k;", 64 * 4096 + 8192),
        ("proxy_buffers 2 4k; proxy_busy_buffers_size 4k;", 2 * 4096 + 4096),
        ("proxy_buffering off;", 8192),
    ],
)
@pytest.mark.parametrize(("framing", "moved"), [("chunked", 0), ("length", PIPE)])
def test_what_is_held_is_bounded(
    headgate: Factory, backend: Callable[..., Backend], directives: str, buffers: int, framing: str, moved: int
) -> None:
    source = Source(BIG * 2, framing)
    peer = backend(source)
    server = headgate(site(peer.address, f"{SMALL} proxy_max_temp_file_size 0; {directives}"))
    client = ask(server)
    held = stalls(source) - in_kernel(peer.port, server.port())
    assert held <= 4096 + buffers + READ + moved
    assert take(client, framing) == BIG * 2
