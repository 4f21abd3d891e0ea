"""The small parts: pid file, notification, modules, environment, the main directives."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from headgate.conf.build import Config, load
from headgate.conf.core import Affinity, EnvVar
from headgate.conf.errors import ConfError
from headgate.masterd import modules_info, notify, pidfile
from headgate.masterd.logfile import Level


def test_pid_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pid")
    pidfile.check(path)
    assert not os.path.exists(path), "a check leaves nothing"
    pidfile.write(path)
    assert Path(path).read_text() == f"{os.getpid()}\n"
    pidfile.check(path)
    assert pidfile.read(path) == os.getpid()
    Path(path).write_text("12x")
    with pytest.raises(ValueError, match="12x"):
        pidfile.read(path)
    with pytest.raises(FileNotFoundError):
        pidfile.check(str(tmp_path / "none/a.pid"))


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"\0headgate-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        manager.bind(name)
        monkeypatch.setattr(notify, "_ADDRESS", name.replace("\0", "@"))
        notify.notify(READY=1, STATUS="x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


def test_notify_without_a_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in ("", "relative", str(tmp_path / "none")):
        monkeypatch.setattr(notify, "_ADDRESS", address)
        notify.ready("x")


def test_configure_arguments() -> None:
    words = modules_info.configure_arguments()
    assert "--without-http_proxy_module" not in words
    assert len(words) == len(set(words))
    for name, present in modules_info.STANDARD.items():
        assert (f"--without-{name}" in words) is not present
    for name, present in modules_info.OPTIONAL.items():
        assert (f"--with-{name}" in words) is present


def conf(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "nginx.conf"
    path.write_text(text)
    return load(str(path), f"{tmp_path}/")


def main(tmp_path: Path, text: str) -> Any:
    return conf(tmp_path, text + " events {}").main


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfError) as caught:
        conf(tmp_path, text + "\nevents {}")
    return str(caught.value).replace(f"{tmp_path}/nginx.conf", "FILE")


def test_main_defaults(tmp_path: Path) -> None:
    got = main(tmp_path, "")
    assert (got.daemon, got.master_process, got.worker_processes) == (False, True, 1)
    assert (got.worker_idle_grace, got.worker_shutdown_timeout) == (3.0, 0.0)
    assert got.pid == f"{tmp_path}/headgate.pid"
    assert got.env == [EnvVar("TZ", None)]
    assert got.error_log == []


def test_main_values(tmp_path: Path) -> None:
    got = main(
        tmp_path,
        "worker_processes auto; worker_priority -5; pid run/a.pid; env A; env B=1=2; env TZ=UTC; worker_rlimit_core 1g;"
        " worker_shutdown_timeout 10ms; worker_idle_grace 0; daemon on; error_log logs/e.log debug; error_log stderr;",
    )
    assert got.worker_processes == os.cpu_count()
    assert (got.worker_priority, got.worker_rlimit_core, got.daemon) == (-5, 1 << 30, True)
    assert got.pid == f"{tmp_path}/run/a.pid"
    assert got.env == [EnvVar("A", None), EnvVar("B", "1=2"), EnvVar("TZ", "UTC")]
    assert [(target.file.path, target.level) for target in got.error_log] == [
        (f"{tmp_path}/logs/e.log", Level.DEBUG),
        ("", Level.ERROR),
    ]
    assert (got.worker_idle_grace, got.worker_shutdown_timeout) == (0.0, 0.01)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("worker_processes x;", '"worker_processes" directive invalid value'),
        ("worker_processes 1; worker_processes 2;", '"worker_processes" directive is duplicate'),
        ("worker_priority 1x;", '"worker_priority" directive invalid number'),
        ("worker_cpu_affinity 012;", 'invalid character "2" in "worker_cpu_affinity"'),
        ("worker_cpu_affinity auto 01 10;", 'invalid number of arguments in "worker_cpu_affinity" directive'),
        ("error_log a.log loud;", 'invalid log level "loud"'),
        ("error_log a.log info warn;", 'duplicate log level "warn"'),
        ("error_log syslog:server=a;", '"error_log syslog:" is known to nginx but not implemented by headgate'),
        ("daemon maybe;", 'invalid value "maybe" in "daemon" directive, it must be "on" or "off"'),
        ("load_module a.so;", 'directive "load_module" is known to nginx but not implemented by headgate'),
        ("events {}", None),
        ("events { use kqueue; }", 'invalid event type "kqueue"'),
        ("events { worker_connections x; }", 'invalid number "x"'),
    ],
)
def test_main_refusals(tmp_path: Path, text: str, reason: str | None) -> None:
    if reason is None:
        assert refusal(tmp_path, text) == '"events" directive is duplicate in FILE:2'
    else:
        assert refusal(tmp_path, text) == f"{reason} in FILE:1"


def test_common_event_settings_are_taken(tmp_path: Path) -> None:
    events = conf(tmp_path, "events { use epoll; worker_connections 10; multi_accept on; accept_mutex off; }").events
    assert events.worker_connections == 10


def test_affinity(tmp_path: Path) -> None:
    got = main(tmp_path, "worker_processes 3; worker_cpu_affinity 01 10;")
    assert [got.worker_cpu_affinity.cpus(n) for n in range(3)] == [{0}, {1}, {1}]
    assert main(tmp_path, "worker_cpu_affinity 101;").worker_cpu_affinity.cpus(4) == {0, 2}
    auto = Affinity(True, [frozenset({1, 3})])
    assert [auto.cpus(n) for n in range(3)] == [{1}, {3}, {1}]
    assert Affinity(True, [frozenset()]).cpus(0) == frozenset()


def test_affinity_that_does_not_match_is_warned_of(tmp_path: Path) -> None:
    warnings = conf(tmp_path, "worker_processes 3; worker_cpu_affinity 01 10; events {}").warnings
    assert warnings == [
        'the number of "worker_processes" is not equal to the number of "worker_cpu_affinity" masks, '
        "using last mask for remaining worker processes"
    ]
