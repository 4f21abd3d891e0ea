"""Runs one request through two servers that have the same configuration and compares what came back, field by field.

A `Pair` is nginx (the oracle) beside another server: headgate, or a second nginx, which shows that what is compared is
deterministic. `Pair.differences(case)` sends the same bytes to both and returns {field: (nginx's, the other's)}; an
empty dict means equal. Fields: N.status, N.reason, N.version, N.header.NAME (list of values, the name in its own case),
N.body, N.trailers, N.interim for each response N; `end`: whether the connection still serves a request afterwards;
log.N.NAME: the fields that each request put into fields.log (the last one is the request that finds out the `end`); and
the lines in the other logs: main, json, none, site-error.

What is normalized or left out, and why:
- Date: it is the time of the answer.
- The product's name, in Server and in default pages: it differs on purpose. Where a default page holds it, the
  Content-Length is corrected by the difference in length (to a HEAD too, once a GET has shown the page), and logs have
  PAGE for the sizes of default pages.
- What a server knows of a request that it could not read (400, 414, 494, 505): nginx stops at the first byte that it
  does not like, headgate reads on to the head's end, so that log fields made from request fields differ.
- The boundary of a multipart body, but not its length: it is a random number. So are the names of temporary files.
- The servers' own ports and directories: they differ, so %%PORT_n%% and %%DIR%% stand for them.
- The order of different header names: it has no meaning (RFC 9110 section 5.3). The order of values of one name has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.client import Client, MalformedError, Response, TruncatedError
from tests.harness import Server

PRODUCT = re.compile(rb"(?:nginx|headgate)(?:/[0-9.]+)?")
LOGS = ("fields", "main", "json", "none", "site-error")
ERROR_START = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[\w+\]) \d+#\d+: \*\d+ ")
BOUNDARY = re.compile(rb"multipart/byteranges; boundary=([^\s;]+)")
TEMPORARY = re.compile(rb"(temp_client_body/)\d+")
TIME = re.compile(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]")
UNCOMPARED = {"date"}
TIMEOUT = 3.0
MARKER_PORT = 3
UNREAD = {"400", "414", "494", "505"}
READ = {
    "case", "length", "host", "http_host", "protocol", "method", "uri", "document_uri", "args", "query", "request_uri",
    "filename", "type", "clength", "cookie", "arg", "method_map", "forwarded",
    "connection", "expect", "ranges", "user", "cookies",
}  # fmt: skip
PROBE = b"GET /-/probe HTTP/1.1\r\nHost: probe.invalid\r\nConnection: close\r\n\r\n"
Fields = dict[str, object]
Differences = dict[str, tuple[object, object]]


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
    """A difference that is meant: why, and the fields, each with the other server's value.

    With `follows`, other fields may differ too: they follow from these.
    """

    why: str
    fields: Mapping[str, object] = field(default_factory=dict)
    follows: bool = False

    def covers(self, found: Differences) -> bool:
        """Whether the differences `found` are exactly these."""
        others = {key: other for key, (_, other) in found.items() if not self.follows or key in self.fields}
        return others == self.fields


class Pair:
    """nginx and another server, both running the same configuration."""

    def __init__(self, nginx: Server, other: Server) -> None:
        self.nginx, self.other = Side(nginx), Side(other)

    def differences(self, case: Case) -> Differences:
        """{field: (nginx's value, the other's)} of the fields that differ."""
        left, right = self.nginx.outcome(case), self.other.outcome(case)
        return {key: (left.get(key), right.get(key)) for key in {**left, **right} if left.get(key) != right.get(key)}


class Side:
    """One server of a pair, and what has to be known to normalize what it says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pages: dict[str, str] = {}  # the sizes of its default pages, as seen in its answers -> normalized
        self.sizes: set[str] = set()  # those that this case's answers had
        self.branded: list[bool] = []  # which of this case's answers name the product in Server
        self.read = dict.fromkeys(LOGS, 0)  # bytes of each log that have been read

    def outcome(self, case: Case) -> Fields:
        """What the server answered to `case` and what it logged, as named fields."""
        self.sizes, self.branded = set(), []
        with Client(self.server.port(case.port), case.host, timeout=TIMEOUT) as client:
            fields = self._answers(client, case)
        return {**fields, **self._logged()}

    def _answers(self, client: Client, case: Case) -> Fields:
        fields: Fields = {}
        try:
            client.send(case.wire)
            if case.raw:
                return {"raw": self.normalize(client.read_all())}
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
        content = reply.body
        boundary = BOUNDARY.match((reply.all("content-type") or [""])[0].encode())
        if boundary is not None:
            content = content.replace(boundary[1], b"B" * len(boundary[1]))
        body = self.normalize(content)
        if PRODUCT.search(content):
            self.pages[str(len(content))] = str(len(body))
            self.sizes |= {str(len(content)), str(len(reply.raw) - reply.raw.index(b"\r\n\r\n") - 4)}
        self.branded.append(bool(PRODUCT.match((reply.all("server") or [""])[0].encode())))
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
            if name.lower() == "content-length":
                text = str(len(body)) if int(value) == len(content) else self.pages.get(value, value)
                if text != value:
                    self.sizes.add(value)
            elif name.lower() == "content-type" and boundary is not None:
                text = text.replace(boundary[1].decode(), "B" * len(boundary[1]))
            values = fields.setdefault(f"header.{name}", [])
            assert isinstance(values, list)
            values.append(text)
        return fields

    def normalize(self, data: bytes) -> bytes:
        """`data` with this server's ports, directory and product name replaced by what stands for them."""
        data = data.replace(str(self.server.prefix).encode(), b"%%DIR%%")
        for index, port in self.server.ports.numbers.items():
            data = re.sub(rb"(?<![0-9])%d(?![0-9])" % port, b"%%%%PORT_%d%%%%" % index, data)
        data = TEMPORARY.sub(b"\\1FILE", data)
        return PRODUCT.sub(b"PRODUCT", data)

    def _logged(self) -> Fields:
        """What has come into the logs since the last call.

        A request is logged when it is over, which a lingering close delays until the client has left. Both servers
        handle one connection's end before what comes on a later one, so an answer there says that all is written.
        """
        with Client(self.server.port(MARKER_PORT), timeout=TIMEOUT) as marker:
            marker.get()
        found: Fields = {}
        for name in LOGS:
            for number, line in enumerate(self._lines(name)):
                if name == "fields":
                    branded = self.branded[number] if number < len(self.branded) else True
                    found.update((f"log.{number}.{key}", value) for key, value in self._log_fields(line, branded))
                else:
                    lines = found.setdefault(name, [])
                    assert isinstance(lines, list)
                    lines.append(line)
        return found

    def _lines(self, name: str) -> list[str]:
        """New lines of a log, without what depends on time, process numbers, page sizes and the product."""
        with open(self.server.prefix / f"logs/{name}.log", "rb") as file:
            file.seek(self.read[name])
            data = file.read()
        self.read[name] += len(data)
        lines = []
        for line in self.normalize(data).decode(errors="backslashreplace").splitlines():
            line = ERROR_START.sub(r"TIME \1 PID: *N ", TIME.sub("[TIME]", line))
            lines.append(re.sub(r'(?<=" \d{3} )\d+', lambda size: self._size(size[0]), line))
        return lines

    def _size(self, size: str) -> str:
        return "PAGE" if size in self.sizes else size

    def _log_fields(self, line: str, branded: bool) -> Iterator[tuple[str, str]]:
        """The fields of a line of fields.log; `sent` as the size of the head, without the product's name in it."""
        pairs = dict(part.partition("=")[::2] for part in line.split("\t"))
        head = int(pairs["sent"]) - int(pairs["body"])
        product = "nginx" if self.server.is_nginx else "headgate"
        pairs["sent"] = str(head - len(product) if head and branded else head)
        for name in ("body", "sent_length"):
            pairs[name] = self._size(pairs[name])
        pairs["sent_type"] = re.sub(r"boundary=\d+", "boundary=", pairs["sent_type"])
        if pairs["status"] in UNREAD:
            pairs = {name: value for name, value in pairs.items() if name not in READ}
        yield from pairs.items()


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
