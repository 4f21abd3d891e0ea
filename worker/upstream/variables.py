"""$upstream_*: what happened at each attempt; `, ` between attempts (nginx: ngx_http_upstream_add_variables)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.template import Getter, Variable

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.peer import Attempt


def _each(show: "Callable[[Attempt], str]") -> Getter:
    def get(r: "Request") -> bytes | None:
        states = r.upstream_states
        if not states:
            return None
        if len(states) == 1:
            return show(states[0]).encode()
        out = show(states[0])
        for state in states[1:]:
            # an internal redirect to another group is marked by None between the attempts
            out += " : " if state is None else (show(state) if out.endswith(" : ") else f", {show(state)}")
        return out.encode()

    return get


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"


def _addr(r: "Request") -> bytes | None:
    states = r.upstream_states
    if not states:
        return None
    out = states[0].peer
    for state in states[1:]:
        out += b" : " if state is None else (state.peer if out.endswith(b" : ") else b", " + state.peer)
    return bytes(out)


VARIABLES = [
    Variable("upstream_addr", _addr),
    Variable("upstream_status", _each(lambda s: str(s.status) if s.status else "-")),
    Variable("upstream_connect_time", _each(lambda s: _time(s.connect_time))),
    Variable("upstream_header_time", _each(lambda s: _time(s.header_time))),
    Variable("upstream_response_time", _each(lambda s: _time(s.response_time))),
    Variable("upstream_response_length", _each(lambda s: str(s.response_length))),
    Variable("upstream_bytes_received", _each(lambda s: str(s.bytes_received))),
    Variable("upstream_bytes_sent", _each(lambda s: str(s.bytes_sent))),
]


def _http(name: str) -> Getter:
    wanted = name.replace("_", "-").encode()

    def get(r: "Request") -> bytes | None:
        u = r.upstream
        if u is None or u.head is None:
            return None
        values = [value for key, value in u.head.fields if key.lower() == wanted]
        return b", ".join(values) if values else None

    return get


def _cookie(name: str) -> Getter:
    wanted = name.lower().encode() + b"="

    def get(r: "Request") -> bytes | None:
        u = r.upstream
        if u is None or u.head is None:
            return None
        for key, value in u.head.fields:
            if key.lower() == b"set-cookie" and value[: len(wanted)].lower() == wanted:
                return value[len(wanted) :].partition(b";")[0].strip()
        return None

    return get


PREFIXES = {"upstream_http_": _http, "upstream_cookie_": _cookie}
