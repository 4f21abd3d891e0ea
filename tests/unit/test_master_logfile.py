"""Error log lines, levels and files."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from headgate.masterd.logfile import ErrorLog, Level, LogFile, LogFiles, LogTarget, failed


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    out = LogFile(str(tmp_path / "error.log"))
    out.open()
    yield out
    out.close()


def lines(file: LogFile) -> list[str]:
    return Path(file.path).read_text(errors="surrogateescape").splitlines()


def test_line_has_nginx_format(file: LogFile) -> None:
    log = ErrorLog([LogTarget(file, Level.ERROR)])
    log.emit(Level.ERROR, "upstream timed out")
    log.emit(Level.CRIT, "open() failed", connection=5)
    first, second = lines(file)
    pid = os.getpid()
    assert re.fullmatch(
        rf"\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[error\] {pid}#{pid}: upstream timed out",
        first,
    )
    assert second.endswith(f" [crit] {pid}#{pid}: *5 open() failed")


def test_a_child_writes_its_own_pid(file: LogFile) -> None:
    log = ErrorLog([LogTarget(file, Level.ERROR)])
    pid = os.fork()
    if pid == 0:
        log.emit(Level.ERROR, "child")
        os._exit(0)
    os.waitpid(pid, 0)
    assert lines(file)[0].endswith(f" {pid}#{pid}: child")


def test_levels_choose_targets(tmp_path: Path) -> None:
    files = LogFiles()
    grave, all_ = files.get(str(tmp_path / "grave")), files.get(str(tmp_path / "all"))
    files.open()
    log = ErrorLog([LogTarget(grave, Level.CRIT), LogTarget(all_, Level.INFO)])
    assert [log.enabled(level) for level in (Level.INFO, Level.DEBUG)] == [True, False]
    for level in Level:
        log.emit(level, level.name)
    assert [line.split()[-1] for line in lines(grave)] == ["EMERG", "ALERT", "CRIT"]
    assert [line.split()[-1] for line in lines(all_)] == [level.name for level in Level if level < Level.DEBUG]
    files.close()


def test_no_targets_write_nothing() -> None:
    log = ErrorLog([])
    assert not log.enabled(Level.EMERG)
    log.emit(Level.EMERG, "lost")


def test_a_line_stays_one_line_and_is_cut(file: LogFile) -> None:
    log = ErrorLog([LogTarget(file, Level.ERROR)])
    log.emit(Level.ERROR, "a\r\nb\x00")
    log.emit(Level.ERROR, "x" * 5000)
    log.emit(Level.ERROR, os.fsdecode(b"raw \xff byte"))
    text = Path(file.path).read_bytes().splitlines(keepends=True)
    assert text[0].endswith(b"a\\x0D\\x0Ab\\x00\n")
    assert len(text[1]) == 2048
    assert text[2].endswith(b"raw \xff byte\n")
    assert len(text) == 3


def test_traceback_is_a_line_each(file: LogFile) -> None:
    log = ErrorLog([LogTarget(file, Level.ALERT)])
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        log.emit_error(Level.ALERT, "a handler failed", error)
    got = lines(file)
    assert got[0].endswith("a handler failed")
    assert got[-1].endswith("RuntimeError: boom")
    assert all("[alert]" in line for line in got)


def test_console_gets_warnings_until_the_start_is_over(
    file: LogFile, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ErrorLog, "console", True)
    log = ErrorLog([LogTarget(file, Level.NOTICE)])
    log.emit(Level.WARN, "careful")
    log.emit(Level.NOTICE, "started")
    assert capfd.readouterr().err == "headgate: [warn] careful\n"
    both = ErrorLog([LogTarget(file, Level.NOTICE), LogTarget(LogFile("", 2), Level.NOTICE)])
    both.emit(Level.EMERG, "once")
    assert capfd.readouterr().err.count("once") == 1
    monkeypatch.setattr(ErrorLog, "console", False)
    log.emit(Level.EMERG, "log only")
    assert capfd.readouterr().err == ""


def test_reopen_follows_the_name_and_flushes_first(tmp_path: Path) -> None:
    files = LogFiles()
    file = files.get(str(tmp_path / "access.log"))
    assert files.get(str(tmp_path / "access.log")) is file
    files.open()
    log = ErrorLog([LogTarget(file, Level.NOTICE)])
    file.flushers.append(lambda: file.write(b"buffered\n"))
    os.rename(file.path, tmp_path / "old.log")
    files.reopen(log)
    file.write(b"new\n")
    assert (tmp_path / "old.log").read_text() == "buffered\n"
    assert (tmp_path / "access.log").read_text() == "new\n"
    files.close()


def test_reopen_that_fails_goes_on_with_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    files = LogFiles()
    file = files.get(str(tmp_path / "logs/a.log"))
    files.open()
    log = ErrorLog([LogTarget(file, Level.NOTICE)])
    os.rename(tmp_path / "logs", tmp_path / "moved")
    files.reopen(log)
    reason = f'open() "{file.path}" failed (2: No such file or directory)'
    assert reason in (tmp_path / "moved/a.log").read_text()
    files.close()


def test_writing_never_raises(tmp_path: Path) -> None:
    full = LogFile("/dev/full", os.open("/dev/full", os.O_WRONLY))
    full.write(b"lost\n")
    full.close()
    full.write(b"closed\n")


def test_fifo_without_a_reader_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        LogFile(str(tmp_path / "fifo")).open()


def test_failed() -> None:
    assert (
        failed("bind() to 0.0.0.0:80", PermissionError(13, "x"))
        == "bind() to 0.0.0.0:80 failed (13: Permission denied)"
    )
