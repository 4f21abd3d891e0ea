"""aio threads, aio_write, thread_pool: who waits for a disk."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import Backend, Reply
from tests.client import build
from tests.functional.test_proxy_buffering import BIG, SMALL, Source, ask, site, stalls, take
from tests.harness import Server

Factory = Callable[..., Server]
THREADS = "aio threads; aio_write on;"


def threads(server: Server) -> int:
    (worker,) = server.workers()
    return len(os.listdir(f"/proc/{worker}/task"))


@pytest.fixture
def freezer(tmp_path: Path) -> Iterator[Path]:
    """A file system that can be stopped: writes to it wait until it is thawed."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "fsfreeze", "mount"))):
        pytest.skip("needs the super-user, mkfs.ext4 and fsfreeze")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("no loop devices here")
    yield folder
    subprocess.run(["fsfreeze", "-u", str(folder)], capture_output=True, check=False)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def freeze(folder: Path, how: str = "-f") -> None:
    subprocess.run(["fsfreeze", how, str(folder)], check=True)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_stopped_disk_stops_one_response_only(
    headgate: Factory, backend: Callable[..., Backend], freezer: Path, framing: str
) -> None:
    source = Source(BIG, framing)
    peer = backend(source)
    other = backend(lambda request: Reply(body=b"quick"))
    conf = site(peer.address, f"{SMALL} {THREADS} proxy_temp_path {freezer}/temp;")
    server = headgate(
        conf.replace("location / {", f"location /other {{ proxy_pass http://{other.address}; }} location / {{")
    )
    freeze(freezer)
    client = ask(server)
    stalls(source)
    assert not source.done.is_set()
    for _ in range(10):
        assert server.get("/other").body == b"quick"
    freeze(freezer, "-u")
    assert source.done.wait(10)
    assert take(client, framing) == BIG


def test_a_stopped_disk_and_request_bodies(headgate: Factory, backend: Callable[..., Backend], freezer: Path) -> None:
    peer = backend(lambda request: Reply(body=b"%d" % len(request.body)))
    server = headgate(site(peer.address, f"{THREADS} client_max_body_size 0; client_body_temp_path {freezer}/temp;"))
    freeze(freezer)
    with server.client() as client:
        client.send(build("PUT", "/", body=BIG[:200_000]))
        for _ in range(10):
            assert server.get("/").body == b"0"
        assert client.silent(0.1)
        freeze(freezer, "-u")
        assert client.response().body == b"200000"


def test_a_client_that_leaves_while_a_thread_writes(
    headgate: Factory, backend: Callable[..., Backend], freezer: Path
) -> None:
    """What the thread uses is not closed, nor used for anything else, before the thread is done."""
    source = Source(BIG)
    peer = backend(source)
    server = headgate(site(peer.address, f"{SMALL} {THREADS} proxy_temp_path {freezer}/temp;"))
    freeze(freezer)
    client = ask(server)
    stalls(source)
    client.reset()
    freeze(freezer, "-u")
    peer.wait_closed(1)
    server.access_log(1)
    assert server.get("/").body == BIG


@pytest.mark.parametrize("sendfile", ["on", "off"])
@pytest.mark.parametrize("size", [0, 1, 5000, 3_000_000])
def test_files_are_read_by_threads(either: Factory, sendfile: str, size: int) -> None:
    conf = f"""
        http {{
            server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ aio threads; sendfile {sendfile}; }} }}
        }}"""
    server = either(conf, files={"html/file": BIG[:size]})
    before = 0 if server.is_nginx else threads(server)
    with server.client() as client:
        assert client.get("/file").body == BIG[:size]
        if size:
            assert client.get("/file", {"Range": "bytes=0-0,2-3"}).status == 206
    if size and not server.is_nginx:  # it starts all threads at once
        assert threads(server) > before


@pytest.mark.parametrize("directives", ["", "aio off;", "aio threads;", "aio_write on;"])
def test_no_threads_where_none_are_wanted(headgate: Factory, backend: Callable[..., Backend], directives: str) -> None:
    source = Source(BIG)
    peer = backend(source)
    server = headgate(site(peer.address, directives))
    before = threads(server)
    client = ask(server)
    assert source.done.wait(10)
    server.expect_log("temporary file")
    assert threads(server) == before
    assert take(client, "length") == BIG


def test_pools(headgate: Factory, backend: Callable[..., Backend]) -> None:
    peer = backend(lambda request: Reply(body=BIG))
    conf = site(peer.address, f"{SMALL} aio threads=$arg_pool; aio_write on;")
    server = headgate("thread_pool one threads=1 max_queue=3;\n" + conf)
    server.allow('thread pool "nosuch" not found')
    for pool, count in (("one", 1), ("default", 0), ("nosuch", 0)):
        before = threads(server)
        client = ask(server, f"/?pool={pool}")
        server.expect_log(rf"temporary file .*pool={pool} ")
        assert threads(server) >= before + count
        assert take(client, "length") == BIG
    server.expect_log(r'\[error\].* thread pool "nosuch" not found')


@pytest.mark.parametrize(
    ("main", "directive", "message"),
    [
        ("", "aio on;", '"aio on" is unsupported on this platform'),
        ("", "aio sendfile;", '"aio" directive invalid value'),
        ("", "aio threads=pool;", 'unknown thread pool "pool"'),
        ("", "aio_write maybe;", 'invalid value "maybe" in "aio_write" directive, it must be "on" or "off"'),
        ("thread_pool a threads=0;", "", 'invalid threads value "threads=0"'),
        ("thread_pool a threads=x;", "", 'invalid threads value "threads=x"'),
        ("thread_pool a max_queue=1;", "", '"thread_pool" must have "threads" parameter'),
        ("thread_pool a threads=1 max_queue=x;", "", 'invalid max_queue value "max_queue=x"'),
        ("thread_pool a threads=1; thread_pool a threads=2;", "", 'duplicate thread pool "a"'),
        ("thread_pool a;", "", 'invalid number of arguments in "thread_pool" directive'),
    ],
)
def test_nginx_refuses_it_too(either: Factory, main: str, directive: str, message: str) -> None:
    result = either(f"{main}\n" + site("127.0.0.1:1", directive), start=False).check()
    assert result.returncode == 1
    assert f"{message} in " in result.stderr


def test_a_pool_may_come_after_its_use(either: Factory) -> None:
    conf = site("127.0.0.1:1", "aio threads=later;") + "\nthread_pool later threads=2;\n"
    assert either(conf, start=False).check().returncode == 0
