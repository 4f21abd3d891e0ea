"""How the processes start: number, user, limits, modes, and what systemd passes and is told."""

import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Server, listening, until

Factory = Callable[..., Server]

SITE = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 "$pid"; }
    }
}
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(("value", "count"), [("1", 1), ("3", 3), ("auto", os.cpu_count())])
def test_worker_processes(headgate: Factory, value: str, count: int) -> None:
    server = headgate(f"worker_processes {value};" + SITE)
    assert len(server.workers()) == count


def test_address_in_use_at_the_start(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    port = server.port()
    server.ports.release()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        done = server.run(*server.argv()[1:])
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        *[f"headgate: [emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)"] * 5,
        "headgate: [emerg] still could not bind()",
    ]
    assert not (server.prefix / "logs/nginx.pid").exists()


def test_address_that_becomes_free_meanwhile(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.allow("Address already in use")
    port = server.port()
    server.ports.release()
    holder = socket.socket()
    holder.bind(("127.0.0.1", port))
    holder.listen()
    process = subprocess.Popen(server.argv(), stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        server.expect_log("try again to bind")
        assert not (server.prefix / "logs/nginx.pid").exists()
        holder.close()
        until((server.prefix / "logs/nginx.pid").exists, "the pid file")
        assert server.get("/").status == 200
    finally:
        os.kill(process.pid, signal.SIGQUIT)
        assert process.wait(15) == 0


def test_not_enough_connections(headgate: Factory) -> None:
    done = headgate("events { worker_connections 1; }" + SITE, start=False).check()
    assert "[emerg] 1 worker_connections are not enough for 1 listening sockets" in done.stderr


@needs_root
def test_workers_drop_to_the_user(headgate: Factory) -> None:
    server = headgate("user nobody nogroup;" + SITE)
    assert server.get("/").status == 200
    (worker,) = server.workers()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {"65534"}
    assert set(status["Gid"].split()) == {"65534"}
    assert "0" not in status["Groups"].split()


@needs_root
@pytest.mark.parametrize(
    ("words", "reason"),
    [("nosuchuser", 'getpwnam("nosuchuser") failed'), ("root nosuchgroup", 'getgrnam("nosuchgroup") failed')],
)
def test_unknown_user(headgate: Factory, words: str, reason: str) -> None:
    server = headgate(f"user {words};\n" + SITE, start=False)
    assert f"[emerg] {reason} in {server.prefix}/nginx.conf:1\n" in server.check().stderr


def test_limits_priority_directory_affinity(headgate: Factory) -> None:
    server = headgate(
        """
        worker_processes 2;
        worker_rlimit_nofile 600;
        worker_rlimit_core 1m;
        worker_priority 5;
        worker_cpu_affinity auto;
        working_directory %%DIR%%/html;
        """
        + SITE
    )
    cpus = sorted(os.sched_getaffinity(server.pid))
    for index, worker in enumerate(sorted(server.workers())):
        until(
            lambda worker=worker: os.readlink(f"/proc/{worker}/cwd") == str(server.prefix / "html"),
            "the last step of the worker's start",
        )
        assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (600, 600)
        assert resource.prlimit(worker, resource.RLIMIT_CORE) == (1 << 20, 1 << 20)
        assert os.getpriority(os.PRIO_PROCESS, worker) == 5
        assert os.sched_getaffinity(worker) == {cpus[index % len(cpus)]}
    assert os.getpriority(os.PRIO_PROCESS, server.pid) == 0


def test_worker_that_can_never_start(headgate: Factory) -> None:
    server = headgate("working_directory /nonexistent;" + SITE)
    server.allow("nonexistent", "cannot be respawned")
    server.expect_log(r'\[emerg\] \d+#\d+: chdir\("/nonexistent"\) failed \(2: No such file or directory\)')
    server.expect_log(r"\[alert\] .* exited with fatal code 2 and cannot be respawned")
    assert not server.workers()
    server.send_signal(signal.SIGHUP)
    server.expect_log("cannot be respawned", 2)
    server.configure(SITE)
    server.send_signal(signal.SIGHUP)
    until(server.workers, "a worker")
    assert server.get("/").status == 200


def test_reload_to_workers_that_cannot_start_keeps_the_old_ones(headgate: Factory) -> None:
    server = headgate(SITE)
    server.allow("nonexistent", "cannot be respawned")
    old = server.workers()
    server.configure("working_directory /nonexistent;" + SITE)
    server.send_signal(signal.SIGHUP)
    server.expect_log("cannot be respawned")
    assert server.workers() == old
    assert server.get("/").text == str(old[0])
    server.reload(SITE)
    assert server.get("/").text != str(old[0])


def test_single_process(headgate: Factory) -> None:
    server = headgate("master_process off;" + SITE)
    assert server.workers() == []
    assert server.get("/").text == str(server.pid)
    client = server.client()
    client.request("GET", "/", {"Host": "a"})
    server.configure("master_process off;" + SITE.replace("$pid", "new"))
    server.send_signal(signal.SIGHUP)
    until(lambda: server.get("/").text == "new", "the new configuration")
    reply = client.request("GET", "/", {"Host": "a"})
    assert (reply.text, reply.header("Connection")) == (str(server.pid), "close")
    server.allow("nonsense")
    server.configure("nonsense;")
    server.send_signal(signal.SIGHUP)
    server.expect_log("unknown directive")
    assert server.get("/").text == "new"
    assert server.stop() == 0
    assert not (server.prefix / "logs/nginx.pid").exists()


def test_daemon(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    settings = "daemon on; pid logs/nginx.pid; error_log logs/error.log info;"
    done = server.run(*server.argv(globals=settings)[1:])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid_file = server.prefix / "logs/nginx.pid"
    pid = int(pid_file.read_text())  # it is there as soon as the command has ended
    try:
        assert os.getsid(pid) == pid
        assert server.get("/").status == 200
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)} == {"/dev/null"}
    finally:
        assert server.run(*server.argv("-s", "quit", globals=settings)[1:]).returncode == 0
        until(lambda: not pid_file.exists(), "the end")


def test_daemon_that_cannot_write_its_pid_file(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    (server.prefix / "logs/pid").mkdir()
    done = server.run(*server.argv(globals="daemon on; pid logs/pid; error_log logs/error.log;")[1:])
    assert done.returncode == 1
    assert "Is a directory" in server.tail()


def test_standard_error_goes_to_the_error_log(headgate: Factory) -> None:
    server = headgate(SITE)
    for pid in (server.pid, *server.workers()):
        assert os.readlink(f"/proc/{pid}/fd/2") == str(server.prefix / "logs/error.log")


def test_error_log_on_standard_error(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    settings = "daemon off; pid logs/nginx.pid; error_log stderr notice;"
    process = subprocess.Popen(server.argv(globals=settings), stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: (server.prefix / "logs/nginx.pid").exists(), "the pid file")
    os.kill(process.pid, signal.SIGQUIT)
    _, text = process.communicate(timeout=15)
    assert f"[notice] {process.pid}#{process.pid}: start worker processes\n" in text
    assert text.endswith(": exit\n")


def test_reuseport_gives_each_worker_a_socket(headgate: Factory) -> None:
    site = SITE.replace("%%PORT_0%%", "%%PORT_0%% reuseport")
    server = headgate("worker_processes 2;" + site)
    assert len(listening(server.pid)) == 2
    until(lambda: [len(listening(worker)) for worker in server.workers()] == [1, 1], "each worker has its own alone")
    first = listening(server.pid)
    server.reload("worker_processes 3;" + site)
    assert first < listening(server.pid)
    assert len(listening(server.pid)) == 3
    server.reload("worker_processes 1;" + SITE)
    until(lambda: len(listening(server.pid)) == 1, "one socket")
    assert listening(server.pid) < first
    server.reload("worker_processes 2;" + site)
    assert len(listening(server.pid)) == 2
    assert server.get("/").status == 200


def test_sockets_passed_by_systemd(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    with socket.socket() as passed, socket.socket() as unknown:
        passed.bind(("127.0.0.1", server.port()))
        unknown.bind(("127.0.0.1", 0))
        for sock in (passed, unknown):
            sock.listen()
        inode = os.stat(passed.fileno()).st_ino
        other = unknown.getsockname()[1]
        script = (
            f"exec 8<&{passed.fileno()} 9<&{unknown.fileno()} {passed.fileno()}<&- {unknown.fileno()}<&-;"
            ' exec 3<&8 4<&9 8<&- 9<&-; export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@"'
        )
        descriptors = (passed.fileno(), unknown.fileno())
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "sh", *server.argv()], pass_fds=descriptors, start_new_session=True
        )
    try:
        until(lambda: (server.prefix / "logs/nginx.pid").exists(), "the pid file")
        assert server.get("/").status == 200
        assert listening(process.pid) == {str(inode)}
        assert server.matching(rf"\[warn\] .* inherited socket 127.0.0.1:{other} is in no listen directive, closed")
    finally:
        os.kill(process.pid, signal.SIGQUIT)
        assert process.wait(15) == 0


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a service manager would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(15)
        yield sock


def _message(sock: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())


def test_service_manager_is_told(headgate: Factory, notifications: socket.socket) -> None:
    server = headgate(SITE, env={"NOTIFY_SOCKET": notifications.getsockname()})
    ready = _message(notifications)
    assert (ready["READY"], ready["MAINPID"]) == ("1", str(server.pid))
    server.send_signal(signal.SIGHUP)
    reloading = _message(notifications)
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert _message(notifications)["READY"] == "1"
    server.allow("nonsense")
    server.configure("nonsense;")
    server.send_signal(signal.SIGHUP)
    assert _message(notifications)["RELOADING"] == "1"
    refused = _message(notifications)
    assert refused["READY"] == "1"
    assert "refused" in refused["STATUS"]
    server.send_signal(signal.SIGTERM)
    assert _message(notifications)["STOPPING"] == "1"
    assert server.wait() == 0
