"""What an error log line says of its request, as nginx writes it; and a failure of the program's own on one line."""

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.worker.http.request import Request


def context(r: "Request") -> str:
    """` while ..., client: ..., server: ..., request: "...", upstream: "...", host: "..."`."""
    text = f" while {r.action}" if r.action else ""
    names = r.server.names
    text += f", client: {os.fsdecode(r.conn.remote_addr)}, server: {names[0] if names else ''}"
    text += f', request: "{os.fsdecode(r.line)}"'
    if r.parent is not None:
        text += f', subrequest: "{os.fsdecode(r.uri)}"'
    if r.upstream is not None and r.upstream.url:
        text += f', upstream: "{r.upstream.url}"'
    host = r.header(b"host")
    if host is not None:  # the field, also where the target names another host
        text += f', host: "{os.fsdecode(host)}"'
    referer = r.header(b"referer")
    return text + (f', referrer: "{os.fsdecode(referer)}"' if referer is not None else "")


def described(failure: BaseException) -> str:
    """The traceback, its lines parted by bars."""
    return "".join(traceback.format_exception(failure)).rstrip().replace("\n", " | ")
