"""Listening sockets: shared between cycles, given back when a cycle fails."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from headgate.masterd.listen import ListenError, Listeners
from headgate.masterd.logfile import ErrorLog, Level, LogFile, LogTarget
from headgate.worker.http.listen import Address, Listen


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ErrorLog]:
    file = LogFile(str(tmp_path / "error.log"))
    file.open()
    yield ErrorLog([LogTarget(file, Level.DEBUG)])
    file.close()


@pytest.fixture
def made() -> Iterator[list[Listeners]]:
    out: list[Listeners] = []
    yield out
    for listeners in out:
        for entry in listeners.entries.values():
            for sock in entry.sockets:
                sock.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def tcp(port: int) -> Listen:
    return Listen(Address(socket.AF_INET, ("127.0.0.1", port), f"127.0.0.1:{port}"))


def unix(path: Path) -> Listen:
    return Listen(Address(socket.AF_UNIX, str(path), f"unix:{path}"))


def opened(made: list[Listeners], log: ErrorLog, listens: list[Listen], old: Listeners, workers: int = 1) -> Listeners:
    listeners = Listeners()
    made.append(listeners)
    listeners.open(listens, workers, old, log, testing=False)
    return listeners


def sockets(listeners: Listeners) -> list[socket.socket]:
    return [sock for entry in listeners.entries.values() for sock in entry.sockets]


def test_unchanged_addresses_keep_their_socket(made: list[Listeners], log: ErrorLog) -> None:
    a, b, c = (tcp(free_port()) for _ in range(3))
    old = opened(made, log, [a, b], Listeners())
    new = opened(made, log, [b, c], old)
    new.commit(old, log)
    kept = sockets(old)[1]
    assert sockets(new)[0] is kept
    assert sockets(old)[0].fileno() == -1, "what the new cycle has not is closed"
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets(new))


def test_abandoned_cycle_closes_only_its_own(made: list[Listeners], log: ErrorLog, tmp_path: Path) -> None:
    a = tcp(free_port())
    old = opened(made, log, [a], Listeners())
    new = opened(made, log, [a, tcp(free_port()), unix(tmp_path / "s")], old)
    new.abandon()
    assert sockets(old)[0].fileno() >= 0
    assert [sock.fileno() for sock in sockets(new)[1:]] == [-1, -1]
    assert not (tmp_path / "s").exists()


def test_failure_closes_what_was_opened(made: list[Listeners], log: ErrorLog) -> None:
    good = tcp(free_port())
    bad = Listen(Address(socket.AF_INET, ("192.0.2.1", 80), "192.0.2.1:80"))
    with pytest.raises(ListenError, match=r"bind\(\) to 192.0.2.1:80 failed \(99: Cannot assign requested address\)"):
        opened(made, log, [good, bad], Listeners())
    with socket.socket() as again:
        again.bind(good.address.sockaddr)


def test_testing_passes_over_an_address_in_use(made: list[Listeners], log: ErrorLog) -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        listeners = Listeners()
        listeners.open([tcp(port)], 1, Listeners(), log, testing=True)
        assert sockets(listeners) == []


def test_backlog_changes_on_the_same_socket(made: list[Listeners], log: ErrorLog) -> None:
    port = free_port()
    old = opened(made, log, [tcp(port)], Listeners())
    larger = tcp(port)
    larger.backlog = 7
    larger.rcvbuf = 65536
    new = opened(made, log, [larger], old)
    assert sockets(new) == sockets(old)
    assert sockets(new)[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * 65536


def test_one_socket_a_worker_with_reuseport(made: list[Listeners], log: ErrorLog) -> None:
    plain = tcp(free_port())
    shared = tcp(plain.address.port)
    shared.reuseport = True
    one = opened(made, log, [plain], Listeners(), workers=2)
    two = opened(made, log, [shared], one, workers=2)
    assert len(sockets(two)) == 2
    assert sockets(two)[0] is sockets(one)[0], "the first socket and its backlog are kept"
    two.commit(one, log)
    back = opened(made, log, [plain], two, workers=2)
    back.commit(two, log)
    assert sockets(back) == [sockets(two)[0]]
    assert sockets(two)[1].fileno() == -1


def test_a_worker_gets_its_own_socket_only(made: list[Listeners], log: ErrorLog) -> None:
    shared, plain = tcp(free_port()), tcp(free_port())
    shared.reuseport = True
    listeners = opened(made, log, [shared, plain], Listeners(), workers=2)
    all_ = sockets(listeners)
    mine = listeners.for_worker(1)
    assert [listen for listen, _ in mine] == [shared, plain]
    assert [sock for _, sock in mine] == [all_[1], all_[2]]
    assert all_[0].fileno() == -1


def test_addresses_written_differently_are_the_same(made: list[Listeners], log: ErrorLog) -> None:
    port = free_port()
    short = Listen(Address(socket.AF_INET6, ("::1", port, 0, 0), f"[::1]:{port}"))
    long = Listen(Address(socket.AF_INET6, ("0:0::1", port), f"[::1]:{port}"))
    old = opened(made, log, [short], Listeners())
    assert sockets(opened(made, log, [long], old)) == sockets(old)


def test_stale_unix_socket_is_replaced_a_live_one_is_not(
    made: list[Listeners], log: ErrorLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    first = opened(made, log, [unix(path)], Listeners())
    monkeypatch.setattr("headgate.masterd.listen.PAUSE", 0.0)
    with pytest.raises(ListenError, match="still could not bind"):
        opened(made, log, [unix(path)], Listeners())
    first.close(log)
    assert not path.exists()


def test_systemd_sockets_are_matched_and_their_files_kept(
    made: list[Listeners], log: ErrorLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        monkeypatch.setattr("headgate.masterd.listen.SYSTEMD_FIRST_FD", os.dup(passed.fileno()))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    inherited = Listeners.from_systemd(log)
    made.append(inherited)
    assert "LISTEN_FDS" not in os.environ
    listeners = opened(made, log, [unix(path)], inherited)
    listeners.commit(inherited, log)
    assert sockets(listeners) == sockets(inherited)
    listeners.close(log)
    assert path.exists(), "systemd made it and will use it again"


def test_descriptors_for_another_process_are_left_alone(log: ErrorLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "5")
    assert Listeners.from_systemd(log).entries == {}
