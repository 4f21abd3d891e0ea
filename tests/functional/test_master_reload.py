"""SIGHUP: the new configuration whole or not at all, and nothing lost on the way."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable

from tests.client import Client
from tests.harness import Server, descriptors, listening, until

Factory = Callable[..., Server]

SITE = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200 "$pid"; }
    }
}
"""
OTHER = SITE.replace("PORT_0", "PORT_1")
SPARE = "# %%PORT_1%% is given out, but not held, from the start\n"


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def pipes(pid: int) -> list[str]:
    """The pipes that a process has."""
    return [name for fd, name in descriptors(pid).items() if fd > 2 and name.startswith("pipe:")]


def test_new_workers_serve_the_new_configuration(headgate: Factory) -> None:
    server = headgate("worker_processes 1;" + SITE)
    old = server.get("/").text
    server.reload("worker_processes 2;" + SITE.replace("$pid", "new"))
    assert server.get("/").text == "new"
    until(lambda: int(old) not in server.workers(), "the old worker's end")
    assert len(server.workers()) == 2
    assert len(server.expect_log(rf"worker process {old} exited with code 0")) == 1


def test_bad_configuration_leaves_the_old_one_serving(headgate: Factory) -> None:
    server = headgate(SITE)
    server.allow(r"\[emerg\] \d+#\d+: unknown directive \"nonsense\"")
    workers = server.workers()
    server.configure(SITE + "nonsense on;\n")
    line = (server.prefix / "nginx.conf").read_text().split("nonsense")[0].count("\n") + 1
    server.send_signal(signal.SIGHUP)
    server.expect_log(re.escape(f'unknown directive "nonsense" in {server.prefix}/nginx.conf:{line}'))
    assert server.workers() == workers
    assert server.get("/").text == str(workers[0])
    server.reload(SITE)
    assert server.get("/").status == 200


def test_address_in_use_leaves_the_old_one_serving(headgate: Factory) -> None:
    server = headgate(SITE)
    server.allow("Address already in use", "still could not bind")
    workers = server.workers()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        server.configure(SITE.replace("listen", f"listen 127.0.0.1:{taken}; listen", 1))
        server.send_signal(signal.SIGHUP)
        server.expect_log(r"\[emerg\] \d+#\d+: still could not bind\(\)")
    bind = rf"\[emerg\] \d+#\d+: bind\(\) to 127.0.0.1:{taken} failed \(98: Address already in use\)"
    assert len(server.matching(bind)) == 5
    assert server.workers() == workers
    assert server.get("/").text == str(workers[0])


def test_unwritable_log_leaves_the_old_one_serving(headgate: Factory) -> None:
    server = headgate(SPARE + SITE)
    server.allow("No such file or directory")
    until(lambda: not pipes(server.pid), "the worker said that it serves")
    before = len(descriptors(server.pid))
    server.configure(OTHER.replace("server {", "access_log nowhere/a.log; server {"))
    server.send_signal(signal.SIGHUP)
    server.expect_log(
        re.escape(f'[emerg] {server.pid}#{server.pid}: open() "{server.prefix}/nowhere/a.log" failed (2: No such')
    )
    assert server.get("/").status == 200
    assert refused(server.port(1))
    assert len(descriptors(server.pid)) == before, "what was opened is closed again"


def test_addresses_come_go_and_stay(headgate: Factory) -> None:
    server = headgate(SPARE + SITE)
    kept = listening(server.pid)
    server.reload(SITE.replace("listen", "listen 127.0.0.1:%%PORT_1%%; listen", 1))
    assert server.get("/", index=1).status == 200
    assert kept < listening(server.pid), "the socket of the unchanged address is the same"
    server.reload(SITE)
    until(lambda: refused(server.port(1)), "the removed address closed")
    assert listening(server.pid) == kept
    assert server.get("/").status == 200


def test_unix_socket_comes_stays_and_goes(headgate: Factory) -> None:
    both = SITE.replace("listen", "listen unix:%%DIR%%/a.sock; listen", 1)
    server = headgate(SITE)
    path = server.prefix / "a.sock"
    server.reload(both)
    inode = path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o666
    server.reload(both)
    assert path.stat().st_ino == inode
    server.reload(SITE)
    assert not path.exists()


def test_request_in_flight_is_finished_by_the_old_worker(headgate: Factory) -> None:
    server = headgate(SITE)
    (old,) = server.workers()
    client = server.client()
    assert client.request("GET", "/", {"Host": "a"}).text == str(old)
    client.send(b"GET / HTTP/1.1\r\n")
    server.reload()
    assert server.get("/").text != str(old)
    client.send(b"Host: a\r\n\r\n")
    reply = client.response()
    assert (reply.text, reply.header("Connection")) == (str(old), "close")
    until(lambda: old not in server.workers(), "the old worker's end")


def test_idle_connection_may_send_one_more_request(headgate: Factory) -> None:
    server = headgate("worker_idle_grace 30s;" + SITE)
    (old,) = server.workers()
    client = server.client()
    client.request("GET", "/", {"Host": "a"})
    server.reload()
    reply = client.request("GET", "/", {"Host": "a"})
    assert (reply.text, reply.header("Connection")) == (str(old), "close")
    assert client.closed()
    until(lambda: old not in server.workers(), "the old worker's end")


def test_idle_connection_is_closed_after_the_grace(headgate: Factory) -> None:
    server = headgate("worker_idle_grace 100ms;" + SITE)
    client = server.client()
    client.request("GET", "/", {"Host": "a"})
    server.reload()
    assert client.closed()


def test_no_request_is_lost_under_keepalive_load(headgate: Factory) -> None:
    server = headgate("worker_processes 2;" + SITE)
    stop = threading.Event()
    answered, lost = [0] * 4, []

    def load(index: int) -> None:
        client = Client(server.port())
        while not stop.is_set():
            try:
                reply = client.request("GET", "/", {"Host": "a"})
            except (OSError, EOFError) as error:
                lost.append(error)
                return
            answered[index] += 1
            if reply.header("Connection") == "close":
                client.close()
                client = Client(server.port())
        client.close()

    threads = [threading.Thread(target=load, args=(index,)) for index in range(len(answered))]
    for thread in threads:
        thread.start()
    for _ in range(10):
        before = sum(answered)
        server.reload()
        until(lambda before=before: sum(answered) > before + 20, "requests between two reloads")
    stop.set()
    for thread in threads:
        thread.join(15)
    assert not lost


def test_pid_file_moves(headgate: Factory) -> None:
    server = headgate(SITE, start=False)
    server.ports.release()
    text = (server.prefix / "nginx.conf").read_text()
    first, second = server.prefix / "first.pid", server.prefix / "second.pid"
    server.write("nginx.conf", text + "pid first.pid;")
    process = subprocess.Popen(server.argv(globals="error_log logs/error.log info;"), start_new_session=True)
    try:
        until(first.exists, "the pid file")
        server.write("nginx.conf", text + "pid second.pid;")
        os.kill(process.pid, signal.SIGHUP)
        until(second.exists, "the new pid file")
        until(lambda: not first.exists(), "the old one removed")
        assert second.read_text() == f"{process.pid}\n"
    finally:
        os.kill(process.pid, signal.SIGQUIT)
        assert process.wait(15) == 0
    assert not second.exists()
