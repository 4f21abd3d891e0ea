"""Tells systemd how the service stands (sd_notify(3)); does nothing when not started by systemd."""

import contextlib
import os
import socket
import time

_ADDRESS = os.environ.get("NOTIFY_SOCKET", "")  # as we were started: the `env` directive clears it


def notify(**state: str | int) -> None:
    """Send the assignments, e.g. `notify(READY=1, STATUS="4 workers")`; failures do not matter to us."""
    if not _ADDRESS.startswith(("/", "@")):
        return
    text = "\n".join(f"{name}={value}" for name, value in state.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect("\0" + _ADDRESS[1:] if _ADDRESS.startswith("@") else _ADDRESS)
        sock.send(text.encode())


def ready(status: str) -> None:
    """The configuration in force is served; ends a start or a reload."""
    notify(READY=1, MAINPID=os.getpid(), STATUS=status)


def reloading() -> None:
    """A reload begins; Type=notify-reload wants the clock that it can tell stale answers by."""
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, STATUS="reloading")


def stopping(status: str) -> None:
    notify(STOPPING=1, STATUS=status)
