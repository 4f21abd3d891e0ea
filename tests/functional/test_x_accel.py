"""X-Accel-*: what a backend's response tells the proxy to do; proxy_ignore_headers."""

from collections.abc import Callable, Iterator

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server
from tests.proxying import Proxying, proxying

Factory = Callable[..., Server]
Backends = Callable[..., Backend]

KEPT = [
    ("Content-Type", "text/x-own"),
    ("Set-Cookie", "a=b"),
    ("Content-Disposition", "attachment"),
    ("Cache-Control", "max-age=9"),
    ("Expires", "Thu, 31 Dec 2037 23:55:55 GMT"),
]
LOST = [("X-Other", "lost"), ("ETag", '"own"'), ("Last-Modified", "Mon, 28 Sep 1970 06:00:00 GMT"), ("Link", "</a>")]
FILES = {"html/inside/file.txt": "from a file", "html/inside/a b": "a space", "html/inside/1000": "per cent"}


ALLOWED = ["/inside/none. failed", 'could not find named location "@none"', "unsafe URI .* was detected"]


def told(request: Request) -> Reply:
    """Answers with the fields named in `X-Tell: Name=value|Name=value`."""
    text = request.header("x-tell") or ""
    return Reply(
        headers=[(name, value) for name, _, value in (pair.partition("=") for pair in text.split("|")) if name]
    )


CONF = """
    http {
        log_format tries "$upstream_addr $upstream_status $upstream_response_length";
        server {
            listen 127.0.0.1:%%PORT_0%%;
            access_log logs/tries.log tries;
            set $shown $upstream_http_x_accel_redirect;
            location / { proxy_pass http://BACKEND; }
            location /inside/ { internal; }
            location /inside/shown { internal; return 200 "$request_method $uri $args $shown"; }
            location /inside/more/ { internal; proxy_pass http://BACKEND; proxy_set_header X-Tell ""; }
            location @named { return 200 "named $request_method $uri"; }
            location /cookie/ { proxy_pass http://BACKEND; proxy_cookie_path / /x; proxy_hide_header Set-Cookie; }
            location /ignore/ {
                proxy_pass http://BACKEND;
                proxy_ignore_headers X-Accel-Redirect X-Accel-Limit-Rate;
                proxy_ignore_headers X-Accel-Charset X-Accel-Buffering X-Accel-Expires;
                proxy_ignore_headers Vary Expires Cache-Control Set-Cookie;
            }
            location /shown/ { proxy_pass http://BACKEND; proxy_pass_header X-Accel-Expires; }
        }
    }"""


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, told, ALLOWED, FILES) as running:
        yield running


@pytest.fixture
def server(proxy: Proxying) -> Server:
    return proxy.server


def tell(*pairs: tuple[str, str]) -> dict[str, str]:
    return {"X-Tell": "|".join(f"{name}={value}" for name, value in pairs)}


def test_redirect_to_a_file(server: Server) -> None:
    reply = server.get("/", tell(("X-Accel-Redirect", "/inside/file.txt"), *KEPT, *LOST))
    assert (reply.status, reply.body) == (200, b"from a file")
    assert [(name, reply.header(name)) for name, _ in KEPT] == KEPT
    assert reply.header("X-Other") is reply.header("Link") is reply.header("X-Accel-Redirect") is None
    assert reply.header("ETag") != '"own"' and reply.header("Last-Modified") != LOST[2][1]


def test_the_status_is_the_new_ones(server: Server) -> None:
    reply = server.get("/", tell(("X-Accel-Redirect", "/inside/none")))
    assert reply.status == 404


@pytest.mark.parametrize(
    ("method", "target", "shown"),
    [
        ("GET", "/inside/shown?a=b%20c", b"GET /inside/shown a=b%20c /inside/shown?a=b%20c"),
        ("POST", "/inside/shown", b"GET /inside/shown  /inside/shown"),
        ("DELETE", "/inside/shown%20x%3F", b"GET /inside/shown x?  /inside/shown%20x%3F"),
    ],
)
def test_redirect_is_a_get(server: Server, method: str, target: str, shown: bytes) -> None:
    reply = server.request(method, "/", tell(("X-Accel-Redirect", target)), b"body" if method == "POST" else b"")
    assert reply.body == shown


def test_redirect_of_a_head(server: Server) -> None:
    reply = server.request("HEAD", "/", tell(("X-Accel-Redirect", "/inside/file.txt")))
    assert (reply.status, reply.header("Content-Length")) == (200, "11")


def test_redirect_to_a_named_location(server: Server) -> None:
    reply = server.request("POST", "/at", tell(("X-Accel-Redirect", "@named"), *KEPT), b"body")
    assert reply.body == b"named POST /at"
    assert [(name, reply.header(name)) for name, _ in KEPT] == KEPT


def test_no_such_named_location(server: Server) -> None:
    assert server.get("/", tell(("X-Accel-Redirect", "@none"))).status == 500


@pytest.mark.parametrize(
    "target", ["..", "../a", "/..", "/inside/../inside/file.txt", "/%2e%2e/a", "?a", "/inside/%00"]
)
def test_unsafe(server: Server, target: str) -> None:
    assert server.get("/", tell(("X-Accel-Redirect", target))).status == 404
    server.expect_log("unsafe URI .* was detected while reading response header from upstream")


@pytest.mark.parametrize(("target", "body"), [("/inside/a%20b", b"a space"), ("/inside/10%300%", b"per cent")])
def test_unescaped(server: Server, target: str, body: bytes) -> None:
    assert server.get("/", tell(("X-Accel-Redirect", target))).body == body


def test_redirect_to_another_upstream(proxy: Proxying) -> None:
    server, peer = proxy.server, proxy.backend.address
    before = len(server.log_lines("logs/tries.log"))
    reply = server.get("/", tell(("X-Accel-Redirect", "/inside/more/x"), ("X-Other", "lost")))
    assert (reply.status, reply.header("X-Other")) == (200, None)
    assert server.access_log(before + 1, "logs/tries.log")[before:] == [f"{peer} : {peer} 200 : 200 0 : 0"]


def test_redirects_do_not_go_round_for_ever(either: Factory, backend: Backends) -> None:
    peer = backend(lambda request: Reply(headers=[("X-Accel-Redirect", "/again")]))
    server = either(
        f"http {{ server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://{peer.address}; }} }} }}"
    )
    server.allow("rewrite or internal redirection cycle while internally redirecting to")
    assert server.get("/").status == 500
    assert len(peer.requests) == 11


def test_a_hidden_cookie_survives_and_is_rewritten(server: Server) -> None:
    reply = server.get("/cookie/", tell(("X-Accel-Redirect", "/inside/file.txt"), ("Set-Cookie", "a=b; Path=/")))
    assert reply.header("Set-Cookie") == "a=b; Path=/x"


def test_the_connection_lives_on_without_a_body(headgate: Factory, backend: Backends) -> None:
    peer = backend(told)
    server = headgate(CONF.replace("BACKEND", peer.address), files=FILES)
    for _ in range(3):
        assert server.get("/", tell(("X-Accel-Redirect", "/inside/file.txt"))).body == b"from a file"
    assert peer.connections == 3  # an implicit upstream keeps none
    conf = CONF.replace("BACKEND", "u").replace(
        "http {", f"http {{ upstream u {{ server {peer.address}; keepalive 4; }}", 1
    )
    server = headgate(conf, files=FILES)
    for _ in range(3):
        assert server.get("/", tell(("X-Accel-Redirect", "/inside/file.txt"))).body == b"from a file"
    assert peer.connections == 4


def test_a_body_that_is_not_wanted_ends_the_connection(headgate: Factory, backend: Backends) -> None:
    peer = backend(lambda r: Reply(headers=[("X-Accel-Redirect", "/inside/file.txt")], body=b"not wanted" * 100))
    conf = CONF.replace("BACKEND", "u").replace(
        "http {", f"http {{ upstream u {{ server {peer.address}; keepalive 4; }}", 1
    )
    server = headgate(conf, files=FILES)
    for _ in range(3):
        assert server.get("/").body == b"from a file"
    assert [request.nth for request in peer.requests] == [1, 1, 1]


def test_ignored(server: Server) -> None:
    told = [("X-Accel-Redirect", "/inside/file.txt"), ("X-Accel-Limit-Rate", "1"), ("X-Accel-Charset", "koi8-r")]
    reply = server.get("/ignore/", tell(*told, *KEPT, ("Vary", "A")))
    assert (reply.status, reply.body) == (200, b"")
    assert [(name, reply.header(name)) for name, _ in KEPT] == KEPT
    assert reply.header("Vary") == "A" and reply.header("X-Accel-Redirect") is None


def test_never_shown(server: Server) -> None:
    names = ("Expires", "Limit-Rate", "Buffering", "Charset")
    reply = server.get("/", tell(*((f"X-Accel-{name}", "0") for name in names), ("X-Pad", "x"), ("X-Accel-Else", "y")))
    assert not [name for name, _ in reply.headers if name.startswith("X-Accel-") and name != "X-Accel-Else"]
    assert reply.header("X-Pad") is None and reply.header("X-Accel-Else") == "y"


def test_shown_where_it_is_passed(server: Server) -> None:
    reply = server.get("/shown/", tell(("X-Accel-Expires", "5"), ("X-Accel-Buffering", "no")))
    assert reply.header("X-Accel-Expires") == "5" and reply.header("X-Accel-Buffering") is None


def test_buffering_no_sends_at_once_what_the_rate_would_hold_back(headgate: Factory, backend: Backends) -> None:
    """limit_rate is for buffered responses: X-Accel-Buffering: no ends it (as nginx)."""
    peer = backend(lambda r: Reply(headers=[("X-Accel-Buffering", r.target[1:])], body=b"x" * 3000))
    server = headgate(f"""
        http {{ server {{
            listen 127.0.0.1:%%PORT_0%%;
            limit_rate 100;
            location / {{ proxy_pass http://{peer.address}; }}
        }} }}""")
    with server.client() as client:
        assert client.get("/no").body == b"x" * 3000
    with server.client(timeout=1) as client, pytest.raises(TimeoutError):
        client.get("/yes")


@pytest.mark.parametrize(
    ("status", "sent", "seen"),
    [
        (200, "text/html", "text/html; charset=koi8-r"),
        (200, "text/html; charset=utf-8", "text/html; charset=koi8-r"),
        (200, 'text/html;charset="utf-8"; a=b', "text/html; a=b; charset=koi8-r"),
        (404, "text/html", "text/html; charset=koi8-r"),
        (302, "text/html; charset=utf-8", "text/html; charset=utf-8"),
        (200, None, None),
    ],
)
def test_charset(headgate: Factory, backend: Backends, status: int, sent: str | None, seen: str | None) -> None:
    """Any name is taken; nginx takes those that a charset directive has made known."""
    pairs = [("X-Accel-Charset", "koi8-r"), *([("Content-Type", sent)] if sent else [])]
    peer = backend(lambda request: Reply(status, pairs))
    server = headgate(
        f"http {{ server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://{peer.address}; }} }} }}"
    )
    assert server.get("/").header("Content-Type") == seen


def test_charset_of_a_redirected_answer(headgate: Factory, backend: Backends) -> None:
    peer = backend(told)
    server = headgate(CONF.replace("BACKEND", peer.address), files=FILES)
    reply = server.get("/", tell(("X-Accel-Redirect", "/inside/file.txt"), ("X-Accel-Charset", "utf-8")))
    assert (reply.body, reply.header("Content-Type")) == (b"from a file", "text/plain; charset=utf-8")
