"""`upstream_status`: what is known of every upstream's servers, as JSON, over all workers.

The names are those of nginx Plus's API where it has them. All is read from shared memory, so any worker's answer is
everybody's; docs/balancing.md says what the fields mean.
"""

import json
from typing import TYPE_CHECKING, Any

from headgate.conf.directive import Call, Ctx, command
from headgate.shm.peers import now_ms
from headgate.worker.http import special
from headgate.worker.upstream.group import AUTOMATIC_ZONE

if TYPE_CHECKING:
    from headgate.shm.state import PeerState
    from headgate.worker.http.conf import Location
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.group import Group


@command("upstream_status", Ctx.LOCATION, "0")
def upstream_status(call: Call) -> None:
    """Answer with the state of all upstreams in this location."""
    node: Location = call.scope.node
    node.handler = handle


def handle(r: "Request") -> int:
    """The content handler."""
    if r.method not in (b"GET", b"HEAD"):
        return 405
    found = {group.name: _group(group) for group in r.conn.worker.groups if not group.implicit}
    return special.respond(r, 200, json.dumps(found, indent=1).encode() + b"\n", b"application/json")


def _group(group: "Group") -> dict[str, Any]:
    if group.live is not None:
        group = group.live.current()
    now = now_ms()
    states = group.peers.snapshot() if group.addresses else []
    peers = [_peer(i, state, now) for i, state in enumerate(states)]
    out: dict[str, Any] = {"zone": None if group.zone == AUTOMATIC_ZONE else group.zone, "peers": peers}
    if group.queue is not None:
        out["queue"] = {"size": group.queue.size, "max_size": group.queue.limit}
    if group.retries is not None:
        out["retries"] = {"active": group.retries.retries(), "overflows": group.retries.overflows()}
    if group.outliers is not None:
        active = sum(state.ejected for state in states)
        out["ejections"] = {"active": active, "total": sum(state.ejections for state in states)}
    return out


def _peer(index: int, state: "PeerState", now: int) -> dict[str, Any]:
    out: dict[str, Any] = {
        "id": index,
        "server": state.address,
        "name": state.server,
        "backup": state.backup,
        "weight": state.weight,
        "effective_weight": state.effective_weight,
        "state": _state(state, now),
        "active": state.conns,
        "max_conns": state.max_conns,
        "requests": state.requests,
        "fails": state.failed,
    }
    if state.health:
        out["health"] = state.health
    if state.ejections:
        out["ejections"] = state.ejections
        out["ejection_left"] = max(0, state.ejected_until - now)
    for name, ms in ("header_time", state.header_ms), ("response_time", state.response_ms), ("peak", state.peak_ms):
        if ms:
            out[name] = round(ms)
    return out


def _state(state: "PeerState", now: int) -> str:
    """Plus's word for it, and "ejected"."""
    if state.down:
        return "down"
    if state.health == "down":
        return "unhealthy"
    if state.health == "checking":
        return "checking"
    if state.ejected:
        return "ejected"
    if state.max_fails and state.fails >= state.max_fails and now - state.checked <= state.fail_timeout:
        return "unavail"
    return "draining" if state.drain else "up"
