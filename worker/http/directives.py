"""The http, server and location blocks, and the core directives that belong to no single stage.

When the http block ends, everything is put together here: names of variables are looked up,
configurations merge main -> server -> location, every module's `attach` hooks fill the locations, and
servers are sorted into the virtual hosts of their listening addresses.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headgate.conf import slots
from headgate.conf.build import Scope
from headgate.conf.directive import HS, HSL, NONAME, Call, Conf, Ctx, block, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import Variables, fsencode
from headgate.worker.http.conf import HttpConf, Location, Server, VirtualHosts
from headgate.worker.http.listen import Address, Listen
from headgate.worker.http.listen import parse as parse_listen
from headgate.worker.http.location import LocationTree
from headgate.worker.http.regex import Regex, RegexError
from headgate.worker.upstream.directives import finish_zones

LOC = HSL


def regex(call: Call, text: str, caseless: bool = False) -> Regex:
    """Compile a pattern of a directive and make its named groups variables."""
    try:
        compiled = Regex(text, caseless)
    except RegexError as error:
        raise call.error_at(str(error)) from None
    variables = call.scope.variables
    assert variables is not None
    for name in compiled.names:
        try:
            variables.define(name, lambda r: None)  # a match puts its value into r.vars
        except ValueError as error:
            raise call.error_at(str(error)) from None
    return compiled


class CoreHttp(Conf, level=Ctx.HTTP):
    """Directives of the http block alone. Hash sizes need no tuning here: they are checked, and dicts grow."""

    variables_hash_max_size: int = directive("variables_hash_max_size", Ctx.HTTP, "1", slots.number, default=1024)
    variables_hash_bucket_size: int = directive("variables_hash_bucket_size", Ctx.HTTP, "1", slots.number, default=64)
    names_hash_max_size: int = directive("server_names_hash_max_size", Ctx.HTTP, "1", slots.number, default=512)
    names_hash_bucket_size: int = directive("server_names_hash_bucket_size", Ctx.HTTP, "1", slots.number, default=64)


class CoreServer(Conf, level=Ctx.SERVER):
    """Directives of a server: how its requests are read. Sizes in bytes, times in seconds."""

    client_header_buffer_size: int = directive("client_header_buffer_size", HS, "1", slots.size, default=1024)
    large_buffers: tuple[int, int] = directive("large_client_header_buffers", HS, "2", slots.buffers, default=(4, 8192))
    client_header_timeout: float = directive("client_header_timeout", HS, "1", slots.msec, default=60.0)
    connection_pool_size: int = directive("connection_pool_size", HS, "1", lambda call: _pool(call), default=512)
    request_pool_size: int = directive("request_pool_size", HS, "1", lambda call: _pool(call), default=4096)
    ignore_invalid_headers: bool = directive("ignore_invalid_headers", HS, "flag", slots.flag, default=True)
    underscores_in_headers: bool = directive("underscores_in_headers", HS, "flag", slots.flag, default=False)
    max_headers: int = directive("max_headers", HS, "1", slots.number, default=1000)
    merge_slashes: bool = directive("merge_slashes", HS, "flag", slots.flag, default=True)

    def finish(self, scope: Scope) -> None:
        if self.large_buffers[1] < self.client_header_buffer_size:
            raise ConfError(
                'the "large_client_header_buffers" size must be equal to or greater than "client_header_buffer_size"'
            )


def _pool(call: Call) -> int:
    """Checked alone: memory is Python's."""
    size = slots.size(call)
    if size < 112:
        raise call.error_at("the pool size must be no less than 112")
    if size % 16:
        raise call.error_at("the pool size must be a multiple of 16")
    return size


_TOKENS = {"on": "on", "off": "off", "build": "build"}


class CoreLocation(Conf, level=Ctx.LOCATION):
    """Core directives of a location. Sizes in bytes, times in seconds."""

    internal: bool = directive("internal", Ctx.LOCATION, "0", lambda call: True, default=False)
    client_max_body_size: int = directive("client_max_body_size", LOC, "1", slots.offset, default=1 << 20)
    client_body_buffer_size: int = directive("client_body_buffer_size", LOC, "1", slots.size, default=16384)
    client_body_timeout: float = directive("client_body_timeout", LOC, "1", slots.msec, default=60.0)
    send_timeout: float = directive("send_timeout", LOC, "1", slots.msec, default=60.0)
    keepalive_timeout: tuple[float, float] = directive(
        "keepalive_timeout", LOC, "1|2", lambda call: _keepalive(call), default=(75.0, 0.0)
    )
    keepalive_requests: int = directive("keepalive_requests", LOC, "1", slots.number, default=1000)
    keepalive_time: float = directive("keepalive_time", LOC, "1", slots.msec, default=3600.0)
    keepalive_min_timeout: float = directive("keepalive_min_timeout", LOC, "1", slots.msec, default=0.0)
    keepalive_disable: frozenset[str] = directive(
        "keepalive_disable", LOC, "1|2", lambda call: _keepalive_disable(call), default=frozenset(("msie6",))
    )
    lingering_close: str = directive(
        "lingering_close", LOC, "1", slots.enum_of({"on": "on", "off": "off", "always": "always"}), default="on"
    )
    lingering_time: float = directive("lingering_time", LOC, "1", slots.msec, default=30.0)
    lingering_timeout: float = directive("lingering_timeout", LOC, "1", slots.msec, default=5.0)
    reset_timedout_connection: bool = directive("reset_timedout_connection", LOC, "flag", slots.flag, default=False)
    chunked_transfer_encoding: bool = directive("chunked_transfer_encoding", LOC, "flag", slots.flag, default=True)
    server_tokens: str = directive("server_tokens", LOC, "1", slots.enum_of(_TOKENS), default="on")
    server_name_in_redirect: bool = directive("server_name_in_redirect", LOC, "flag", slots.flag, default=False)
    port_in_redirect: bool = directive("port_in_redirect", LOC, "flag", slots.flag, default=True)
    absolute_redirect: bool = directive("absolute_redirect", LOC, "flag", slots.flag, default=True)
    post_action: bytes | None = directive(
        "post_action", LOC | Ctx.LOCATION_IF, "1", lambda call: fsencode(call.args[0]), default=None
    )
    satisfy_any: bool = directive("satisfy", LOC, "1", slots.enum_of({"all": False, "any": True}), default=False)
    auth_delay: float = directive("auth_delay", LOC, "1", slots.msec, default=0.0)
    # only the beginning of a response with subrequests is kept back
    postpone_output: int = directive("postpone_output", LOC, "1", slots.size, default=1460)
    subrequest_output_buffer_size: int = directive("subrequest_output_buffer_size", LOC, "1", slots.size, default=4096)
    log_not_found: bool = directive("log_not_found", LOC, "flag", slots.flag, default=True)


def _keepalive(call: Call) -> tuple[float, float]:
    """`timeout [header]`: seconds a connection may stay idle, and what `Keep-Alive: timeout=` says (0: none)."""
    timeout = slots.parse_time(call.args[0])
    header = slots.parse_time(call.args[1], msec=False) if len(call.args) == 2 else 0.0
    if timeout is None or header is None:
        raise call.error("invalid value")
    return timeout, header


def _keepalive_disable(call: Call) -> frozenset[str]:
    for word in call.args:
        if word not in ("none", "msie6", "safari"):
            raise call.error_at(f'invalid value "{word}"')
    return frozenset(call.args) - {"none"}


# -- blocks --------------------------------------------------------------------------------------


class ServerNames(Conf, level=Ctx.SERVER):
    """What a server listens on and is called; used only while the configuration is built."""

    listens: list[list[Listen]] = directive("listen", Ctx.SERVER, "1+", parse_listen, many=True, inherit=False)
    names: list[list[tuple[str, Regex | None]]] = directive(
        "server_name", Ctx.SERVER, "1+", lambda call: _server_names(call), many=True, inherit=False
    )


@block("http", Ctx.MAIN, "0")
def http(call: Call) -> None:
    """The http block, once: read it, then put everything together."""
    config = call.scope.config
    if config.http is not None:
        raise call.error("is duplicate")
    reg = call.scope.registry
    config.http = conf = HttpConf()
    call.scope.variables = Variables(reg.variables, reg.prefixes)
    _assemble(call, call.build(Ctx.HTTP, conf), conf)


@contextmanager
def _at_brace(call: Call) -> Iterator[None]:
    """Errors of merging name the closing brace: that is where nginx merges."""
    try:
        yield
    except ConfError as error:
        if error.file:
            raise
        raise call.error_end(error.reason) from None


def _assemble(call: Call, scope: Scope, conf: HttpConf) -> None:
    """What is left to do when the whole block has been read."""
    reg = scope.registry
    top = {cls: cls.merge(None, scope.confs.get(cls)) for cls in reg.confs.get(Ctx.LOCATION, ())}
    top_server = {cls: cls.merge(None, scope.confs.get(cls)) for cls in reg.confs.get(Ctx.SERVER, ())}
    with _at_brace(call):
        conf.core = scope.merged(CoreHttp)
        for cls in reg.confs.get(Ctx.HTTP, ()):
            if cls is not CoreHttp:
                scope.confs[cls] = scope.merged(cls)
    variables = scope.variables
    assert variables is not None
    variables.resolve()
    finished: set[int] = set()
    with _at_brace(call):
        for inst in (*top.values(), *top_server.values()):
            finished.add(id(inst))
            inst.finish(scope)
        for child in scope.children:
            if child.ctx is Ctx.SERVER:
                _finish_server(child, top, top_server, finished)
    _virtual_hosts(call, conf)
    with _at_brace(call):
        for finisher in conf.finishers:
            finisher()
        finish_zones(conf)
    variables.resolve()  # what finishing added


@block("server", Ctx.HTTP, "0")
def server(call: Call) -> None:
    """A server block."""
    node = Server(call.statement.file, call.statement.line)
    call.scope.node.servers.append(node)
    call.build(Ctx.SERVER, node)


def _server_names(call: Call) -> list[tuple[str, Regex | None]]:
    """Names in lower case; a regex (`~pattern`) comes with its compiled form."""
    out: list[tuple[str, Regex | None]] = []
    for word in call.args:
        if (word.startswith("*") and not (word.startswith("*.") and len(word) > 2)) or word == ".":
            raise call.error_at(f'server name "{word}" is invalid')
        if "/" in word:
            call.warn(f'server name "{word}" has suspicious symbols')
        if word.startswith("~"):
            if len(word) == 1:
                raise call.error_at(f'empty regex in server name "{word}"')
            out.append((word, regex(call, word[1:], caseless=True)))  # host names come in lower case
            continue
        low = os.uname().nodename.lower() if word == "$hostname" else word.lower()
        out.append((low, None))
    return out


@block("location", Ctx.SERVER | Ctx.LOCATION, "1|2")
def location(call: Call) -> None:
    """A location block."""
    owner = call.scope.above(Ctx.SERVER).node
    kind, text = _location_name(call)
    node = Location(kind, fsencode(text), text, owner)
    if kind in ("~", "~*"):
        node.regex = regex(call, text, kind == "~*")
    parent = call.scope.node
    if isinstance(parent, Location):
        _check_nested(call, parent, node)
    elif kind == "@":
        owner.named.setdefault(node.name, node)  # of several with one name nginx uses the first
    if kind in _PLAIN:
        for other in call.scope.children:
            twin = other.node
            same = other.ctx is Ctx.LOCATION and (twin.name, twin.kind == "=") == (node.name, kind == "=")
            if same and twin.kind in _PLAIN:
                raise call.error_at(f'duplicate location "{text}"')
    call.build(Ctx.LOCATION, node)


_PLAIN = ("=", "", "^~")  # kinds whose name is compared as it stands


def _location_name(call: Call) -> tuple[str, str]:
    """nginx takes the modifier apart from the name or stuck to it."""
    if len(call.args) == 2:
        kind, text = call.args
        if kind not in ("=", "^~", "~", "~*"):
            raise call.error_at(f'invalid location modifier "{kind}"')
        return kind, text
    text = call.args[0]
    for kind in ("=", "^~", "~*", "~"):
        if text.startswith(kind):
            return kind, text[len(kind) :]
    return ("@", text) if text.startswith("@") else ("", text)


def _check_nested(call: Call, parent: Location, node: Location) -> None:
    if parent.kind == "=":
        raise call.error_at(f'location "{node.text}" cannot be inside the exact location "{parent.text}"')
    if parent.kind == "@":
        raise call.error_at(f'location "{node.text}" cannot be inside the named location "{parent.text}"')
    if node.kind == "@":
        raise call.error_at(f'named location "{node.text}" can be on the server level only')
    inside = node.name.startswith(parent.name)
    if node.kind not in ("~", "~*") and parent.kind not in ("~", "~*") and not inside:
        raise call.error_at(f'location "{node.text}" is outside location "{parent.text}"')


# -- putting it together -------------------------------------------------------------------------

Confs = dict[type[Conf], Conf]


def _merge(scope: Scope, level: Ctx, parents: Confs, finished: set[int], noname: bool = False) -> Confs:
    out: Confs = {}
    for cls in scope.registry.confs.get(level, ()):
        out[cls] = inst = cls.merge(parents[cls], scope.confs.get(cls), noname)
        if id(inst) not in finished:
            finished.add(id(inst))
            inst.finish(scope)
    return out


def _finish_server(scope: Scope, top: Confs, top_server: Confs, finished: set[int]) -> None:
    node: Server = scope.node
    confs = _merge(scope, Ctx.SERVER, top_server, finished)
    node.core = confs[CoreServer]  # type: ignore[assignment]
    node.location.confs.update(confs)
    finish_location(scope, node.location, top, finished)
    node.location.confs.update(confs)


def finish_location(scope: Scope, node: Location, parents: Confs, finished: set[int]) -> None:
    """Merge one location's configurations, run the attach hooks, then do the locations inside it."""
    confs = _merge(scope, Ctx.LOCATION, parents, finished, bool(scope.ctx & NONAME))
    node.confs.update(confs)
    node.set_core(confs[CoreLocation])  # type: ignore[arg-type]
    inner = [child for child in scope.children if child.ctx & (Ctx.LOCATION | NONAME)]
    for child in inner:
        child.node.confs.update(node.server.location.confs)
        finish_location(child, child.node, confs, finished)
    for conf in confs.values():
        conf.attach(node)
    scope.config.http.locations.append(node)
    nodes = [child.node for child in inner if not child.ctx & NONAME]
    if nodes:
        node.tree = LocationTree(nodes)
        if node.kind == "server":
            node.server.locations = nodes


def _virtual_hosts(call: Call, conf: HttpConf) -> None:
    by_address: dict[Any, Listen] = {}
    members: dict[Any, list[tuple[Server, Listen]]] = {}
    for node in conf.servers:
        for new in _listens(call, node):
            key = (new.address.family, new.address.sockaddr)
            old = by_address.setdefault(key, new)
            if old is not new:
                _join(old, new)
            members.setdefault(key, []).append((node, new))
    for node in conf.servers:
        node.names = [name.removeprefix(".") for names in _names(node) for name, _ in names]
    for key, kept in by_address.items():
        kept.hosts = VirtualHosts(next((node for node, new in members[key] if new.default), members[key][0][0]))
        for node, _ in members[key]:
            if len(members[key]) == 1 and not any(compiled for names in _names(node) for _, compiled in names):
                break  # no name decides anything
            for name, compiled in (entry for names in _names(node) for entry in names):
                _add_name(call, kept, node, name, compiled)
        if kept.ssl:
            from headgate.worker.http import ssl  # it needs what stands on top of this file

            ssl.check(kept, [node for node, _ in members[key]])
    for listen in by_address.values():
        anywhere = listen.address.wildcard
        door = by_address.get((anywhere.family, anywhere.sockaddr), listen) if anywhere else listen
        if door is listen or listen.explicit:
            conf.listens.append(listen)
        else:
            door.behind[listen.address.sockaddr[0]] = listen


def _names(node: Server) -> list[list[tuple[str, Regex | None]]]:
    return node.location.get(ServerNames).names


def _listens(call: Call, node: Server) -> list[Listen]:
    out: dict[Any, Listen] = {}
    for new in (listen for listens in node.location.get(ServerNames).listens for listen in listens):
        if out.setdefault(new.address.sockaddr, new) is not new:
            raise ConfError(f"a duplicate listen {new.address.text}", *new.places[0])
    if not out:  # nginx: port 80 for the super-user, else 8000
        port = 80 if os.geteuid() == 0 else 8000
        return [Listen(Address(socket.AF_INET, ("0.0.0.0", port), f"0.0.0.0:{port}"))]
    return list(out.values())


def _join(old: Listen, new: Listen) -> None:
    if new.explicit and old.explicit:
        raise ConfError(f"duplicate listen options for {new.address.text}", *new.places[0])
    if new.default and old.default:
        raise ConfError(f"a duplicate default server for {new.address.text}", *new.places[0])
    old.default = old.default or new.default
    old.ssl = old.ssl or new.ssl
    if new.explicit:
        for name in (
            "backlog", "reuseport", "ipv6only", "rcvbuf", "sndbuf", "fastopen", "so_keepalive", "deferred", "explicit",
        ):  # fmt: skip
            setattr(old, name, getattr(new, name))


def _add_name(call: Call, kept: Listen, node: Server, name: str, compiled: Regex | None) -> None:
    hosts = kept.hosts
    if compiled is not None:
        hosts.regexes.append((compiled, node))
        return
    try:
        new = hosts.names.add(fsencode(name), node)
    except ValueError:
        raise ConfError(f'invalid server name or wildcard "{name}" on {kept.address.text}') from None
    if not new:
        call.scope.config.warnings.append(f'conflicting server name "{name}" on {kept.address.text}, ignored')
