"""$upstream_*: what happened at each attempt; `, ` between attempts (nginx: ngx_http_upstream_add_variables)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.template import Getter, Variable
from headgate.worker.http.variables import named

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
    field = name.encode()

    def get(r: "Request") -> bytes | None:
        head = r.upstream.head if r.upstream is not None else None
        return named(head.fields, field) if head is not None else None

    return get


def _trailer(name: str) -> Getter:
    field = name.encode()

    def get(r: "Request") -> bytes | None:
        head = r.upstream.head if r.upstream is not None else None
        return named(head.trailers, field) if head is not None and head.trailers else None

    return get


def _cookie(name: str) -> Getter:
    cookie = name.lower().encode()
    size = len(cookie)

    def get(r: "Request") -> bytes | None:
        head = r.upstream.head if r.upstream is not None else None
        if head is None:
            return None
        for key, value in head.fields:
            if len(key) == 10 and key.lower() == b"set-cookie" and value[:size].lower() == cookie:
                between, equals, rest = value[size:].lstrip(b" ").partition(b"=")
                if equals and not between:
                    return rest.lstrip(b" ").partition(b";")[0]
        return None

    return get


PREFIXES = {"upstream_http_": _http, "upstream_trailer_": _trailer, "upstream_cookie_": _cookie}
