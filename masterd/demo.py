"""`headgate demo`: backends of different weights, one of which fails now and then, behind a real headgate.

The demo is the parent of everything: one process a backend (this file run as a module), a headgate master with a
generated configuration in a temporary directory, and light traffic of its own. What it prints is what it reads in
headgate's access and error logs: who answered, who was taken out, who came back.

Rules: it ends on SIGINT, SIGTERM, SIGHUP or after `seconds`, and leaves neither processes nor files. A backend ends
with the pipe to its standard input, so that it cannot outlive the demo even if that is killed.
"""

import asyncio
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

WEIGHTS = {"apple": 5, "berry": 2, "cherry": 1}
UNRELIABLE = "cherry"
WORKING, FAILING = 6.0, 5.0  # seconds
FAIL_TIMEOUT = 3  # seconds
REQUEST_INTERVAL, TALLY_INTERVAL, TICK = 0.05, 3.0, 0.05  # seconds
START_BOUND, STOP_BOUND = 15.0, 10.0  # seconds

CONF = """\
worker_processes 2;
pid headgate.pid;
error_log error.log warn;

events {{
}}

http {{
    log_format peers "$status|$upstream_addr|$upstream_status";
    access_log access.log peers;

    upstream fruit {{
        zone fruit 256k;
{servers}
        keepalive 8;
    }}

    server {{
        listen 127.0.0.1:{port};

        location / {{
            proxy_pass http://fruit;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""
TAKEN_OUT = re.compile(r'upstream server temporarily disabled .*upstream: "http://([0-9.:]+)')


@dataclass
class Backend:
    """A backend's process as the demo sees it."""

    name: str
    address: str
    process: subprocess.Popen[str]
    failing: bool = False
    out: bool = False

    @classmethod
    def start(cls, name: str) -> "Backend":
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            fd = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "headgate.masterd.demo", name, str(fd)],
                stdin=subprocess.PIPE,
                text=True,
                pass_fds=[fd],
                process_group=0,
            )
            host, port = listener.getsockname()
            return cls(name, f"{host}:{port}", process)

    def switch(self, failing: bool) -> None:
        """Tells the process to close connections unanswered, or to answer again."""
        self.failing = failing
        assert self.process.stdin is not None
        self.process.stdin.write("fail\n" if failing else "work\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        _end(self.process, signal.SIGTERM)


@dataclass
class Follower:
    """Reads the complete lines that were added to a log file since the last time."""

    path: Path
    position: int = 0

    def lines(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.position)
            data = file.read()
            end = data.rfind(b"\n") + 1
            self.position += end
            yield from data[:end].decode(errors="replace").splitlines()


@dataclass
class Story:
    """Turns log lines into what happened, and prints it."""

    backends: dict[str, Backend]  # by address
    answered: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def access(self, line: str) -> None:
        """A line of the access log: which peers were tried, the last of them answered."""
        status, addresses, upstream_statuses = line.split("|")
        self.statuses[status] += 1
        *tried, last = [self.backends.get(address) for address in addresses.split(", ")]
        for backend in tried:
            if backend is not None and last is not None and status == "200":
                self.say(f"{backend.name} failed a request; {last.name} answered it instead")
        if last is None or not upstream_statuses.endswith("200"):
            return
        self.answered[last.name] += 1
        if last.out:
            last.out = False
            self.say(f"{last.name} came back: a trial request was answered")

    def error(self, line: str) -> None:
        """A line of the error log: was a peer taken out?"""
        found = TAKEN_OUT.search(line)
        backend = self.backends.get(found[1]) if found else None
        if backend is not None:
            verb = "stays out" if backend.out else "was taken out"
            backend.out = True
            self.say(f"{backend.name} {verb} for {FAIL_TIMEOUT} s")

    def tally(self) -> None:
        """Who answered since the last time."""
        answers = "  ".join(f"{name} {self.answered[name]}" for name in WEIGHTS)
        failed = sum(count for status, count in self.statuses.items() if status >= "500")
        self.say(f"answered: {answers}  (requests: {self.statuses.total()}, failed for the client: {failed})")
        self.answered.clear()
        self.statuses.clear()


class Traffic(threading.Thread):
    """Light traffic: one request every REQUEST_INTERVAL seconds."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.ended = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.ended.wait(REQUEST_INTERVAL):
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request connects anew; the logs tell what happened
        connection.close()


def run(port: int | None, seconds: float | None) -> int:
    """Runs the demo on `port` (None or 0: a free one) for `seconds` (None: until a signal); returns the exit code."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    prefix = Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    try:
        with contextlib.ExitStack() as stack:
            return _demo(prefix, port or _free_port(), seconds, stop, stack)
    finally:
        shutil.rmtree(prefix, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _demo(prefix: Path, port: int, seconds: float | None, stop: threading.Event, stack: contextlib.ExitStack) -> int:
    prefix.chmod(0o711)  # workers that dropped their privileges must reach their temporary files in it
    backends = {}
    for name in WEIGHTS:
        backend = Backend.start(name)
        stack.callback(backend.stop)
        backends[backend.address] = backend
    master = _start_headgate(prefix, port, backends)
    stack.callback(_end, master, signal.SIGQUIT)
    if not _await_start(master, prefix):
        print((prefix / "error.log").read_text(errors="replace"), end="", file=sys.stderr)
        print("headgate demo: headgate did not start", file=sys.stderr)
        return 1
    _introduce(port, backends)
    traffic = Traffic(port)
    traffic.start()
    stack.callback(traffic.join)
    stack.callback(traffic.ended.set)
    ended = _tell(Story(backends), prefix, master, seconds, stop)
    print("stopping; nothing is left behind" if ended == 0 else "headgate ended by itself", flush=True)
    return ended


def _start_headgate(prefix: Path, port: int, backends: dict[str, Backend]) -> subprocess.Popen[bytes]:
    lines = []
    for backend in backends.values():
        limits = f" max_fails=2 fail_timeout={FAIL_TIMEOUT}s" if backend.name == UNRELIABLE else ""
        lines.append(f"        server {backend.address} weight={WEIGHTS[backend.name]}{limits};")
    (prefix / "nginx.conf").write_text(CONF.format(port=port, servers="\n".join(lines)))
    main = "from headgate.masterd.cli import main; main()"
    argv = [sys.executable, "-c", main, "-p", f"{prefix}/", "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, process_group=0)


def _await_start(master: subprocess.Popen[bytes], prefix: Path) -> bool:
    """Waits for the pid file; False when headgate ended instead or took too long."""
    deadline = time.monotonic() + START_BOUND
    while not (prefix / "headgate.pid").exists():
        if master.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def _introduce(port: int, backends: dict[str, Backend]) -> None:
    print(f"headgate serves http://127.0.0.1:{port}/   try: curl -i http://127.0.0.1:{port}/   Ctrl-C ends the demo")
    for address, backend in backends.items():
        note = f", fails now and then (max_fails=2 fail_timeout={FAIL_TIMEOUT}s)" if backend.name == UNRELIABLE else ""
        print(f"  {backend.name:8}{address}  weight {WEIGHTS[backend.name]}{note}")
    sys.stdout.flush()


def _tell(
    story: Story, prefix: Path, master: subprocess.Popen[bytes], seconds: float | None, stop: threading.Event
) -> int:
    """Follows the logs and lets a backend fail now and then; 0 when asked to end, 1 when headgate ended."""
    access, errors = Follower(prefix / "access.log"), Follower(prefix / "error.log")
    unreliable = next(backend for backend in story.backends.values() if backend.name == UNRELIABLE)
    now = time.monotonic()
    end = now + seconds if seconds is not None else float("inf")
    tally, switch = now + TALLY_INTERVAL, now + WORKING
    while not stop.wait(TICK) and (now := time.monotonic()) < end:
        for line in access.lines():
            story.access(line)
        for line in errors.lines():
            story.error(line)
        if now >= tally:
            story.tally()
            tally = now + TALLY_INTERVAL
        if now >= switch:
            unreliable.switch(not unreliable.failing)
            what = "starts to close connections unanswered" if unreliable.failing else "answers again"
            story.say(f"{unreliable.name} {what}")
            switch = now + (FAILING if unreliable.failing else WORKING)
        if master.poll() is not None:
            return 1
    return 0


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Sends `how`, then SIGTERM and SIGKILL when that does not end the process in time."""
    for number in (how, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_BOUND)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """What runs in a backend's process: a small HTTP/1.1 server on an inherited socket."""

    def __init__(self, name: str) -> None:
        self.body = f"hello from {name}, pid {os.getpid()}\n".encode()
        self.failing = False

    async def serve(self, fd: int) -> None:
        """Serves until standard input ends; a line there says whether to fail or to work."""
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with await asyncio.start_server(self.connection, sock=socket.socket(fileno=fd)):
            while line := await commands.readline():
                self.failing = line == b"fail\n"

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers requests until the peer closes; closes without an answer while failing."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while not self.failing:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if self.failing:
                    break
                if length := re.search(rb"\ncontent-length: *(\d+)", head):
                    await reader.readexactly(int(length[1]))
                body = b"" if head.startswith(b"head ") else self.body
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(self.body)
                )
                writer.write(body)
                await writer.drain()
        writer.close()


if __name__ == "__main__":
    asyncio.run(_Server(sys.argv[1]).serve(int(sys.argv[2])))
    os._exit(0)  # open keepalive connections need no farewell
