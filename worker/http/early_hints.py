"""`early_hints`: whether interim responses with status 103 (RFC 8297) are sent to clients."""

from typing import TYPE_CHECKING

from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.worker.http.head import HTTP_11

if TYPE_CHECKING:
    from headgate.worker.http.llhttp import Header
    from headgate.worker.http.request import Request


def _predicates(call: Call) -> list[Template]:
    return [call.template(text) for text in call.args]


class EarlyHintsConf(Conf, level=Ctx.LOCATION):
    """Texts: hints are sent where at least one of them is neither empty nor "0"."""

    wanted: list[Template] = directive("early_hints", HSL, "1+", _predicates, default=[])


def send(r: "Request", fields: "list[Header]") -> None:
    """Send a 103 with these fields now, if the client may have one."""
    if not fields or r.version < HTTP_11 or r.parent is not None or r.header_sent:
        return
    if any(text.get(r) not in (b"", b"0") for text in r.location.get(EarlyHintsConf).wanted):
        lines = [b"HTTP/1.1 103 Early Hints", *(b": ".join(field) for field in fields), b"\r\n"]
        r.conn.write(b"\r\n".join(lines))
