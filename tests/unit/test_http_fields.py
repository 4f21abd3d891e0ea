"""Requests by nginx's rules: Host values, names of fields, refused methods, browsers that are not trusted."""

from types import SimpleNamespace
from typing import Any

import pytest
from headgate.worker.http import fields
from headgate.worker.http.head import HTTP_11, BadRequest, RequestHead


@pytest.mark.parametrize(
    "host, name",
    [
        (b"example.com", b"example.com"),
        (b"EXAMPLE.Com", b"example.com"),
        (b"example.com.", b"example.com"),
        (b"example.com:8080", b"example.com"),
        (b"example.com.:1", b"example.com"),
        (b"example.com:", b"example.com"),
        (b"example.com:65535", b"example.com"),
        (b"example.com:000080", b"example.com"),
        (b"[::1]", b"[::1]"),
        (b"[FE80::1]:80", b"[fe80::1]"),
        (b"under_score", b"under_score"),
        (b"\xc3\xa9.test", b"\xc3\xa9.test"),
        (b"%41", b"%41"),
    ],
)
def test_host_name(host: bytes, name: bytes) -> None:
    for _ in range(2):  # the second time it is remembered
        assert fields.host_name(host) == name


@pytest.mark.parametrize(
    "host",
    [
        b"", b".", b"a..b", b"..", b"a/b", b"a\\b", b"a b", b"a\tb", b"a\0", b"a\x7f", b"a:b", b"a:65536",
        b"a:999999999", b"a:80:80", b":80", b"[", b"[]", b"]", b"[::1", b"[::1]x", b"a[::1]", b"[a/b]", b"[[::1]]",
        b"a:-1",
    ],
)  # fmt: skip
def test_bad_host(host: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        fields.host_name(host)
    assert (caught.value.status, caught.value.reason) == (400, "client sent invalid host header")


def test_what_clients_send_does_not_fill_the_memory() -> None:
    for number in range(3000):
        fields.host_name(b"Host-%d.test:80" % number)
    assert len(fields._hosts) <= 1024


class FakeRequest:
    def __init__(self, headers: list[tuple[bytes, bytes]], method: bytes = b"GET", **core: Any) -> None:
        settings = {"ignore_invalid_headers": True, "underscores_in_headers": False, **core}
        self.server = SimpleNamespace(core=SimpleNamespace(**settings))
        self.head = RequestHead(b"", method, b"/", HTTP_11, headers)
        self.method = method
        self.action = "doing"
        self.lines: list[str] = []

    def log(self, level: int, message: str) -> None:
        assert self.action == "reading client request headers"
        self.lines.append(message)

    def header(self, name: bytes) -> bytes | None:
        return dict(self.head.headers).get(name)


HEADERS = [(b"X-Good", b"1"), (b"under_score", b"2"), (b"dot.ted", b"3"), (b"t~lde", b"4"), (b"9", b"5")]


@pytest.mark.parametrize(
    "core, left",
    [
        ({}, [0, 4]),
        ({"underscores_in_headers": True}, [0, 1, 4]),
        ({"ignore_invalid_headers": False}, [0, 1, 2, 3, 4]),
    ],
)
def test_names_of_fields(core: dict[str, Any], left: list[int]) -> None:
    r: Any = FakeRequest(HEADERS, **core)
    kept = fields.keep(r)
    assert kept == [HEADERS[index] for index in left]
    gone = [header for header in HEADERS if header not in kept]
    assert r.lines == [f'client sent invalid header line: "{name.decode()}: {value.decode()}"' for name, value in gone]
    assert r.action == "doing"


@pytest.mark.parametrize(
    "method, target, status, reason",
    [
        (b"TRACE", b"/", 405, "client sent TRACE method"),
        (b"CONNECT", b"a:80", 405, "client sent CONNECT method"),
        (b"CONNECT", b"[::1]:443", 405, "client sent CONNECT method"),
        (b"CONNECT", b"/", 400, "client sent invalid CONNECT request"),
        (b"CONNECT", b"a", 400, "client sent invalid CONNECT request"),
        (b"CONNECT", b"a:b", 400, "client sent invalid CONNECT request"),
    ],
)
def test_refused_methods(method: bytes, target: bytes, status: int, reason: str) -> None:
    error = fields.refuse(RequestHead(b"", method, target, HTTP_11, []))
    assert (error.status, error.reason) == (status, reason)


SAFARI = b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_6) AppleWebKit/533 (KHTML, like Gecko) Version/5.0 Safari/533.16"
CHROME = SAFARI.replace(b"Version/5.0", b"Chrome/9.0")
MSIE6 = b"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"


@pytest.mark.parametrize(
    "agent, method, disable, distrusted",
    [
        (MSIE6, b"POST", {"msie6"}, True),
        (MSIE6, b"GET", {"msie6"}, False),
        (MSIE6.replace(b"NT 5.1", b"NT 5.1; SV1"), b"POST", {"msie6"}, False),
        (MSIE6.replace(b"MSIE 6", b"MSIE 7"), b"POST", {"msie6"}, False),
        (MSIE6, b"POST", {"safari"}, False),
        (SAFARI, b"GET", {"safari"}, True),
        (SAFARI, b"POST", {"msie6", "safari"}, True),
        (SAFARI, b"POST", {"msie6"}, False),
        (CHROME, b"GET", {"safari"}, False),
        (b"", b"POST", {"msie6", "safari"}, False),
    ],
)
def test_distrusted_browsers(agent: bytes, method: bytes, disable: set[str], distrusted: bool) -> None:
    r: Any = FakeRequest([(b"user-agent", agent)] if agent else [], method)
    assert fields.distrusted(r, frozenset(disable)) is distrusted


@pytest.mark.parametrize(
    "field, good",
    [
        ((b"X-A", b"value"), True),
        ((b"X-A", b""), True),
        ((b"X-A", b"tab\tand \xff"), True),
        ((b"X-A", b"line\r\nX-B: 1"), False),
        ((b"X-A", b"line\n"), False),
        ((b"X-A", b"\0"), False),
        ((b"X A", b"value"), False),
        ((b"", b"value"), False),
        ((b"X:A", b"value"), False),
    ],
)
def test_what_can_be_sent(field: tuple[bytes, bytes], good: bool) -> None:
    assert fields.sendable(field) is good
