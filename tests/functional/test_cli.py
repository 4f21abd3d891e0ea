"""The command line: nginx's flags, its words, and where each word goes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import HEADGATE, NGINX, Server, until

Factory = Callable[..., Server]

SITE = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 "$pid"; }
    }
}
"""


def run(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADGATE, *argv], capture_output=True, text=True, timeout=15, **options)


def test_version() -> None:
    done = run("-v")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"headgate version: headgate/\d+\.\d+\.\d+\n", done.stderr)


def test_version_and_modules() -> None:
    done = run("-V")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nginx version: nginx/1.31.5\n" in done.stderr
    assert re.search(r"^built with OpenSSL \d+\.\d+\.\d+", done.stderr, re.M)
    assert "TLS SNI support enabled\n" in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("configure arguments: --with")
    assert all(re.fullmatch(r"--with(out)?-[a-z0-9_-]+", word) for word in line.split()[2:])


def test_version_imports_nothing_heavy() -> None:
    code = """
import sys
sys.argv[1:] = ["-V"]
from headgate.masterd.cli import main
try:
    main()
except SystemExit as end:
    heavy = {"click", "uvloop", "asyncio", "ssl", "headgate.conf.build"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy else end.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_goes_to_stderr() -> None:
    for flag in ("-h", "-?", "--help"):
        done = run(flag)
        assert (done.returncode, done.stdout) == (0, "")
        assert all(f"-{letter}" in done.stderr for letter in "cpgetTqsvV")


@pytest.mark.parametrize(
    "argv",
    [
        ["-x"],
        ["-tx"],
        ["word"],
        ["-p"],
        ["-c"],
        ["-e"],
        ["-g"],
        ["-s"],
        ["-s", "other"],
    ],
    ids=" ".join,
)
def test_bad_options_as_nginx(nginx: Factory, argv: list[str]) -> None:
    ours = run(*argv)
    theirs = subprocess.run([NGINX, *argv], capture_output=True, text=True)
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "", theirs.stderr.replace("nginx: ", "headgate: "))


@pytest.mark.parametrize("given", ["bad", "bad;", "pid a; pid b;", "http { }", "pid 'x", "include here.conf;"])
def test_bad_directives_as_nginx(headgate: Factory, nginx: Factory, given: str) -> None:
    server = headgate(SITE, start=False, files={"here.conf": "user root;\nbad;"})
    ours = server.run(*server.argv("-t", globals=given)[1:])
    theirs = subprocess.run([NGINX, *server.argv("-t", globals=given)[1:]], capture_output=True, text=True)
    assert (ours.returncode, ours.stderr) == (1, theirs.stderr.replace("nginx: ", "headgate: "))


def test_configuration_test(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    done = server.check()
    path = server.prefix / "nginx.conf"
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[-2:] == [
        f"headgate: the configuration file {path} syntax is ok",
        f"headgate: configuration file {path} test is successful",
    ]
    assert not (server.prefix / "logs/nginx.pid").exists()


def test_configuration_test_quietly(headgate: Factory) -> None:
    done = headgate(SITE, start=False).check("-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_configuration_test_failed(headgate: Factory) -> None:
    server = headgate("http {\n    nonsense 1;\n}", start=False)
    done = server.check()
    path = server.prefix / "nginx.conf"
    reason = f'[emerg] unknown directive "nonsense" in {path}:2'
    assert done.returncode == 1
    assert done.stderr == f"headgate: {reason}\nheadgate: configuration file {path} test failed\n"
    assert server.log_lines()[-1].endswith(reason.replace("[emerg] ", "")), "the log of -e has it too"


def test_configuration_test_beside_a_running_server(headgate: Factory) -> None:
    server = headgate(SITE + "# a running one\n")
    pid_file = server.prefix / "logs/nginx.pid"
    done = server.check()
    assert done.returncode == 0, done.stderr
    assert pid_file.read_text() == f"{server.pid}\n"
    assert server.get("/").status == 200


def test_configuration_test_removes_its_unix_socket(headgate: Factory) -> None:
    server = headgate("http { server { listen unix:%%DIR%%/a.sock; } }", start=False)
    assert server.check().returncode == 0
    assert not (server.prefix / "a.sock").exists()


def test_dump(headgate: Factory) -> None:
    server = headgate(SITE + "include more.conf;\n", start=False, files={"more.conf": "worker_processes 1;\n"})
    done = server.check("-T")
    conf = (server.prefix / "nginx.conf").read_text()
    assert done.stdout == (
        f"# configuration file {server.prefix}/nginx.conf:\n{conf}\n"
        f"# configuration file {server.prefix}/more.conf:\nworker_processes 1;\n\n"
    )
    assert f"configuration file {server.prefix}/nginx.conf test is successful" in done.stderr


def test_dump_failed(headgate: Factory) -> None:
    server = headgate("nonsense;", start=False)
    done = server.check("-T")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"configuration file {server.prefix}/nginx.conf test failed" in done.stderr


def test_start_with_a_bad_configuration(headgate: Factory) -> None:
    server = headgate("http {\n    nonsense 1;\n}", start=False)
    done = server.run(*server.argv()[1:])
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f'headgate: [emerg] unknown directive "nonsense" in {server.prefix}/nginx.conf:2\n'
    assert server.matching(r"\[emerg\] \d+#\d+: unknown directive")
    assert not (server.prefix / "logs/nginx.pid").exists()


def test_missing_configuration(tmp_path: Path) -> None:
    done = run("-p", str(tmp_path), "-c", "none.conf")
    assert done.returncode == 1
    reason = re.escape(f'open() "{tmp_path}/none.conf" failed (2: No such file or directory)')
    assert re.fullmatch(rf"\d{{4}}/\d\d/\d\d [\d:]+ \[emerg\] (\d+)#\1: {reason}\n", done.stderr)


def test_error_log_that_cannot_be_opened(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    done = server.run("-t", "-p", f"{server.prefix}/", "-e", "none/error.log", "-c", "nginx.conf", "-g", "pid a.pid;")
    assert done.stderr.startswith(
        "headgate: [alert] could not open error log file: "
        f'open() "{server.prefix}/none/error.log" failed (2: No such file or directory)\n'
    )


def test_relative_paths_start_at_the_prefix(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    argv = [HEADGATE, "-t", "-p", ".", "-c", "nginx.conf", "-e", "first.log", "-g", "error_log second.log; pid a.pid;"]
    server.ports.release()
    done = subprocess.run(argv, cwd=server.prefix, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (server.prefix / "first.log").exists()
    assert (server.prefix / "second.log").exists()


@pytest.mark.parametrize(("name", "signal_line"), [("stop", "SIGTERM"), ("quit", "SIGQUIT")])
def test_signal_that_ends_the_server(headgate: Factory, name: str, signal_line: str) -> None:
    server = headgate(SITE)
    done = server.run(*server.argv("-s", name)[1:])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.wait() == 0
    assert server.matching(signal_line)


def test_signal_reload_and_reopen(headgate: Factory) -> None:
    server = headgate(SITE)
    before = set(server.workers())
    assert server.run(*server.argv("-s", "reopen")[1:]).returncode == 0
    server.expect_log(r"reopening logs", 2)
    assert server.run(*server.argv("-s", "reload")[1:]).returncode == 0
    until(lambda: not before & set(server.workers()), "new workers")


def test_signal_without_pid_file(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    done = server.run(*server.argv("-s", "stop")[1:])
    reason = f'open() "{server.prefix}/logs/nginx.pid" failed (2: No such file or directory)'
    assert done.returncode == 1
    assert server.matching(re.escape(f": {reason}"))


def test_signal_with_a_pid_file_that_holds_no_number(headgate: Factory) -> None:
    server = headgate(SITE, start=False, files={"logs/nginx.pid": "x12\n"})
    done = server.run(*server.argv("-s", "stop")[1:])
    assert done.returncode == 1
    assert server.matching(re.escape(f'invalid PID number "x12" in "{server.prefix}/logs/nginx.pid"'))


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)], ids=str)
def test_start_with_closed_descriptors(headgate: Factory, closed: tuple[int, ...]) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    closing = " ".join(f"{fd}>&-" for fd in closed)
    process = subprocess.Popen(["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *server.argv()], start_new_session=True)
    pid_file = server.prefix / "logs/nginx.pid"
    try:
        until(lambda: pid_file.exists() and pid_file.read_text() == f"{process.pid}\n", "the pid file")
        assert server.get("/").status == 200
        taken = {fd: os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (0, 1, 2)}
        assert not [name for name in taken.values() if name.startswith("socket:")], taken
    finally:
        os.kill(process.pid, signal.SIGQUIT)
        assert process.wait(15) == 0


def test_nothing_is_written_to_stdout(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    process = subprocess.Popen(server.argv(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    pid_file = server.prefix / "logs/nginx.pid"
    until(lambda: pid_file.exists() and pid_file.read_text() == f"{process.pid}\n", "the pid file")
    os.kill(process.pid, signal.SIGHUP)
    server.expect_log("exited with code 0")
    os.kill(process.pid, signal.SIGQUIT)
    assert process.communicate(timeout=15) == (b"", b"")
