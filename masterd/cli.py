"""The `headgate` command: nginx's flags with nginx's meaning, and the words that are headgate's own.

This file is the way in, `headgate.masterd.commands` has the flags. Rules: `-v` and `-V` answer before
anything heavy is imported; all that is said goes to standard error, only what was asked for (`-T`) goes
to standard output.
"""

import os
import signal
import sys
from typing import NoReturn

VERSION = "0.1.0"
NGINX_VERSION = "1.31.5"  # the language level that tools made for nginx look for


def main() -> NoReturn:
    """The `headgate` command."""
    _ensure_standard_descriptors()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is no error, so no traceback
    argv = sys.argv[1:]
    if argv in (["-v"], ["-V"]):
        show_version(configuration=argv == ["-V"])
        sys.exit(0)
    from headgate.masterd.commands import execute

    sys.exit(execute(argv))


def _ensure_standard_descriptors() -> None:
    """Whoever starts us may have closed some of 0, 1 and 2: the next file opened must not become one of them."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            break
        os.set_inheritable(fd, True)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "w", closefd=False))  # noqa: SIM115


def show_version(configuration: bool) -> None:
    """What `-v` and `-V` print."""
    lines = [f"headgate version: headgate/{VERSION}"]
    if configuration:
        from _ssl import OPENSSL_VERSION  # not ssl: that would take longer than all the rest

        from headgate.masterd.modules_info import configure_arguments

        lines += [
            f"nginx version: nginx/{NGINX_VERSION}",
            f"running on Python {sys.version.split()[0]}",
            f"built with {OPENSSL_VERSION}",
            "TLS SNI support enabled",
            "configure arguments: " + " ".join(configure_arguments()),
        ]
    os.write(2, ("\n".join(lines) + "\n").encode())
