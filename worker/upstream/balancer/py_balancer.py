"""`py_balancer FILE.py:Class [ARGUMENT ...]` or `py_balancer package.module.Class [...]`: a balancer of the user's.

The class fills the contract `Balancer` (headgate.worker.upstream.contract); each worker makes one of it for the group,
of the group's `Peers` and the arguments. A file is run anew each time the configuration is read, a module is imported
once in the master's life, both with the master's privileges. What cannot be loaded, is no balancer, or cannot be made
of the upstream's peers is an error of the configuration: the master tries it, on peers of its own. What fails later is
logged, and round robin serves instead.
"""

import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headgate.conf.directive import Call, command
from headgate.conf.py_module import load, what
from headgate.masterd.logfile import Level
from headgate.shm.zone import Zone
from headgate.worker.http.error_line import described
from headgate.worker.upstream.balancer.method import UPS, choose

if TYPE_CHECKING:
    from headgate.shm.peers import Peers
    from headgate.worker.http.conf import HttpConf
    from headgate.worker.http.request import Request
    from headgate.worker.upstream.contract import Balancer, Choice

CALLBACKS = {"init": 1, "get": 4, "free": 2, "notify": 2}  # and how many arguments each is called with


@command("py_balancer", UPS, "1+")
def py_balancer(call: Call) -> None:
    cls = _find(call, call.args[0])
    arguments = call.args[1:]
    if not hasattr(cls, "notifies"):
        cls.notifies = False

    def make(peers: "Peers") -> Any:
        return cls(peers, *arguments)

    choose(call, lambda peers: Guarded(make(peers), peers))
    outer = call.scope.parent
    assert outer is not None
    http: HttpConf = outer.node
    http.finishers.append(lambda: _try(call, cls, make, http))


def _try(call: Call, cls: type[Any], make: Callable[["Peers"], Any], http: "HttpConf") -> None:
    """Make a balancer as a worker would, once the upstream is known."""
    spec = http.groups[call.scope.node.lower()].spec()
    if not spec.peers:
        return  # all to be resolved
    zone = Zone.create("py_balancer", None, [replace(spec, board=False)], slots=1)
    zone.commit()
    zone.bind(zone.claim_slot())
    try:
        make(zone.peers(spec.upstream))
    except Exception as error:
        raise call.error_at(f'balancer "{cls.__name__}" cannot be made: {what(error)}') from None


def _find(call: Call, text: str) -> type[Any]:
    """The class that `FILE.py:Class` or `package.module.Class` names. Raises ConfError."""
    file, colon, name = text.rpartition(":")
    if colon:
        module = load(call, call.path(file))
    else:
        file, dot, name = text.rpartition(".")
        if not dot:
            raise call.error_at(f'"{text}" names no class: FILE.py:Class or package.module.Class is expected')
        try:
            module = importlib.import_module(file)
        except Exception as error:
            raise call.error_at(f'cannot import "{file}": {what(error)}') from None
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        raise call.error_at(f'there is no class "{name}" in "{os.path.basename(file)}"')
    if not callable(getattr(cls, "init", None)):
        raise call.error_at(f'class "{name}" is no balancer: it has no method "init"')
    for callback, number in CALLBACKS.items():
        # get, free and notify may be those of another class, of which `init` makes an object for each request
        function = getattr(cls, callback, None)
        if function is not None:
            _check_call(call, cls, callback, function, number + 1)
    return cls


def _check_call(call: Call, cls: type[Any], name: str, function: Any, number: int) -> None:
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError as error:
        raise call.error_at(f'"{name}" of class "{cls.__name__}" cannot be called: {error}') from None
    except ValueError:
        return  # a class of another language, which does not say


class Guarded:
    """The balancer: the user's, whose mistakes cost no request and no count."""

    __slots__ = ("_inner", "notifies", "peers")

    def __init__(self, inner: "Balancer", peers: "Peers") -> None:
        self._inner = inner
        self.peers = peers
        self.notifies = inner.notifies

    def init(self, request: "Request") -> "_Tries":
        choice = None
        try:
            choice = self._inner.init(request)
        except (Exception, SystemExit) as failure:
            self.failed(request, described(failure))
        return _Tries(self, request, choice)

    def failed(self, request: "Request", text: str) -> None:
        """Log what the user's code has done."""
        request.log(Level.ERROR, f'balancer "{type(self._inner).__name__}" failed: {text}')


class _Tries:
    """One request's tries; without a `choice` by round robin."""

    __slots__ = ("_balancer", "_choice", "_request")

    def __init__(self, balancer: Guarded, request: "Request", choice: "Choice | None") -> None:
        self._balancer = balancer
        self._request = request
        self._choice = choice

    def get(self, tried: bytearray | None, now: int = -1, hint: int = -1, spare: int = -1) -> int:
        peers = self._balancer.peers
        if self._choice is not None:
            takes = peers.takes
            try:
                index = self._choice.get(tried, now, hint, spare)
                if index == -1 or (index in range(peers.count) and peers.takes > takes):
                    return index
                self._failed(f"get() returned {index!r}, which is no peer that it has taken")
            except (Exception, SystemExit) as failure:
                self._failed(described(failure))
            if peers.takes > takes:
                return peers.taken
        return peers.pick(tried, now, hint, spare)

    def free(self, index: int, state: int) -> int:
        peers = self._balancer.peers
        frees = peers.frees
        disabled = 0
        if self._choice is not None:
            try:
                disabled = int(bool(self._choice.free(index, state)))
            except (Exception, SystemExit) as failure:
                self._failed(described(failure))
        return disabled if peers.frees > frees else peers.free(index, state)

    def notify(self, index: int, event: str) -> None:
        if self._choice is not None:
            try:
                self._choice.notify(index, event)
            except (Exception, SystemExit) as failure:
                self._failed(described(failure))

    def _failed(self, text: str) -> None:
        self._balancer.failed(self._request, text)
