"""Runs one request through two servers that have the same configuration and compares what came back, field by field.

A `Pair` is nginx (the oracle) beside another server: headgate, or a second nginx, which shows that what is compared is
deterministic. `Pair.differences(case)` sends the same bytes to both and returns {field: (nginx's, the other's)}; an
empty dict means equal. Fields: N.status, N.reason, N.version, N.header.NAME (list of values, the name in its own case),
N.body, N.trailers, N.interim for each response N, and `end`: whether the connection still serves a request afterwards.

What is normalized or left out, and why:
- Date: it is the time of the answer.
- The product's name, in Server and in default pages: it differs on purpose. Where a default page holds it, the
  Content-Length is corrected by the difference in length, and logs have PAGE for the sizes of default pages.
- The servers' own ports and directories: they differ, so %%PORT_n%% and %%DIR%% stand for them.
- The order of different header names: it has no meaning (RFC 9110 section 5.3). The order of values of one name has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.client import Client, MalformedError, Response, TruncatedError
from tests.harness import Server

PRODUCT = re.compile(rb"(?:nginx|headgate)(?:/[0-9.]+)?")
SIZE = re.compile(r'(;body=|ngth=|" \d{3} )(\d+)\b')  # a size in fields.log or main.log
UNCOMPARED = {"date"}
TIMEOUT = 3.0
PROBE = b"GET /-/probe HTTP/1.1\r\nHost: probe.invalid\r\nConnection: close\r\n\r\n"
Fields = dict[str, object]


@dataclass(frozen=True)
class Case:
    """Bytes to send to %%PORT_`port`%% (or its IPv6 twin), and the methods of the responses to read."""

    name: str
    wire: bytes
    methods: tuple[str, ...] = ("GET",)
    port: int = 0
    host: str = "127.0.0.1"
    raw: bool = False  # the answer is not a framed response: compare all bytes until the close

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Explained:
    """A difference that is meant: why, and the exact fields, each with the other server's value."""

    why: str
    fields: Mapping[str, object] = field(default_factory=dict)


class Pair:
    """nginx and another server, both running the same configuration."""

    def __init__(self, nginx: Server, other: Server) -> None:
        self.nginx, self.other = Side(nginx), Side(other)

    def differences(self, case: Case) -> dict[str, tuple[object, object]]:
        """{field: (nginx's value, the other's)} of the fields that differ."""
        left, right = self.nginx.outcome(case), self.other.outcome(case)
        return {key: (left.get(key), right.get(key)) for key in {**left, **right} if left.get(key) != right.get(key)}

    def logs(self, name: str) -> tuple[list[str], list[str]]:
        """Both servers' log file `name`, normalized and sorted: requests may be logged in another order."""
        return sorted(self.nginx.log(name)), sorted(self.other.log(name))


class Side:
    """One server of a pair, and what has to be known to normalize what it says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pages: set[str] = set()  # the sizes of its default pages, as seen in its answers

    def outcome(self, case: Case) -> Fields:
        """What the server answered to `case`, as named fields."""
        fields: Fields = {}
        with Client(self.server.port(case.port), case.host, timeout=TIMEOUT) as client:
            try:
                client.send(case.wire)
                if case.raw:
                    fields["raw"] = self.normalize(client.read_all())
                    return fields
                for number, method in enumerate(case.methods):
                    for key, value in self._response(client, method).items():
                        fields[f"{number}.{key}"] = value
            except ConnectionError as error:
                fields["error"] = type(error).__name__
            except MalformedError as error:
                fields["malformed"] = self.normalize(str(error).encode() + client.read_all())
                return fields
            fields["end"] = _end(client)
        return fields

    def _response(self, client: Client, method: str) -> Fields:
        try:
            return self._fields(client.response(method))
        except TruncatedError as error:
            if error.partial is None:
                return {"none": "closed without a response"}
            return {**self._fields(error.partial), "truncated": True}

    def _fields(self, reply: Response) -> Fields:
        body = self.normalize(reply.body)
        if PRODUCT.search(reply.body):
            self.pages.add(str(len(reply.body)))
        fields: Fields = {
            "version": reply.version,
            "status": reply.status,
            "reason": reply.reason,
            "body": body,
            "trailers": reply.trailers,
            "interim": [each.status for each in reply.interim],
        }
        for name, value in reply.headers:
            if name.lower() in UNCOMPARED:
                continue
            text = self.normalize(value.encode("latin-1")).decode("latin-1")
            if name.lower() == "content-length" and int(value) == len(reply.body):
                text = str(len(body))
            values = fields.setdefault(f"header.{name}", [])
            assert isinstance(values, list)
            values.append(text)
        return fields

    def normalize(self, data: bytes) -> bytes:
        """`data` with this server's ports, directory and product name replaced by what stands for them."""
        data = data.replace(str(self.server.prefix).encode(), b"%%DIR%%")
        for index, port in self.server.ports.numbers.items():
            data = re.sub(rb"(?<![0-9])%d(?![0-9])" % port, b"%%%%PORT_%d%%%%" % index, data)
        return PRODUCT.sub(b"PRODUCT", data)

    def log(self, name: str) -> list[str]:
        """The lines of a log file of the stopped server, without what depends on time, numbers and the product."""
        lines = []
        for line in (self.server.prefix / name).read_text(errors="backslashreplace").splitlines():
            line = re.sub(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", "[TIME]", line)
            line = re.sub(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[\w+\]) \d+#\d+: \*\d+ ", r"TIME \1 PID: *N ", line)
            line = re.sub(r"body=(\d+);sent=(\d+);", self._head_size, line)
            line = SIZE.sub(lambda found: found[1] + ("PAGE" if found[2] in self.pages else found[2]), line)
            lines.append(self.normalize(line.encode()).decode())
        return lines

    def _head_size(self, found: re.Match[str]) -> str:
        """$bytes_sent as the size of the head without the product's name in its Server line."""
        head = int(found[2]) - int(found[1])
        return f"body={found[1]};head={head and head - len('nginx' if self.server.is_nginx else 'headgate')};"


def _end(client: Client) -> str:
    try:
        client.send(PROBE)
        return "kept" if client.response().status else "closed"
    except (TruncatedError, ConnectionError):
        return "closed"


def site(directory: Path) -> dict[str, str]:
    """The files below `directory` as {relative name: text}, for Server's `files`."""
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()
    }
