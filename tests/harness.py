r"""Starts a real headgate, or nginx with the very same configuration, for a test; see client.py and backends.py too.

    def test_hello(headgate):                       # fixtures `headgate` and `nginx` (conftest.py) are factories
        server = headgate('''
            http {
                server {
                    listen 127.0.0.1:%%PORT_0%%;
                    location / { return 200 "hello\n"; }
                    location /files/ { }
                }
            }''', files={"html/files/a.txt": "A"})  # written under the prefix; default `root` is PREFIX/html
        assert server.get("/").body == b"hello\n"   # = client.get(server.port(0), "/")
        with server.client() as client:             # a raw connection to server.port(0)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.reload(new_conf_text)                # HUP; new workers run, the old ones accept nothing more
        server.allow(r"connect\(\) failed")         # this test may log lines of level error or above that match

    headgate(conf, start=False).check()             # `-t`: CompletedProcess with text stdout and stderr

Rules: %%PORT_0%% to %%PORT_9%% become ports that are free on IPv4 and IPv6 and held until the start; %%DIR%% is the
prefix (no slash at the end). `defaults` adds, without moving a line, what tests rarely care about: an events
block, temp paths, access_log logs/access.log (logs/default.log when the text has an access_log of its own) and
`user root` for root; `-g` sets daemon, pid and error_log logs/error.log (level `level`). At the end of a test its
fixture stops each server with QUIT and fails the test when the error log holds a line of level error or above that no
`allow` expects, when stderr holds a traceback, or when a process is left. Every wait is for an event, and bounded.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.client import Client, Headers, Response, fetch

HEADGATE = os.environ.get("TEST_HEADGATE", str(Path(sys.executable).parent / "headgate"))
NGINX = os.environ.get("TEST_NGINX", shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx")
BOUND = 15.0
BAD_LINE = re.compile(r"\[(error|crit|alert|emerg)\]|Traceback")
TEMP_PATHS = ("client_body", "proxy")
NGINX_TEMP_PATHS = (*TEMP_PATHS, "fastcgi", "uwsgi", "scgi")


def until(condition: Callable[[], object], what: str | Callable[[], str], timeout: float = BOUND) -> None:
    """Waits until `condition()` is true; an AssertionError saying `what` was awaited after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.005)


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open, by number: `socket:[inode]`, `pipe:[inode]`, a path. Without what closes meanwhile."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def listening(pid: int) -> set[str]:
    """The inodes of a process's listening TCP sockets."""
    return set(_sockets(pid, "0A"))


def connected(pid: int) -> list[str]:
    """The inodes of a process's TCP connections."""
    return _sockets(pid, "01")


def _sockets(pid: int, state: str) -> list[str]:
    own = set(descriptors(pid).values())
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == state and f"socket:[{row[9]}]" in own]


def session_members(session: int) -> list[int]:
    """The pids of the live processes of a session (one that a test started, so named by its leader's pid)."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) and fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(entry))
    return found


class Ports:
    """Ports below the ephemeral range, free on 127.0.0.1 and ::1, held by bound sockets until `release`."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self._held: list[socket.socket] = []

    def __getitem__(self, index: int) -> int:
        while index not in self.numbers:
            number = random.randrange(10000, 32000)
            try:
                self._held.append(_hold(socket.AF_INET, "127.0.0.1", number))
                if socket.has_ipv6:
                    self._held.append(_hold(socket.AF_INET6, "::1", number))
            except OSError:
                continue
            self.numbers[index] = number
        return self.numbers[index]

    def release(self) -> None:
        """Lets a server bind them."""
        while self._held:
            self._held.pop().close()


def _hold(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.bind((host, port))
    except OSError:
        held.close()
        raise
    return held


class Server:
    """A server process of `binary` ("headgate", "nginx" or a path) in a prefix directory of its own."""

    def __init__(
        self,
        conf: str,
        prefix: Path,
        binary: str = "headgate",
        *,
        files: Mapping[str, str | bytes] | None = None,
        defaults: bool = True,
        level: str = "info",
        env: Mapping[str, str] | None = None,
        ports: Ports | None = None,
    ) -> None:
        self.binary = {"headgate": HEADGATE, "nginx": NGINX}.get(binary, binary)
        self.is_nginx = Path(self.binary).name.startswith("nginx")
        self.prefix = prefix
        self.defaults = defaults
        self.level = level
        self.env = {**os.environ, **(env or {})}
        self.ports = ports or Ports()
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []
        self._allowed: list[re.Pattern[str]] = []
        self._stderr = prefix / "logs" / "stderr"
        for name in ("logs", "html", "."):
            (prefix / name).mkdir(parents=True, exist_ok=True)
        for name, content in (files or {}).items():
            self.write(name, content)
        self.configure(conf)

    # The configuration

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes the file `name` under the prefix; text has its %%PORT_n%% and %%DIR%% replaced."""
        path = self.prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else self.expand(content).encode())
        return path

    def expand(self, text: str) -> str:
        """`text` with %%PORT_n%% and %%DIR%% replaced."""
        text = text.replace("%%DIR%%", str(self.prefix))
        return re.sub(r"%%PORT_(\d)%%", lambda match: str(self.ports[int(match[1])]), text)

    def configure(self, conf: str) -> None:
        """Writes nginx.conf, with the defaults added."""
        if self.defaults:
            log = "default" if re.search(r"^[^#]*\baccess_log\b", conf, re.M) else "access"
            added = f"access_log logs/{log}.log;"
            for name in NGINX_TEMP_PATHS if self.is_nginx else TEMP_PATHS:
                if not re.search(rf"\b{name}_temp_path\b", conf):
                    added += f" {name}_temp_path temp_{name};"
            conf = re.sub(r"\bhttp\s*\{", lambda match: f"{match[0]} {added}", conf, count=1)
            if not re.search(r"\bevents\s*\{", conf):
                conf += "\nevents { }\n"
            if os.geteuid() == 0 and not re.search(r"^\s*user\s", conf, re.M):
                conf += "\nuser root;\n"
        self.write("nginx.conf", conf)

    # The process

    def argv(self, *extra: str, globals: str | None = None) -> list[str]:
        """The command line, with `-g globals`."""
        defaults = f"daemon off; pid logs/nginx.pid; error_log logs/error.log {self.level};" if self.defaults else ""
        line = defaults if globals is None else globals
        base = [self.binary, "-p", f"{self.prefix}/", "-c", "nginx.conf", "-e", "logs/error.log"]
        return [*base, *(["-g", line] if line else []), *extra]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs the binary with `argv` alone, to its end."""
        return subprocess.run(
            [self.binary, *argv], env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=BOUND
        )

    def check(self, *extra: str) -> subprocess.CompletedProcess[str]:
        """`-t` (and `extra`) on this configuration."""
        self.ports.release()
        return self.run(*self.argv("-t", *extra)[1:])

    def start(self) -> Server:
        """Starts it and waits for the pid file, which nginx and headgate write once every socket listens."""
        assert self.process is None, "started already"
        self.ports.release()
        with self._stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.argv(),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        until(lambda: self.started() or not self.running(), "the pid file")
        if not self.started():
            raise AssertionError(f"{self.binary} did not start (exit code {self.process.returncode}):\n{self.tail()}")
        return self

    def started(self) -> bool:
        """True once the pid file holds the pid of the process started here."""
        try:
            return self.process is not None and (self.prefix / "logs/nginx.pid").read_text() == f"{self.process.pid}\n"
        except FileNotFoundError:
            return False

    def running(self) -> bool:
        """False once the master has ended (and is reaped)."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The master's pid."""
        assert self.process is not None, "not started"
        return self.process.pid

    def workers(self) -> list[int]:
        """The pids of the master's live children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [pid for pid in map(int, children) if not _is_zombie(pid)]

    def send_signal(self, number: signal.Signals) -> None:
        """Sends `number` to the master."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = BOUND) -> int:
        """Waits for the master's end and returns its exit code (negative: the signal)."""
        until(lambda: not self.running(), "the end of the master", timeout)
        assert self.process is not None
        return int(self.process.returncode)

    def reload(self, conf: str | None = None, timeout: float = BOUND) -> None:
        """HUP, with `conf` written first; waits until new workers run and the old ones were told to leave."""
        if conf is not None:
            self.configure(conf)
        before, leaving = set(self.workers()), r"gracefully shutting down"
        told = len(self.matching(leaving)) + len(before)
        self.send_signal(signal.SIGHUP)
        until(lambda: set(self.workers()) - before, lambda: f"new workers after a reload:\n{self.tail()}", timeout)
        until(
            lambda: not before & set(self.workers()) or len(self.matching(leaving)) >= told,
            lambda: f"old workers leaving:\n{self.tail()}",
            timeout,
        )

    def stop(self, how: signal.Signals = signal.SIGQUIT, timeout: float = BOUND) -> int:
        """Closes this server's clients, sends `how`, waits for the end, returns the exit code."""
        self.close_clients()
        if self.running():
            self.send_signal(how)
            self.wait(timeout)
        assert self.process is not None, "not started"
        return int(self.process.returncode)

    def kill(self) -> None:
        """SIGKILL to the master and to whatever else is left of its session."""
        self.close_clients()
        if self.process is not None:
            if self.running():
                self.process.kill()
                self.process.wait()
            for pid in self.survivors():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not self.survivors(), "the end of killed processes")

    def survivors(self) -> list[int]:
        """The pids that still run in the session that was started here."""
        return [] if self.process is None else session_members(self.pid)

    # Requests

    def port(self, index: int = 0) -> int:
        """The port that %%PORT_index%% became."""
        return self.ports[index]

    def client(self, index: int = 0, **options: object) -> Client:
        """A connection to %%PORT_index%%, closed before this server is stopped."""
        client = Client(self.port(index), **options)  # type: ignore[arg-type]
        self.clients.append(client)
        return client

    def close_clients(self) -> None:
        """Closes every connection that `client` made."""
        while self.clients:
            self.clients.pop().close()

    def get(self, target: str = "/", headers: Headers | None = None, *, index: int = 0) -> Response:
        """GET on a connection of its own to %%PORT_index%%."""
        return fetch(self.port(index), "GET", target, headers)

    def request(
        self, method: str, target: str = "/", headers: Headers | None = None, body: bytes = b"", *, index: int = 0
    ) -> Response:
        """One request on a connection of its own to %%PORT_index%%."""
        return fetch(self.port(index), method, target, headers, body)

    # Logs

    def log_lines(self, name: str = "logs/error.log") -> list[str]:
        """The complete lines of a log file under the prefix; none when it does not exist."""
        try:
            text = (self.prefix / name).read_text(errors="backslashreplace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()

    def matching(self, pattern: str, name: str = "logs/error.log") -> list[str]:
        """The log lines in which `pattern` (a regular expression) is found."""
        return [line for line in self.log_lines(name) if re.search(pattern, line)]

    def expect_log(
        self, pattern: str, count: int = 1, *, name: str = "logs/error.log", timeout: float = BOUND
    ) -> list[str]:
        """Waits until at least `count` lines match `pattern`, and returns them."""
        until(
            lambda: len(self.matching(pattern, name)) >= count,
            lambda: f"{count} x {pattern!r} in {name}:\n{self.tail(name=name)}",
            timeout,
        )
        return self.matching(pattern, name)

    def access_log(self, count: int = 0, name: str = "logs/access.log") -> list[str]:
        """The lines of an access log once there are at least `count`."""
        until(lambda: len(self.log_lines(name)) >= count, lambda: f"{count} lines in {name}:\n{self.tail(name=name)}")
        return self.log_lines(name)

    def allow(self, *patterns: str) -> None:
        """Lines of level error or above in which one of `patterns` is found are expected from now on."""
        self._allowed += [re.compile(pattern) for pattern in patterns]

    def unexpected(self) -> list[str]:
        """The lines of the error log (level error or above) and of stderr (the same, tracebacks) not allowed."""
        lines = [*self.log_lines(), *self.log_lines("logs/stderr")]
        bad = [line for line in dict.fromkeys(lines) if BAD_LINE.search(line)]
        return [line for line in bad if not any(allowed.search(line) for allowed in self._allowed)]

    def tail(self, lines: int = 40, name: str = "logs/error.log") -> str:
        """The end of the error log and of stderr, for a failure's report."""
        parts = [f"--- {file} ---\n" + "\n".join(self.log_lines(file)[-lines:]) for file in (name, "logs/stderr")]
        return "\n".join(parts)

    def finish(self) -> None:
        """Stops it and raises AssertionError when something unexpected was logged or left running."""
        if self.process is None:
            return
        print(f"{self.binary} in {self.prefix}, stopped with:")
        try:
            self.stop()
            left = self.survivors()
            assert not left, f"processes left: {left}"
        finally:
            self.kill()
            print(self.tail())
        assert not (bad := self.unexpected()), "unexpected in the error log:\n" + "\n".join(bad)


def _stat(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat from the state on (0 state, 1 ppid, 2 pgrp, 3 session); empty when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ()


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return not fields or fields[0] == "Z"
