"""proxy_temp_path, proxy_temp_file_write_size, and disks that are full: a response is never quietly short."""

import grp
import os
import pwd
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import Backend, Reply
from tests.client import Client, build
from tests.functional.test_proxy_buffering import BIG, SMALL, Source, ask, site, stalls, take
from tests.harness import Server, until

Factory = Callable[..., Server]
LIMIT = 600_000  # bytes that the disk takes
FULL = r"\[crit\].* (pwrite|splice|open)\(\) .* failed \((28: No space left on device|27: File too large)\)"


@pytest.fixture(params=["full disk", "file size limit"])
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Server], None]]:
    """Makes a running server's temporary directories take LIMIT bytes, in one of two ways."""
    mounted: list[Path] = []

    def limit(server: Server) -> None:
        if request.param == "file size limit":
            for worker in server.workers():
                resource.prlimit(worker, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
            return
        for name in ("temp_proxy", "temp_client_body"):
            folder = server.prefix / name
            options = f"size={LIMIT // 1024}k,mode=777"
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("only the super-user can make a small disk")
            mounted.append(folder)

    yield limit
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_full_disk_makes_the_server_wait(
    headgate: Factory, backend: Callable[..., Backend], limited: Callable[[Server], None], framing: str
) -> None:
    """The response goes on, with back-pressure, and is whole; nginx cuts it."""
    source = Source(BIG * 2, framing)
    peer = backend(source)
    server = headgate(site(peer.address, SMALL))
    server.allow(FULL)
    limited(server)
    client = ask(server)
    assert stalls(source) < len(BIG) * 2
    server.expect_log(FULL)
    assert take(client, framing) == BIG * 2


def test_a_full_disk_from_the_start(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """Not even the file can be made."""
    source = Source(BIG * 2, "chunked")
    peer = backend(source)
    server = headgate(site(peer.address, f"{SMALL} proxy_temp_path %%DIR%%/gone;"))
    server.allow(r"\[crit\].* open\(\) .* failed \(2: No such file or directory\)")
    (server.prefix / "gone").rmdir()
    client = ask(server)
    assert stalls(source) < len(BIG) * 2
    assert take(client, "chunked") == BIG * 2
    server.expect_log(r"\[crit\].* open\(\) \"\S+/gone/\S+\" failed \(2: No such file")


def test_what_cannot_be_stored_is_sent(
    headgate: Factory, backend: Callable[..., Backend], limited: Callable[[Server], None]
) -> None:
    peer = backend(lambda request: Reply(body=BIG))
    server = headgate(site(peer.address, "proxy_store on;"))
    server.allow(FULL)
    limited(server)
    assert server.get("/file").body == BIG
    server.expect_log(FULL)
    assert not (server.prefix / "html/file").exists()
    assert not list((server.prefix / "temp_proxy").iterdir())


@pytest.mark.parametrize("framed", [{}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunked"])
def test_a_request_body_that_finds_no_room(
    headgate: Factory,
    backend: Callable[..., Backend],
    limited: Callable[[Server], None],
    framed: dict[str, str],
) -> None:
    """It is answered with a 500 as on nginx, and the server hears nothing of it."""
    peer = backend()
    server = headgate(site(peer.address, "client_max_body_size 0;"))
    server.allow(FULL)
    limited(server)
    body = BIG[: 2 << 20]
    if framed:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with Client(server.port()) as client:
        sending = threading.Thread(target=_send, args=(client, build("PUT", "/", framed, body)))
        sending.start()
        assert client.response().status == 500
        client.close()
        sending.join()
    assert not peer.requests
    server.expect_log(FULL)


def _send(client: Client, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        return  # the answer came first


def test_levels(either: Factory, backend: Callable[..., Backend]) -> None:
    source = Source(BIG)
    peer = backend(source)
    server = either(site(peer.address, "proxy_temp_path %%DIR%%/levels 1 2;"))
    client = ask(server)
    assert source.done.wait(10)
    line = server.expect_log("temporary file")[0]
    name = Path(line.partition("temporary file ")[2].split()[0])
    digits = name.name
    assert name.parent == server.prefix / "levels" / digits[-1] / digits[-3:-1]
    assert len(digits) == 10 and not name.exists()
    assert take(client, "length") == BIG


@pytest.mark.parametrize("value", ["4", "1 2 3 4", "1 x"])
def test_bad_levels(headgate: Factory, value: str) -> None:
    result = headgate(site("127.0.0.1:1", f"proxy_temp_path temp {value};"), start=False).check()
    assert result.returncode == 1
    wanted = 'invalid number of arguments in "proxy_temp_path" directive' if len(value) > 4 else "invalid value"
    assert wanted in result.stderr


def test_writes_are_no_larger_than_told(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """proxy_temp_file_write_size, where the bytes pass through the worker: seen in what the kernel counts."""
    source = Source(BIG, "chunked")
    peer = backend(source)
    server = headgate(site(peer.address, "proxy_temp_file_write_size 16k;"))
    worker = server.workers()[0]
    before = _written(worker)
    client = ask(server)
    assert source.done.wait(10)
    after = _written(worker)
    calls, size = after[0] - before[0], after[1] - before[1]
    assert size / calls <= 70_000  # the client's part goes in larger pieces
    assert take(client, "chunked") == BIG


def _written(pid: int) -> tuple[int, int]:
    """A process's write calls so far, and their bytes."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["syscw"]), int(fields["wchar"])


def test_the_worker_may_write_there(headgate: Factory, backend: Callable[..., Backend]) -> None:
    """The master gives the directory to the workers' user."""
    if os.geteuid() != 0:
        pytest.skip("only the super-user's workers change their user")
    source = Source(BIG)
    peer = backend(source)
    conf = (
        site(peer.address, "proxy_temp_path %%DIR%%/mine;")
        + f"\nuser nobody {grp.getgrgid(pwd.getpwnam('nobody').pw_gid).gr_name};\n"
    )
    server = headgate(conf)
    for folder in [server.prefix, *server.prefix.parents]:
        if folder.stat().st_mode & 0o001 == 0 and "pytest" in str(folder):
            folder.chmod(0o711)
    client = ask(server)
    assert source.done.wait(10)
    until(lambda: server.matching("temporary file"), "the file")
    assert take(client, "length") == BIG
