"""`headgate demo` tells what happens, with real processes, and leaves nothing behind however it is ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import get
from tests.harness import HEADGATE, session_members, until

Demo = tuple[subprocess.Popen[str], Callable[[str], str]]


@contextlib.contextmanager
def demo(directory: Path, *options: str) -> Iterator[Demo]:
    """The running demo, and a function that waits for a text (regular expression) in its output."""
    output = directory / "output"
    temporary = directory / "tmp"
    temporary.mkdir()
    with output.open("w") as file:
        process = subprocess.Popen(
            [HEADGATE, "demo", *options],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            text=True,
        )

    def wait(pattern: str) -> str:
        until(
            lambda: re.search(pattern, output.read_text()) or process.poll() is not None,
            lambda: f"{pattern!r} in the demo's output:\n{output.read_text()}",
            60,
        )
        found = re.search(pattern, output.read_text())
        assert found, f"the demo ended without {pattern!r}:\n{output.read_text()}"
        return found[found.re.groups]

    try:
        yield process, wait
        assert process.wait(30) == 0, output.read_text()
        assert session_members(process.pid) == []
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in output.read_text(), output.read_text()
    finally:
        for pid in session_members(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def test_tells_who_answers_who_is_taken_out_and_who_comes_back(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, wait):
        port = int(wait(r"headgate serves http://127\.0\.0\.1:(\d+)/"))
        assert re.match(rb"hello from (apple|berry|cherry), pid \d+\n", get(port).body)
        wait(r"answered: +apple [1-9]\d* +berry [1-9]\d* +cherry [1-9]\d* .*failed for the client: 0")
        wait(r"cherry starts to close connections unanswered")
        wait(r"cherry failed a request; (apple|berry) answered it instead")
        wait(r"cherry was taken out for 3 s")
        wait(r"cherry came back")
        process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ends_on_a_signal_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path) as (process, wait):
        wait("headgate serves")
        process.send_signal(number)


def test_ends_by_itself_on_the_port_asked_for(tmp_path: Path, free_port: int) -> None:
    with demo(tmp_path, "--seconds", "1", "--port", str(free_port)) as (_, wait):
        assert wait(r"headgate serves http://127\.0\.0\.1:(\d+)/") == str(free_port)
        wait("stopping")
