"""What a broken or hostile backend sends never reaches a client as if it were a response.

A head that cannot be trusted is 502 and an [error] that names what is wrong; the next peer is asked where
proxy_next_upstream says so; the connection is never used again. A body that is cut short is always seen by the client.
What comes beyond a body's end never becomes part of the next response.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.backends import CLOSE, RESET, Backend, Reply, Request
from tests.client import Client, MalformedError, TruncatedError, build, fetch
from tests.harness import Server, until

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CUT = "upstream prematurely closed connection"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


@dataclass(frozen=True)
class Case:
    """`wire` is the backend's answer; `log` (a regular expression) what the error log says of it."""

    name: str
    wire: bytes
    log: str
    status: int = 502
    body: bytes = b""
    method: str = "GET"
    upgrade: bool = False

    def __str__(self) -> str:
        return self.name


def field(line: bytes) -> bytes:
    """A response with one more header line."""
    return OK + line + b"\r\nContent-Length: 5\r\n\r\nhello"


def line(start: bytes) -> bytes:
    """A response that starts with this instead of a status line."""
    return start + b"\r\nContent-Length: 5\r\n\r\nhello"


DUPLICATE = "upstream sent duplicate header line"
BOTH = 'upstream sent "Content-Length" and "Transfer-Encoding" headers at the same time'
LENGTH = 'upstream sent invalid "Content-Length" header'
CODING = 'upstream sent unknown "Transfer-Encoding"'
START = "upstream sent no valid HTTP/1.0 header"
FIELD = "upstream sent invalid header"
BIG = "upstream sent too big header"

HEADS = [
    Case("a second Content-Length", field(b"Content-Length: 6"), DUPLICATE),
    Case("the same Content-Length twice", field(b"Content-Length: 5"), DUPLICATE),
    Case("a list of lengths", line(OK + b"Content-Length: 5, 5"), LENGTH),
    Case("a negative length", OK + b"Content-Length: -5\r\n\r\nhello", LENGTH),
    Case("a length with a sign", OK + b"Content-Length: +5\r\n\r\nhello", LENGTH),
    Case("a hexadecimal length", OK + b"Content-Length: 0x5\r\n\r\nhello", LENGTH),
    Case("an empty length", OK + b"Content-Length:\r\n\r\nhello", LENGTH),
    Case("a length of two numbers", OK + b"Content-Length: 5 5\r\n\r\nhello", LENGTH),
    Case("a length with a fraction", OK + b"Content-Length: 5.0\r\n\r\nhello", LENGTH),
    Case("a length beyond 64 bits", OK + b"Content-Length: 99999999999999999999\r\n\r\nhello", LENGTH),
    Case("length, then coding", field(b"Transfer-Encoding: chunked"), BOTH),
    Case("coding, then length", CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n", BOTH),
    Case("an unknown coding", OK + b"Transfer-Encoding: gzip\r\n\r\nhello", CODING),
    Case("two codings in one", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CODING),
    Case("a coding after chunked", OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", CODING),
    Case("the coding identity", OK + b"Transfer-Encoding: identity\r\n\r\nhello", CODING),
    Case("a coding like chunked", OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", CODING),
    Case("a coding with a parameter", OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", CODING),
    Case("an empty coding", OK + b"Transfer-Encoding:\r\n\r\nhello", CODING),
    Case("chunked twice", CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", DUPLICATE),
    Case("a body and nothing else", b"hello" + CLOSE, START),
    Case("a page and nothing else", b"<html>hello</html>\r\n\r\n" + CLOSE, START),
    Case("a wrong first byte, and silence", b"G", START),
    Case("an empty line first", b"\r\n" + FIVE + b"hello", START),
    Case("a space first", b" " + FIVE + b"hello", START),
    Case("another protocol", line(b"ICY 200 OK"), START),
    Case("lower case", line(b"http/1.1 200 OK"), START),
    Case("HTTP/2", line(b"HTTP/2.0 200 OK"), START),
    Case("HTTP/0.9", line(b"HTTP/0.9 200 OK"), START),
    Case("a version without a dot", line(b"HTTP/11 200 OK"), START),
    Case("no status", line(b"HTTP/1.1"), START),
    Case("a status of two digits", line(b"HTTP/1.1 20 OK"), START),
    Case("a status of four digits", line(b"HTTP/1.1 2000 OK"), START),
    Case("a status of letters", line(b"HTTP/1.1 abc OK"), START),
    Case("a status below 100", line(b"HTTP/1.1 099 Low"), START),
    Case("a control byte in the reason", line(b"HTTP/1.1 200 O\x01K"), START),
    Case("a NUL in the reason", line(b"HTTP/1.1 200 O\x00K"), START),
    Case("a bare CR in the status line", line(b"HTTP/1.1 200 OK\rX: y"), START),
    Case("a control byte in a value", field(b"X-A: b\x01c"), FIELD),
    Case("a NUL in a value", field(b"X-A: b\x00c"), FIELD),
    Case("a DEL in a value", field(b"X-A: b\x7fc"), FIELD),
    Case("a bare CR in a value", field(b"X-A: b\rContent-Length: 9"), FIELD),
    Case("a NUL in a name", field(b"X\x00A: b"), FIELD),
    Case("a folded line", field(b"X-A: b\r\n c"), FIELD),
    Case("a line folded by a tab", field(b"X-A: b\r\n\tc"), FIELD),
    Case("a first line that is folded", field(b" X-A: b"), FIELD),
    Case("a space in a name", field(b"X A: b"), FIELD),
    Case("a space before the colon", field(b"Content-Length : 9"), FIELD),
    Case("an empty name", field(b": b"), FIELD),
    Case("no colon", field(b"X-A"), FIELD),
    Case("a bracket in a name", field(b"X(A): b"), FIELD),
    Case("a byte above 127 in a name", field(b"X-\xe4: b"), FIELD),
    Case("a status line among the fields", field(b"HTTP/1.1 200 OK"), FIELD),
    Case("one line that is too long", field(b"X-A: " + b"b" * 5000), BIG),
    Case("too many lines", field(b"\r\n".join(b"X-%d: b" % i for i in range(600))), BIG),
    Case("a line without an end", OK + b"X-A: " + b"b" * 5000, BIG),
    Case("a status line without an end", b"HTTP/1.1 200 " + b"b" * 5000, BIG),
    Case("a head cut in its status line", b"HTTP/1.1 200" + CLOSE, CUT),
    Case("a head cut after its status line", OK + CLOSE, CUT),
    Case("a head cut in a field", OK + b"Content-Le" + CLOSE, CUT),
    Case("a head cut before its empty line", OK + b"Content-Length: 5\r\n" + CLOSE, CUT),
    Case("nothing at all", CLOSE, CUT),
    Case("a reset", RESET, r"recv\(\) failed \(104"),
    Case("a reset in the head", OK + b"Content-Le" + RESET, r"recv\(\) failed \(104|" + CUT),
    Case("a 101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "unexpected 101"),
    Case(
        "a 101 that was not passed on",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "unexpected 101",
        upgrade=True,
    ),
    Case("a 100 and no more", b"HTTP/1.1 100 Continue\r\n\r\n" + CLOSE, CUT),
    Case("interim responses without end", b"HTTP/1.1 102 Processing\r\n\r\n" * 2000, "too many interim responses"),
    Case(
        "an interim response with a bad field", b"HTTP/1.1 103 Early Hints\r\nX A: b\r\n\r\n" + FIVE + b"hello", FIELD
    ),
    Case("early hints of HTTP/1.0", b"HTTP/1.0 103 Early Hints\r\n\r\n" + FIVE + b"hello", "HTTP/1.0 .*early hints"),
]

BAD_CHUNK = "upstream sent invalid chunked response"
BODIES = [
    Case("a short body", FIVE + b"hel" + CLOSE, CUT, 200, b"hel"),
    Case("no body", FIVE + CLOSE, CUT, 200, b""),
    Case("a body that is reset", FIVE + b"hel" + RESET, r"recv\(\) failed \(104|" + CUT, 200, b"hel"),
    Case(
        "a long body cut short", OK + b"Content-Length: 200000\r\n\r\n" + b"x" * 150000 + CLOSE, CUT, 200, b"x" * 150000
    ),
    Case("no last chunk", CHUNKED + b"5\r\nhello\r\n" + CLOSE, CUT, 200, b"hello"),
    Case("no chunk at all", CHUNKED + CLOSE, CUT, 200, b""),
    Case("a chunk cut short", CHUNKED + b"5\r\nhel" + CLOSE, CUT, 200, b"hel"),
    Case("a chunk size cut short", CHUNKED + b"5\r\nhello\r\n5" + CLOSE, CUT, 200, b"hello"),
    Case("a last chunk cut short", CHUNKED + b"5\r\nhello\r\n0\r\n" + CLOSE, CUT, 200, b"hello"),
    Case("trailers cut short", CHUNKED + b"5\r\nhello\r\n0\r\nX-A: b\r\n" + CLOSE, CUT, 200, b"hello"),
    Case("a chunked body that is reset", CHUNKED + b"5\r\nhel" + RESET, r"recv\(\) failed \(104|" + CUT, 200, b"hel"),
    Case("a size that is no number", CHUNKED + b"5\r\nhello\r\nxyz\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a negative size", CHUNKED + b"5\r\nhello\r\n-1\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a size with 0x", CHUNKED + b"5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a size beyond 64 bits", CHUNKED + b"5\r\nhello\r\nfffffffffffffffff\r\n", BAD_CHUNK, 200, b"hello"),
    Case("an empty size", CHUNKED + b"5\r\nhello\r\n\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a chunk longer than its size", CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a control byte in a trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-A: \x01\r\n\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a folded trailer", CHUNKED + b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n", BAD_CHUNK, 200, b"hello"),
    Case("a size line without an end", CHUNKED + b"5\r\nhello\r\n5;" + b"a" * 5000, BAD_CHUNK, 200, b"hello"),
]

MORE = 'upstream sent more data than specified in "Content-Length" header'
LATE = "upstream sent data after final chunk"
OVERLONG = [
    Case("bytes after the length", FIVE + b"hello-and-more", MORE, 200, b"hello"),
    Case("a response after the length", FIVE + b"hello" + EVIL, MORE, 200, b"hello"),
    Case("a body of length 0", OK + b"Content-Length: 0\r\n\r\n" + EVIL, "", 200, b""),
    Case("a response after the last chunk", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + EVIL, LATE, 200, b"hello"),
    Case("bytes after the trailers", CHUNKED + b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\nmore", LATE, 200, b"hello"),
    Case("a 204 with a body", b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, "", 204, b""),
    Case("a 304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n" + EVIL, "", 304, b""),
    Case("a body for a HEAD", FIVE + EVIL, "", 200, b"", "HEAD"),
]  # fmt: skip

CONF = """
    http {
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_next_upstream off;
        upstream bad { server BACKEND max_fails=0; keepalive 16; }
        upstream both { server BACKEND max_fails=0; server GOOD backup; keepalive 16; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://bad; }
            location /next/ { proxy_pass http://both/; proxy_next_upstream error invalid_header; }
        }
    }"""


class Proxy:
    """headgate between the clients and a backend that answers `/case/NAME` as the table says, others with an echo."""

    def __init__(self, prefix: object) -> None:
        cases = {f"/case/{key(case)}": case for case in HEADS + BODIES + OVERLONG}

        def answer(request: Request) -> bytes | Reply:
            case = cases.get(request.target)
            return case.wire if case is not None else Reply(body=request.target.encode())

        self.backend = Backend(answer)
        self.good = Backend(lambda request: Reply(body=b"good"))
        conf = CONF.replace("BACKEND", self.backend.address).replace("GOOD", self.good.address)
        self.server = Server(conf, prefix)  # type: ignore[arg-type]
        self.server.allow("while reading (response header from )?upstream")
        self.server.start()

    def stop(self) -> None:
        try:
            self.server.finish()
        finally:
            self.backend.stop()
            self.good.stop()
        assert not self.backend.errors + self.good.errors


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    running = Proxy(tmp_path_factory.mktemp("misbehaving") / "headgate")
    yield running
    running.stop()


def key(case: Case) -> str:
    return re.sub(r"\W", "-", case.name)


def request(case: Case, prefix: str = "", version: str = "1.1") -> bytes:
    headers = {"Upgrade": "websocket", "Connection": "upgrade"} if case.upgrade else {}
    return build(case.method, f"{prefix}/case/{key(case)}", headers, version=version)


def logged(proxy: Proxy, case: Case) -> None:
    """The error log has a line about this very request, of level error or (beyond a body's end) warn."""
    level = "error" if case in HEADS or case in BODIES else "warn"
    proxy.server.expect_log(rf"\[{level}\] .*{case.log}.*/case/{key(case)} ")


def never_again(proxy: Proxy, case: Case) -> None:
    """The connection that carried this answer carried no other request after it."""
    target = f"/case/{key(case)}"
    carried = [r for r in proxy.backend.requests if r.target == target][-1]
    assert not [r for r in proxy.backend.requests if r.connection == carried.connection and r.nth > carried.nth]


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_a_bad_head_is_a_502(proxy: Proxy, case: Case) -> None:
    closed = proxy.backend.closed
    with Client(proxy.server.port()) as client:
        client.send(request(case))
        assert client.response().status == 502
        assert client.get("/after").body == b"/after"
    proxy.backend.wait_closed(closed + 1)
    logged(proxy, case)
    never_again(proxy, case)


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_a_bad_head_is_for_the_next_peer(proxy: Proxy, case: Case) -> None:
    with Client(proxy.server.port()) as client:
        client.send(request(case, "/next"))
        reply = client.response()
    assert (reply.status, reply.body) == (200, b"good")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("case", BODIES, ids=str)
def test_a_body_cut_short_is_seen(proxy: Proxy, case: Case, version: str) -> None:
    closed = proxy.backend.closed
    with Client(proxy.server.port()) as client:
        client.send(request(case, version=version))
        with pytest.raises((TruncatedError, ConnectionResetError)) as caught:
            client.response()
        if isinstance(caught.value, TruncatedError) and caught.value.partial is not None:
            assert caught.value.partial.status == 200
            assert case.body.startswith(caught.value.partial.body)
    proxy.backend.wait_closed(closed + 1)
    logged(proxy, case)
    never_again(proxy, case)


@pytest.mark.parametrize("case", OVERLONG, ids=str)
def test_what_is_too_much_is_dropped(proxy: Proxy, case: Case) -> None:
    closed = proxy.backend.closed
    with Client(proxy.server.port()) as client:
        client.send(request(case))
        reply = client.response(case.method)
        assert (reply.status, reply.body) == (case.status, case.body)
        assert client.get("/after").body == b"/after"
    proxy.backend.wait_closed(closed + 1)
    if case.log:
        logged(proxy, case)
    never_again(proxy, case)


def test_what_comes_on_an_idle_connection_closes_it(headgate: object, backend: object) -> None:
    """The answer is complete and the connection kept; then the backend says more."""
    received = threading.Event()

    def late(request: Request) -> Iterator[bytes] | Reply:
        if request.target != "/late":
            return Reply(body=request.target.encode())

        def parts() -> Iterator[bytes]:
            yield FIVE + b"hello"
            received.wait(10)
            yield EVIL

        return parts()

    peer = backend(late)  # type: ignore[operator]
    server = headgate(CONF.replace("BACKEND", peer.address).replace("GOOD", peer.address))  # type: ignore[operator]
    assert server.get("/late").body == b"hello"
    received.set()
    peer.wait_closed(1)
    assert server.get("/after").body == b"/after"


def test_500_mixed_requests_poison_none(proxy: Proxy) -> None:
    """Eight clients over shared connections to the backend: whatever went before, an answer is to its own request."""
    cases = HEADS + BODIES + OVERLONG
    wrong: list[str] = []
    done: list[int] = []

    def client_of(number: int) -> None:
        chance = random.Random(number)
        client = Client(proxy.server.port())
        for i in range(63):
            target = f"/good/{number}/{i}"
            try:
                if chance.random() < 0.4:
                    case = chance.choice(cases)
                    client.send(request(case))
                    reply = client.response(case.method)
                    if reply.status != case.status or (case.status != 502 and reply.body != case.body):
                        wrong.append(f"{case}: {reply}")
                else:
                    reply = client.get(target)
                    if (reply.status, reply.body) != (200, target.encode()):
                        wrong.append(f"{target}: {reply}")
            except (TruncatedError, ConnectionError) as error:
                if target in str(error):
                    wrong.append(f"{target}: {error}")
                client.close()
                client = Client(proxy.server.port())
            except MalformedError as error:
                wrong.append(f"malformed: {error}")
            done.append(i)
        client.close()

    threads = [threading.Thread(target=client_of, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert len(done) == 8 * 63
    until(lambda: proxy.backend.open <= 16, "no more connections than may be kept")
    assert fetch(proxy.server.port(), "GET", "/still").body == b"/still"
