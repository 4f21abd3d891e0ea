"""limit_rate, limit_rate_after, $limit_rate, X-Accel-Limit-Rate, proxy_limit_rate: how long a response takes.

A second's worth goes at once and the rest at the rate, so N bytes at R bytes a second take N / R - 1 seconds. What must
take longer than that is measured; what must not be held back is far below what the limit would make of it.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.backends import Reply, Request
from tests.client import Response, fetch
from tests.harness import Server
from tests.proxying import Proxying, proxying

BODY = b"0123456789abcdef" * 2500  # 40,000 bytes

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            sendfile on;
            location / { proxy_pass http://BACKEND; limit_rate 20k; }
            location /free/ { proxy_pass http://BACKEND; }
            location /zero/ { proxy_pass http://BACKEND; limit_rate 0; }
            location /after/ { proxy_pass http://BACKEND; limit_rate 1k; limit_rate_after 50k; }
            location /after-10k/ { proxy_pass http://BACKEND; limit_rate 10k; limit_rate_after 10k; }
            location /variable/ { proxy_pass http://BACKEND; limit_rate $arg_rate; limit_rate_after $arg_after; }
            location /set/ { proxy_pass http://BACKEND; set $limit_rate 20k; }
            location /unset/ { proxy_pass http://BACKEND; limit_rate 1; set $limit_rate 0; }
            location /bad/ { proxy_pass http://BACKEND; set $limit_rate nonsense; }
            location /if/ { proxy_pass http://BACKEND; if ($arg_slow) { limit_rate 20k; } }
            location /file { limit_rate 20k; add_header X-Rate $limit_rate; }
            location /chunks/ { proxy_pass http://BACKEND; limit_rate 20k; }
            location /own/ { proxy_pass http://BACKEND; }
            location /unbuffered/ { proxy_pass http://BACKEND; limit_rate 1; proxy_buffering off; }
            location /read/ { proxy_pass http://BACKEND; proxy_limit_rate 20k; }
            location /read-free/ { proxy_pass http://BACKEND; proxy_limit_rate 1k; proxy_buffering off; }
        }
    }"""


def answer(request: Request) -> Reply:
    headers = [("X-Accel-Limit-Rate", request.target.rpartition("/")[2])] if "/own/" in request.target else []
    return (
        Reply(headers=headers, chunks=[BODY[:30000], BODY[30000:]])
        if "chunks" in request.target
        else Reply(headers=headers, body=BODY)
    )


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    allow = [r'invalid \$limit_rate "nonsense"', 'invalid size "x?"']
    with proxying(request.param, tmp_path_factory, CONF, answer, allow, {"html/file": BODY}) as running:
        yield running


def timed(server: Server, target: str) -> tuple[Response, float]:
    start = time.monotonic()
    reply = fetch(server.port(), "GET", target)
    return reply, time.monotonic() - start


def test_rates(proxy: Proxying) -> None:
    """All at once: the least seconds each takes, None for no limit."""
    expected = {
        "/": 0.95,
        "/free/": None,
        "/zero/": None,
        "/after/": None,
        "/after-10k/": 1.9,
        "/variable/?rate=20k": 0.95,
        "/variable/?rate=0": None,
        "/variable/?rate=10k&after=20k": 0.9,
        "/variable/?rate=1&after=50k": None,
        "/variable/?rate=x": None,
        "/set/": 0.95,
        "/unset/": None,
        "/bad/": None,
        "/if/": None,
        "/if/?slow=1": 0.95,
        "/file": 0.95,
        "/chunks/": 0.95,
        "/own/20480": 0.95,
        "/own/0": None,
        "/own/nonsense": None,
        "/unbuffered/": None,
        "/read/": 0.95,
        "/read-free/": None,
    }
    with ThreadPoolExecutor(len(expected)) as pool:
        results = list(pool.map(lambda target: timed(proxy.server, target), expected))
    assert all(reply.body == BODY for reply, _ in results)
    took = {target: seconds for target, (_, seconds) in zip(expected, results, strict=True)}
    # nginx counts whole seconds, so that a second may be short by what had passed of it
    slack = 1.0 if proxy.server.is_nginx else 0.0
    late = {t: s for t, s in took.items() if (least := expected[t]) is not None and not least - slack <= s <= least + 5}
    assert not late
    assert not {target: seconds for target, seconds in took.items() if expected[target] is None and seconds > 5}


def test_the_variable_tells_the_rate(proxy: Proxying) -> None:
    with proxy.server.client() as client:
        client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        head = client.read_until(b"\r\n\r\n")
    assert b"X-Rate: 0\r\n" in head or b"X-Rate: 20480\r\n" in head


def test_a_client_that_leaves_ends_it(proxy: Proxying) -> None:
    with proxy.server.client() as client:
        client.send(b"GET /variable/?rate=100 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read(100)
    before = len(proxy.server.log_lines("logs/access.log"))
    assert proxy.server.get("/free/").body == BODY
    proxy.server.access_log(before + 1)


def test_a_client_that_does_not_read_times_out(either: Callable[..., Server]) -> None:
    """send_timeout is for clients that take nothing, however little they are given at a time."""
    server = either(
        """
        http { server {
            listen 127.0.0.1:%%PORT_0%% sndbuf=4k;
            location / { limit_rate 30k; limit_rate_after 60k; send_timeout 1s; }
        } }""",
        files={"html/file": BODY * 10},
    )
    with server.client(receive_buffer=4096) as client:
        client.send(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        server.expect_log("client timed out")
        server.access_log(1)


def test_two_responses_on_a_connection(proxy: Proxying) -> None:
    """Each has its own second and its own account; the next pipelined request waits for its turn."""
    with proxy.server.client() as client:
        start = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /free/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().body == client.response().body == BODY
        assert time.monotonic() - start < 3
