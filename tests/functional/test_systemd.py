"""The systemd unit is well hardened and fits headgate's command line; headgate tells systemd how it stands."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import HEADGATE, Server

UNIT = Path(__file__).parents[2] / "systemd" / "headgate.service"
CONF = 'http { server { listen 127.0.0.1:%%PORT_0%%; return 200 "ok"; } }'
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


class NotifySocket:
    """What systemd listens on: the datagrams, each as a dict of its assignments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(15)

    def message(self, key: str) -> dict[str, str]:
        """Waits for the next message that assigns `key`."""
        while True:
            lines = self.socket.recv(4096).decode().splitlines()
            message = dict(line.split("=", 1) for line in lines)
            if key in message:
                return message


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify")
    yield made
    made.socket.close()


def commands(key: str) -> list[list[str]]:
    """The command lines of the unit's `key`."""
    return [shlex.split(line) for line in re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.M)]


def installed(command: list[str], server: Server) -> list[str]:
    """A command line of the unit, with `server`'s places for those of an installation."""
    replaced = {
        "/opt/headgate/bin/headgate": HEADGATE,
        "/var/lib/headgate": str(server.prefix),
        "/etc/headgate/nginx.conf": str(server.prefix / "nginx.conf"),
        "/var/log/headgate/error.log": str(server.prefix / "logs/error.log"),
    }
    return [replaced.get(word, word).replace("/run/headgate", str(server.prefix)) for word in command]


@needs_systemd
def test_exposure_is_at_most_2_5() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=25", str(UNIT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    found = re.search(r"Overall exposure level for headgate.service: ([\d.]+)", done.stdout)
    assert found and float(found[1]) <= 2.5


@needs_systemd
def test_unit_has_no_mistakes(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/headgate/bin/headgate", HEADGATE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_checks_the_configuration_before_a_reload(headgate: Callable[..., Server]) -> None:
    (start,), (check, hup) = commands("ExecStart"), commands("ExecReload")
    assert hup == ["/bin/kill", "-HUP", "$MAINPID"]
    assert [word for word in check if word not in ("-t", "-q")] == start
    server = headgate(CONF, start=False)
    argv = installed(check, server)
    server.ports.release()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    server.configure("http { nonsense; }")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=15)
    assert done.returncode == 1
    assert 'unknown directive "nonsense"' in done.stderr
    server.allow("nonsense")


@pytest.mark.parametrize("example", sorted(UNIT.parents[1].glob("examples/*.conf")), ids=lambda path: path.name)
def test_the_examples_fit_the_unit(headgate: Callable[..., Server], example: Path) -> None:
    server = headgate(example.read_text(), start=False, defaults=False)
    server.write("mime.types", (example.parent / "mime.types").read_text())
    done = subprocess.run(installed(commands("ExecReload")[0], server), capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_is_told_of_start_reload_and_stop(headgate: Callable[..., Server], notify_socket: NotifySocket) -> None:
    server = headgate(CONF, env={"NOTIFY_SOCKET": str(notify_socket.path)})
    ready = notify_socket.message("READY")
    assert (ready["READY"], ready.get("MAINPID", str(server.pid))) == ("1", str(server.pid))
    assert server.get("/").body == b"ok"

    before = time.monotonic_ns() // 1000
    server.send_signal(signal.SIGHUP)
    reloading = notify_socket.message("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert notify_socket.message("READY")["READY"] == "1"

    server.stop()
    assert notify_socket.message("STOPPING")["STOPPING"] == "1"


def test_systemd_is_told_when_a_reload_was_refused(
    headgate: Callable[..., Server], notify_socket: NotifySocket
) -> None:
    server = headgate(CONF, env={"NOTIFY_SOCKET": str(notify_socket.path)})
    notify_socket.message("READY")
    server.configure("http { nonsense; }")
    server.allow("nonsense")
    server.send_signal(signal.SIGHUP)
    notify_socket.message("RELOADING")
    assert notify_socket.message("READY")["READY"] == "1"
    assert server.get("/").body == b"ok"


def test_a_notify_socket_that_is_gone_does_not_matter(headgate: Callable[..., Server], tmp_path: Path) -> None:
    server = headgate(CONF, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert server.get("/").body == b"ok"
