"""A name server for tests: UDP and TCP on one port of 127.0.0.1, answers from a table or a function.

    dns = NameServer({"a.test": ["127.0.0.1", "::1"], "b.test": Cname("a.test")})
    dns.records["_http._tcp.s.test"] = [Srv(1, 5, 80, "a.test")]
    resolver = f"resolver {dns.address};"
    dns.records["a.test"] = ["127.0.0.2"]               # from the next question on
    dns.answer = lambda name, kind: Code("SERVFAIL")    # or None: no answer at all; or records
    assert dns.questions == [("a.test", "A"), ("a.test", "AAAA")]

Rules: a name that is not in the table does not exist (NXDOMAIN). `ttl` counts for all records. `tamper(data)` may
change a datagram on its way out, `truncate` makes UDP answers empty with the TC bit, so that TCP is asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.client import TIMEOUT


@dataclass(frozen=True)
class Cname:
    """An alias for `target`."""

    target: str


@dataclass(frozen=True)
class Srv:
    """A service's instance."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True)
class Code:
    """An answer without records: SERVFAIL, REFUSED, NXDOMAIN ..."""

    name: str


Record = str | Cname | Srv
Records = Iterable[Record] | Cname | Code | None


class NameServer:
    """Answers until `stop`; `questions` are all that came, (name, type), those over TCP in `by_tcp` too."""

    def __init__(self, records: dict[str, Any] | None = None, *, port: int = 0, ttl: int = 3600) -> None:
        self.records: dict[str, Any] = records or {}
        self.ttl = ttl
        self.truncate = False
        self.answer: Callable[[str, str], Records] = self._look_up
        self.tamper: Callable[[bytes], bytes | list[bytes]] = lambda data: data
        self.questions: list[tuple[str, str]] = []
        self.by_tcp: list[tuple[str, str]] = []
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._udp, self._tcp = _bind(port)
        self.port = int(self._udp.getsockname()[1])
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._datagrams, self._connections)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        """What `resolver` takes."""
        return f"127.0.0.1:{self.port}"

    def wait(self, count: int, timeout: float = TIMEOUT) -> list[tuple[str, str]]:
        """Waits until `count` questions came."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.questions) >= count, timeout)
            assert done, f"not within {timeout} s: {count} questions, only {self.questions}"
        return self.questions

    def stop(self) -> None:
        """Closes the sockets and waits for the threads."""
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):  # "not connected", but it wakes the thread all the same
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def _look_up(self, name: str, kind: str) -> Records:
        return self.records.get(name, Code("NXDOMAIN"))

    def _datagrams(self) -> None:
        while True:
            try:
                data, client = self._udp.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            reply = self._reply(data, udp=True)
            if reply is None:
                continue
            out = self.tamper(reply)
            for each in [out] if isinstance(out, bytes) else out:
                self._udp.sendto(each, client)

    def _connections(self) -> None:
        while True:
            try:
                client, _ = self._tcp.accept()
            except OSError:
                return
            with client:
                client.settimeout(TIMEOUT)
                size = int.from_bytes(_exactly(client, 2), "big")
                reply = self._reply(_exactly(client, size), udp=False)
                if reply is not None:
                    client.sendall(len(reply).to_bytes(2, "big") + reply)

    def _reply(self, data: bytes, udp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        with self._changed:
            self.questions.append((name, kind))
            if not udp:
                self.by_tcp.append((name, kind))
            self._changed.notify_all()
        found = self.answer(name, kind)
        if found is None:
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        if udp and self.truncate:
            reply.flags |= dns.flags.TC
        elif isinstance(found, Code):
            reply.set_rcode(dns.rcode.from_text(found.name))
        else:
            reply.answer = [
                rrset
                for record in ([found] if isinstance(found, Cname) else found)
                if (rrset := self._rrset(f"{name}.", kind, record)) is not None
            ]
        return reply.to_wire(max_size=65535)

    def _rrset(self, name: str, kind: str, record: Record) -> dns.rrset.RRset | None:
        if isinstance(record, Cname):
            return dns.rrset.from_text(name, self.ttl, "IN", "CNAME", f"{record.target}.")
        if isinstance(record, Srv):
            text = f"{record.priority} {record.weight} {record.port} {record.target}."
            return dns.rrset.from_text(name, self.ttl, "IN", "SRV", text) if kind == "SRV" else None
        type_ = "AAAA" if ":" in record else "A"
        return dns.rrset.from_text(name, self.ttl, "IN", type_, record) if kind == type_ else None


def _bind(port: int) -> tuple[socket.socket, socket.socket]:
    """The same port for UDP and TCP."""
    while True:
        tcp = socket.create_server(("127.0.0.1", port))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            if port:
                raise
            continue
        return udp, tcp


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionAbortedError("the resolver closed inside a question")
        data += piece
    return data
