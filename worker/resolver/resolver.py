"""A resolver: a cache of names, the questions under way, and who waits for their answers.

Rules: a name is asked for once however many wait for it; A and AAAA are asked for side by side. A question that is not
answered within five seconds goes to the next server. An answer counts only with the id and the question of one that is
under way, from the server that was asked. What was found is kept for its TTL (or `valid`), in whole seconds as nginx
counts them; what was not found is not kept. (nginx: ngx_resolver.c)
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headgate.masterd.logfile import Level
from headgate.worker.resolver import wire
from headgate.worker.resolver.transport import Datagrams, ask_by_tcp
from headgate.worker.resolver.wire import AAAA, SRV, A, Answer, Service, WireError

if TYPE_CHECKING:
    from headgate.worker.http.server import HttpWorker

RESEND = 5.0  # seconds
EXPIRE = 30  # seconds that an entry stays though nobody asks for it
NOT_FOUND_VALID = 10  # seconds before a service or name that was not found is worth another question
MAX_CNAMES = 50

Key = tuple[str, bool]  # name, and whether it is a service's


@dataclass(slots=True)
class Server:
    """A name server: `address` for socket.connect(), `text` for the log."""

    family: int
    address: Any
    text: str


class ResolveError(Exception):
    """A name could not be resolved: `code` is the RCODE or TIMED_OUT, `valid` the second to ask again after."""

    def __init__(self, code: int, valid: int) -> None:
        super().__init__(code)
        self.code = code
        self.valid = valid

    def __str__(self) -> str:
        return f"({self.code}: {wire.TEXTS.get(self.code, 'Unknown error')})"


@dataclass(slots=True)
class Entry:
    """What a name stands for: addresses, or services, or another name. `valid`: the last second it may be used."""

    valid: int
    ipv4: list[str] = field(default_factory=list)
    ipv6: list[str] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    cname: str = ""
    expire: int = 0

    def addresses(self, rotate: bool) -> list[str]:
        """All addresses; `rotate`: beginning with any, so that nobody's first choice is the same."""
        ipv4, ipv6 = _rotated(self.ipv4, rotate), _rotated(self.ipv6, rotate)
        return _rotated(ipv4 + ipv6, rotate)


@dataclass(frozen=True, slots=True)
class Instance:
    """An address that a service was resolved to."""

    address: str
    port: int
    priority: int
    weight: int
    name: str


class _Question:
    """One name's questions under way."""

    __slots__ = (
        "asked", "code", "failed_over", "key", "pending", "queries", "replies", "server", "tcp", "timer", "waiters",
    )  # fmt: skip

    def __init__(self, key: Key, queries: dict[int, tuple[int, bytes]]) -> None:
        self.key = key
        self.queries = queries  # kind -> id, bytes
        self.pending = set(queries)
        self.replies: dict[int, Answer] = {}
        self.tcp: set[int] = set()
        self.code = 0
        self.server = 0
        self.asked: set[int] = set()
        self.failed_over = 0
        self.waiters: list[asyncio.Future[Entry]] = []
        self.timer: asyncio.TimerHandle | None = None


class Resolver:
    """One `resolver` directive in one worker."""

    def __init__(self, worker: "HttpWorker", servers: list[Server], valid: int | None, ipv4: bool, ipv6: bool) -> None:
        """`valid`: seconds that answers are kept, None: their TTL; `ipv4`, `ipv6`: what is asked for."""
        self._worker = worker
        self._loop = worker.loop
        self._servers = servers
        self._valid = valid
        self._kinds = ((A,) if ipv4 else ()) + ((AAAA,) if ipv6 else ())
        self._next = 0
        self._cache: dict[Key, Entry] = {}  # the least recently used first
        self._asking: dict[Key, _Question] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        addresses = [(server.family, server.address) for server in servers]
        self._udp = Datagrams(self._loop, addresses, self._received, self._failed)

    # what is asked

    async def resolve(self, name: str, timeout: float) -> tuple[list[str], int]:
        """A host's addresses, and the second (loop time) up to which they are valid. Raises ResolveError."""
        entry, cached = await self._follow((_plain(name), False), timeout)
        return entry.addresses(rotate=cached), entry.valid

    async def service(self, service: str, name: str, timeout: float) -> "tuple[list[Instance], int, list[str]]":
        """A service's instances, how long they are valid, and lines for the log about names without an address.

        `service` is `http` for _http._tcp.NAME, or what stands before the name. Raises ResolveError when there is no
        instance at all.
        """
        full = f"{service}.{_plain(name)}" if "." in service else f"_{service}._tcp.{_plain(name)}"
        entry, _ = await self._follow((full.lower(), True), timeout)
        valid = entry.valid
        found: list[Instance] = []
        codes: list[int] = []
        lines: list[str] = []
        lookups = [self.resolve(each.name, timeout) for each in entry.services]
        for each, result in zip(entry.services, await asyncio.gather(*lookups, return_exceptions=True), strict=True):
            if isinstance(result, ResolveError):
                codes.append(result.code)
                lines.append(f"{each.name} could not be resolved {result} while resolving service {service} of {name}")
            elif isinstance(result, BaseException):
                raise result
            else:
                addresses, until = result
                valid = min(valid, until)
                found += [Instance(a, each.port, each.priority, each.weight, each.name) for a in addresses]
        if not found:
            for line in lines:
                self._log(line)
            raise ResolveError(wire.NXDOMAIN if wire.NXDOMAIN in codes else codes[0], self._not_found())
        return found, valid, lines

    async def _follow(self, key: Key, timeout: float) -> tuple[Entry, bool]:
        """The entry at the end of the chain of aliases, and whether it was known."""
        deadline = self._loop.time() + timeout
        for _ in range(MAX_CNAMES + 1):
            entry = self._known(key)
            cached = entry is not None
            if entry is None:
                entry = await self._wait(key, deadline)
            if not entry.cname:
                return entry, cached
            key = (entry.cname, key[1])
        raise ResolveError(wire.NXDOMAIN, self._not_found())

    def _known(self, key: Key) -> Entry | None:
        entry = self._cache.get(key)
        now = int(self._loop.time())
        if entry is None or entry.valid < now:
            return None
        entry.expire = now + EXPIRE
        self._cache[key] = self._cache.pop(key)
        return entry

    async def _wait(self, key: Key, deadline: float) -> Entry:
        question = self._asking.get(key)
        if question is None:
            question = self._ask(key)
        waiter: asyncio.Future[Entry] = self._loop.create_future()
        question.waiters.append(waiter)
        timer = self._loop.call_at(deadline, self._give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            if waiter in question.waiters:
                question.waiters.remove(waiter)

    def _give_up(self, waiter: "asyncio.Future[Entry]") -> None:
        if not waiter.done():
            waiter.set_exception(ResolveError(wire.TIMED_OUT, self._not_found()))

    def _not_found(self) -> int:
        return int(self._loop.time()) + (self._valid or NOT_FOUND_VALID)

    # questions

    def _ask(self, key: Key) -> _Question:
        kinds = (SRV,) if key[1] else self._kinds
        try:
            question = _Question(key, {kind: wire.question(key[0], kind) for kind in kinds})
        except WireError:
            raise ResolveError(wire.NXDOMAIN, self._not_found()) from None
        self._asking[key] = question
        question.server = self._next
        self._next = (self._next + 1) % len(self._servers)
        self._send(question)
        return question

    def _send(self, question: _Question) -> None:
        """Ask what has not been answered yet; again after a while."""
        if question.timer is not None:
            question.timer.cancel()
        question.timer = self._loop.call_later(RESEND, self._resend, question)
        question.asked.add(question.server)
        for kind in sorted(question.pending - question.tcp):
            if not self._udp.send(question.server, question.queries[kind][1]):
                return

    def _resend(self, question: _Question) -> None:
        question.timer = None
        if not question.waiters:
            self._end(question)
            return
        question.server = (question.server + 1) % len(self._servers)
        question.failed_over = 0
        question.tcp.clear()
        self._send(question)

    def _end(self, question: _Question) -> None:
        if question.timer is not None:
            question.timer.cancel()
        if self._asking.get(question.key) is question:
            del self._asking[question.key]
        if not self._asking:
            self._udp.close()

    def _failed(self, server: int, call: str, error: OSError) -> None:
        """A server cannot be reached: whoever waits for it asks the next one, once round."""
        self._log(
            f"{call} failed ({error.errno}: {error.strerror}) while resolving, resolver: {self._servers[server].text}"
        )
        for question in list(self._asking.values()):
            if question.server == server and question.failed_over + 1 < len(self._servers):
                question.failed_over += 1
                question.server = (server + 1) % len(self._servers)
                self._loop.call_soon(self._send_if_waiting, question)

    def _send_if_waiting(self, question: _Question) -> None:
        if self._asking.get(question.key) is question:
            self._send(question)

    # answers

    def _received(self, server: int, data: bytes) -> None:
        try:
            answer = wire.parse(data)
        except WireError as error:
            self._log(str(error))
            return
        if answer.code == wire.FORMERR or answer.code > wire.REFUSED:
            text = wire.TEXTS.get(answer.code, "Unknown error")
            self._log(f"DNS error ({answer.code}: {text}), query id:{answer.ident}" + self._named(answer))
            return
        question = self._asking.get((answer.name, answer.kind == SRV))
        if question is None or answer.kind not in question.pending or server not in question.asked:
            self._log(f"unexpected DNS response for {answer.name}")
            return
        ident, query = question.queries[answer.kind]
        if answer.ident != ident:
            self._log(f"wrong ident {answer.ident} in DNS response for {answer.name}, expect {ident}")
        elif not answer.truncated:
            self._answered(question, answer)
        elif answer.kind not in question.tcp:
            question.tcp.add(answer.kind)
            task = self._loop.create_task(self._by_tcp(question, server, query))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _named(self, answer: Answer) -> str:
        for question in self._asking.values():
            if any(ident == answer.ident for ident, _ in question.queries.values()):
                return f', name:"{question.key[0]}"'
        return ""

    async def _by_tcp(self, question: _Question, server: int, query: bytes) -> None:
        target = self._servers[server]
        try:
            answer = wire.parse(await ask_by_tcp(self._loop, (target.family, target.address), query))
        except (OSError, TimeoutError, WireError) as error:
            self._log(f"{error or 'no answer in time'} while resolving, resolver: {target.text}")
            return
        ident = question.queries.get(answer.kind, (-1,))[0]
        if (answer.ident, answer.name) != (ident, question.key[0]) or answer.truncated:
            self._log(f"invalid TCP DNS response {answer.ident}")
        elif self._asking.get(question.key) is question and answer.kind in question.pending:
            self._answered(question, answer)

    def _answered(self, question: _Question, answer: Answer) -> None:
        for line in answer.odd:
            self._log(line)
        if not answer.code and not answer.empty and not (answer.addresses or answer.services or answer.cname):
            kinds = "SRV type" if answer.kind == SRV else "A or CNAME types"
            self._log(f"no {kinds} in DNS response")
            return
        question.pending.discard(answer.kind)
        question.replies[answer.kind] = answer
        question.code = answer.code or question.code
        if question.pending:
            return
        self._end(question)
        entry = self._entry(question, answer)
        waiters, question.waiters = question.waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if entry is not None:
                waiter.set_result(entry)
            else:
                waiter.set_exception(ResolveError(question.code or wire.NXDOMAIN, self._not_found()))

    def _entry(self, question: _Question, last: Answer) -> Entry | None:
        """What the answers say, in the cache from now on; None: nothing. Without an address the last one decides."""
        replies = list(question.replies.values())
        if question.code or (last.empty and not any(reply.addresses for reply in replies)):
            return None
        now = int(self._loop.time())
        ttl = min(reply.ttl for reply in replies if not reply.empty)
        entry = Entry(now + (self._valid or ttl), expire=now + EXPIRE)
        for reply in replies:
            entry.services += reply.services
            (entry.ipv6 if reply.kind == AAAA else entry.ipv4).extend(reply.addresses)
        if not (entry.services or entry.ipv4 or entry.ipv6):
            entry.cname = last.cname or ""
        self._cache.pop(question.key, None)
        for key in list(self._cache)[:2]:  # as nginx: each lookup sweeps a little
            if self._cache[key].expire < now:
                del self._cache[key]
        self._cache[question.key] = entry
        return entry

    def _log(self, text: str) -> None:
        self._worker.log.emit(Level.ERROR, text)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _rotated(items: list[str], rotate: bool) -> list[str]:
    if not rotate or len(items) < 2:
        return items
    start = random.randrange(len(items))
    return items[start:] + items[:start]
