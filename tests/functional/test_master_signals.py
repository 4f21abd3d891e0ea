"""What the master does on each signal, and what is left when it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import Backend, Request
from tests.client import Client
from tests.harness import Server, connected, until

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


def gone(pid: int) -> bool:
    """True when no process has this pid, or it is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def half_a_request(server: Server) -> Client:
    """A connection that a worker has accepted and reads a request from."""
    probe = server.client()
    probe.send(b"GET / HTTP/1.1\r\n")
    until(lambda: any(connected(worker) for worker in server.workers()), "the connection in a worker")
    return probe


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_end_leaves_nothing(headgate: Factory, number: signal.Signals) -> None:
    server = headgate("worker_processes 2;" + SITE)
    workers = server.workers()
    assert len(workers) == 2
    assert server.stop(number) == 0
    assert all(gone(pid) for pid in workers)
    assert not (server.prefix / "logs/nginx.pid").exists()
    assert len(server.matching(r"worker process \d+ exited with code 0")) == 2
    assert server.log_lines()[-1].endswith(": exit")


def test_quit_finishes_what_is_in_flight_and_accepts_no_more(headgate: Factory) -> None:
    server = headgate(SITE)
    client = half_a_request(server)
    server.send_signal(signal.SIGQUIT)
    server.expect_log("gracefully shutting down")
    until(lambda: _refused(server), "the listening socket closed")
    client.send(b"Host: a\r\n\r\n")
    reply = client.response()
    assert (reply.status, reply.header("Connection")) == (200, "close")
    assert server.wait() == 0


def _refused(server: Server) -> bool:
    try:
        Client(server.port()).close()
    except ConnectionRefusedError:
        return True
    return False


def test_quit_closes_idle_connections_at_once(headgate: Factory) -> None:
    server = headgate("worker_idle_grace 60s;" + SITE)
    client = server.client()
    assert client.request("GET", "/", {"Host": "a"}).status == 200
    server.send_signal(signal.SIGQUIT)
    assert client.closed()
    assert server.wait() == 0


def test_quit_leaves_idle_connections_their_keepalive_min_timeout(headgate: Factory) -> None:
    server = headgate(SITE.replace("server {", "keepalive_min_timeout 1s; server {", 1))
    one, two = server.client(), server.client()
    for client in (one, two):
        assert client.request("GET", "/", {"Host": "a"}).status == 200
    server.send_signal(signal.SIGQUIT)
    server.expect_log("gracefully shutting down")
    reply = one.request("GET", "/", {"Host": "a"})
    assert (reply.status, reply.header("connection")) == (200, "close")
    assert one.closed() and two.closed()
    assert server.wait() == 0


def test_terminate_cuts_what_is_in_flight(headgate: Factory) -> None:
    server = headgate(SITE)
    client = half_a_request(server)
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert client.closed()


def test_terminate_after_quit(headgate: Factory) -> None:
    server = headgate(SITE)
    half_a_request(server)
    server.send_signal(signal.SIGQUIT)
    server.expect_log("gracefully shutting down")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_stopped_worker_is_killed_at_the_end(headgate: Factory) -> None:
    server = headgate(SITE)
    server.allow("exited on signal 9")
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.matching(rf"worker process {worker} exited on signal 9")


def test_shutdown_timeout_cuts_what_never_ends(headgate: Factory) -> None:
    server = headgate("worker_shutdown_timeout 50ms;" + SITE)
    client = half_a_request(server)
    server.send_signal(signal.SIGQUIT)
    assert client.closed()
    assert server.wait() == 0


def test_winch_stops_workers_and_reload_brings_them_back(headgate: Factory) -> None:
    server = headgate("worker_processes 2;" + SITE)
    server.send_signal(signal.SIGWINCH)
    until(lambda: not server.workers(), "the workers' end")
    assert server.running()
    server.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2, "new workers")
    assert server.get("/").status == 200


def test_usr1_reopens_logs_in_all_processes(headgate: Factory) -> None:
    server = headgate(SITE)
    assert server.get("/").status == 200
    server.access_log(1)
    for name in ("error", "access"):
        os.rename(server.prefix / f"logs/{name}.log", server.prefix / f"logs/{name}.old")
    before = len(server.log_lines("logs/error.old"))
    server.send_signal(signal.SIGUSR1)
    until(lambda: len(server.matching(": reopening logs", "logs/error.old")) == 2, "both processes")
    assert server.get("/").status == 200
    assert len(server.access_log(1)) == 1
    assert len(server.log_lines("logs/access.old")) == 1
    server.reload()
    server.expect_log("reconfiguring")
    assert len(server.log_lines("logs/error.old")) - before <= 4, "nobody writes to the old file any more"


@needs_root
def test_workers_of_another_user_can_reopen_logs(headgate: Factory) -> None:
    server = headgate("user nobody nogroup;\n" + SITE)
    server.prefix.chmod(0o755)
    (server.prefix / "logs").chmod(0o755)
    for parent in (server.prefix.parent, server.prefix.parent.parent, server.prefix.parent.parent.parent):
        parent.chmod(0o755)
    os.rename(server.prefix / "logs/error.log", server.prefix / "logs/error.old")
    server.send_signal(signal.SIGUSR1)
    until(lambda: len(server.matching(": reopening logs", "logs/error.old")) == 2, "both processes")
    os.kill(server.workers()[0], signal.SIGTERM)
    server.expect_log(": exiting")  # written by the worker itself


def test_sigterm_to_a_worker_is_a_clean_end_and_it_is_replaced(headgate: Factory) -> None:
    server = headgate(SITE)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGTERM)
    server.expect_log(rf"worker process {worker} exited with code 0")
    until(lambda: server.workers() not in ([], [worker]), "another worker")
    assert server.get("/").status == 200


def test_killed_worker_is_logged_and_replaced_at_once(headgate: Factory) -> None:
    server = headgate("worker_processes 2;" + SITE)
    server.allow("exited on signal 9")
    server.get("/")
    for _ in range(5):
        victim = server.workers()[0]
        started = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: len(server.workers()) == 2 and victim not in server.workers(), "another worker")
        assert time.monotonic() - started < 2
        server.expect_log(rf"\[alert\] {server.pid}#{server.pid}: worker process {victim} exited on signal 9")
        assert server.get("/").status == 200


def test_workers_leave_when_the_master_is_killed(headgate: Factory) -> None:
    server = headgate("worker_processes 2;\nworker_idle_grace 0;" + SITE)
    workers = server.workers()
    client = half_a_request(server)
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    until(lambda: _refused(server), "the address is free")
    client.send(b"Host: a\r\n\r\n")
    assert client.response().status == 200, "what is in flight is finished"
    until(lambda: all(gone(pid) for pid in workers), "the workers' end")
    server.process = None
    server.start()
    assert server.get("/").status == 200


@needs_root
def test_workers_of_another_user_leave_too(headgate: Factory) -> None:
    server = headgate("user nobody nogroup;\n" + SITE)
    workers = server.workers()
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    until(lambda: all(gone(pid) for pid in workers), "the workers' end")


def test_unix_socket_of_a_killed_server_is_taken_over(headgate: Factory) -> None:
    server = headgate("http { server { listen unix:%%DIR%%/a.sock; } }")
    workers = server.workers()
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    until(lambda: all(gone(pid) for pid in workers), "the workers' end")
    assert (server.prefix / "a.sock").exists()
    server.process = None
    server.start()
    assert server.matching(r"removing .*/a.sock, no server listens on it")
    server.stop()
    assert not (server.prefix / "a.sock").exists()


def test_connections_of_a_killed_worker_are_given_back(headgate: Factory, backend: Callable[..., Backend]) -> None:
    gate = threading.Event()

    def answer(request: Request) -> Iterator[bytes]:
        if request.target == "/slow":
            gate.wait(15)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    slow = backend(answer)
    server = headgate(
        f"""
        http {{
            upstream u {{ zone u 64k; server {slow.address} max_conns=1; }}
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                location / {{ proxy_pass http://u; }}
            }}
        }}
        """
    )
    server.allow("exited on signal 9", "no live upstreams")
    for number in range(1, 6):
        server.client().send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.wait_requests(2 * number - 1)
        assert server.get("/").status == 502, "the only connection is taken"
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: server.workers() not in ([], [worker]), "another worker")
        assert server.get("/").body == b"ok"
    gate.set()
