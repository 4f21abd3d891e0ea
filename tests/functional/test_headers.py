"""`add_header`, `expires` and `add_trailer`, on headgate and on nginx alike."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]
BOTH = pytest.mark.parametrize("binary", ["headgate", "nginx"])


@pytest.fixture
def serve(binary: str, request: pytest.FixtureRequest) -> Factory:
    """The factory of the binary that the test's `binary` parameter names."""
    factory: Factory = request.getfixturevalue(binary)
    return factory


def site(locations: str, http: str = "") -> str:
    return f"http {{ {http} server {{ listen 127.0.0.1:%%PORT_0%%; {locations} }} }}"


STATUSES = (200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 403, 404, 500, 503)
SAFE = {200, 201, 204, 206, 301, 302, 303, 304, 307, 308}


@BOTH
def test_which_statuses_get_them(serve: Factory) -> None:
    returns = "".join(f'location /{status} {{ return {status} "x"; }}' for status in STATUSES if status >= 300)
    returns += "".join(f"location /{status} {{ return {status}; }}" for status in STATUSES if status < 300)
    server = serve(site(returns, http='add_header X-Safe "1"; add_header X-Always "$status" always; expires 1h;'))
    for status in STATUSES:
        reply = server.get(f"/{status}")
        assert reply.status == status
        assert reply.header("X-Always") == str(status)
        assert (reply.header("X-Safe") is not None) is (status in SAFE), status
        assert (reply.header("Expires") is not None) is (status in SAFE), status


@BOTH
def test_values_and_order(serve: Factory) -> None:
    conf = site(
        """
        add_header X-One "$uri?$args"; add_header x-two "a  b"; add_header X-One again;
        add_header X-Empty ""; add_header X-None $arg_none; add_header X-End "$arg_q!";
        """
    )
    server = serve(conf, files={"html/f": "x"})
    reply = server.get("/f?q=1")
    added = [pair for pair in reply.headers if pair[0].lower().startswith("x-")]
    assert added == [("X-One", "/f?q=1"), ("x-two", "a  b"), ("X-One", "again"), ("X-End", "1!")]


@BOTH
def test_inherited_where_none_is_set(serve: Factory) -> None:
    conf = site(
        """
        location /in/ { location /in/in/ { expires off; } }
        location /own/ { add_header B 2; }
        location /if/ { add_header C 3; if ($arg_x) { add_header D 4; } }
        location /nothing/ { expires 1h; if ($arg_x) { set $y 1; } }
        """,
        http="add_header A 1;",
    )
    files = {f"html/{name}/f": "x" for name in ("in", "in/in", "own", "if", "nothing")}
    server = serve(conf, files=files)
    for target, expected in (
        ("/in/f", ["A"]),
        ("/in/in/f", ["A"]),
        ("/own/f", ["B"]),
        ("/if/f", ["C"]),
        ("/if/f?x=1", ["D"]),
        ("/nothing/f?x=1", ["A"]),
    ):
        assert [name for name, _ in server.get(target).headers if len(name) == 1] == expected, target


def test_add_header_inherit(headgate: Factory) -> None:
    """Newer than the nginx at hand: merge puts the outer lines behind the own ones, off takes over none."""
    conf = site(
        """
        location /off/ { add_header_inherit off; location /off/in/ { } location /off/on/ { add_header_inherit on; } }
        location /merge/ { add_header_inherit merge; add_header B 2; location /merge/in/ { add_header C 3; } }
        location /keep/ { add_header_inherit merge; }
        location /plain/ { add_header B 2; }
        """,
        http="add_header A 1;",
    )
    names = ("off", "off/in", "off/on", "merge", "merge/in", "keep", "plain")
    server = headgate(conf, files={f"html/{name}/f": "x" for name in names})
    found = [[key for key, _ in server.get(f"/{name}/f").headers if len(key) == 1] for name in names]
    assert found == [[], [], [], ["B", "A"], ["C", "B", "A"], ["A"], ["B"]]


@BOTH
def test_fields_that_are_replaced(serve: Factory) -> None:
    conf = site(
        """
        location /set/ { add_header Last-Modified "Sun, 06 Nov 1994 08:49:37 GMT"; add_header ETag "\\"x\\""; }
        location /odd/ { add_header last-modified "some day"; add_header etag mine; }
        location /gone/ { add_header Last-Modified ""; add_header ETag ""; }
        location /cc/ { expires 1h; add_header Cache-Control public; add_header Cache-Control "x=1"; }
        """
    )
    names = ("set", "odd", "gone", "cc")
    server = serve(conf, files={f"html/{name}/f": "x" for name in names})
    replies = {name: server.get(f"/{name}/f") for name in names}
    assert replies["set"].header("Last-Modified") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert replies["set"].header("ETag") == '"x"'
    assert (replies["odd"].header("Last-Modified"), replies["odd"].header("ETag")) == ("some day", "mine")
    assert (replies["gone"].header("Last-Modified"), replies["gone"].header("ETag")) == (None, None)
    assert replies["cc"].all("Cache-Control") == ["max-age=3600", "public", "x=1"]


def approx(value: float) -> object:
    return pytest.approx(value, abs=1)


def seconds(text: str | None) -> float:
    assert text is not None
    return email.utils.parsedate_to_datetime(text).timestamp()


@BOTH
def test_expires(serve: Factory) -> None:
    values = ["30s", "+1h", "1d", "-1", "0", "epoch", "max", "modified +1h", "modified -1", "@23h59m", "$arg_e"]
    conf = site("".join(f"location /{i} {{ expires {value}; }}" for i, value in enumerate(values)), http="expires off;")
    server = serve(conf, files={f"html/{i}": "x" for i in range(len(values))})
    for i in range(len(values)):
        os.utime(server.prefix / f"html/{i}", (time.time() - 600, time.time() - 600))

    def ask(value: str, query: str = "") -> tuple[float, str | None]:
        """How long after Date it expires, give or take the second that may begin in between."""
        reply = server.get(f"/{values.index(value)}{query}")
        expires, control = reply.header("Expires"), reply.header("Cache-Control")
        return (0 if expires is None else seconds(expires) - seconds(reply.header("Date"))), control

    assert ask("30s") == (approx(30), "max-age=30")
    assert ask("+1h") == (approx(3600), "max-age=3600")
    assert ask("1d") == (approx(86400), "max-age=86400")
    assert ask("-1") == (approx(-1), "no-cache")
    assert ask("0") == (approx(0), "max-age=0")
    assert ask("epoch")[1] == "no-cache"
    assert ask("max")[1] == "max-age=315360000"
    offset, control = ask("modified +1h")
    assert control is not None and int(control.removeprefix("max-age=")) == approx(offset) and 2990 < offset <= 3000
    offset, control = ask("modified -1")
    assert control == "no-cache" and -610 < offset <= -600
    offset, control = ask("@23h59m")
    assert control is not None and int(control.removeprefix("max-age=")) == approx(offset) and 0 < offset <= 86400
    assert time.localtime(time.time() + offset)[3:5] in ((23, 58), (23, 59), (0, 0))
    for query, expected in (
        ("?e=10", (approx(10), "max-age=10")),
        ("?e=off", (0, None)),
        ("?e=junk", (0, None)),
        ("", (0, None)),
    ):
        assert ask("$arg_e", query) == expected, query
    assert ask("$arg_e", "?e=max")[1] == "max-age=315360000"
    assert server.get("/none").header("Expires") is None
    server.allow("No such file")


@BOTH
def test_expires_is_inherited(serve: Factory) -> None:
    conf = site("expires 1h; location /off/ { expires off; } location /in/ { }")
    server = serve(conf, files={"html/off/f": "x", "html/in/f": "x"})
    assert server.get("/off/f").header("Cache-Control") is None
    assert server.get("/in/f").header("Cache-Control") == "max-age=3600"


@BOTH
def test_trailers(serve: Factory) -> None:
    conf = site(
        """
        add_trailer X-Sent "$status"; add_trailer X-None ""; add_trailer X-Always yes always;
        location /off/ { chunked_transfer_encoding off; }
        location /return { return 200 "hello"; }
        location /on/ { sendfile on; }
        """
    )
    large = b"0123456789" * 20_000
    server = serve(conf, files={"html/f": "hello", "html/off/f": "hello", "html/large": large, "html/on/large": large})
    server.allow("No such file")
    both = [("X-Sent", "200"), ("X-Always", "yes")]
    for target, body in (("/f", b"hello"), ("/return", b"hello"), ("/large", large), ("/on/large", large)):
        with server.client() as client:
            reply = client.get(target)
            assert (reply.body == body, reply.trailers) == (True, both), target
            assert (reply.header("Transfer-Encoding"), reply.header("Content-Length")) == ("chunked", None)
            assert client.get(target).trailers == both
    reply = server.get("/f", {"Range": "bytes=1-2"})
    assert (reply.status, reply.body, reply.trailers[0]) == (206, b"el", ("X-Sent", "206"))
    assert server.get("/none").trailers == [("X-Always", "yes")]
    for target, method in (("/off/f", "GET"), ("/f", "HEAD")):
        reply = server.request(method, target)
        assert (reply.header("Content-Length"), reply.header("Transfer-Encoding")) == ("5", None), target
    with server.client() as client:
        client.send("GET /f HTTP/1.0\r\n\r\n")
        reply = client.response()
        assert (reply.body, reply.header("Content-Length")) == (b"hello", "5")
    reply = server.get("/f", {"If-None-Match": "*"})
    assert (reply.status, reply.trailers) == (304, [])


@BOTH
def test_configuration_errors(serve: Factory) -> None:
    for line, message in (
        ("add_header A;", 'invalid number of arguments in "add_header" directive in {}:2'),
        ("add_header A b never;", 'invalid parameter "never" in {}:2'),
        ("expires x;", '"expires" directive invalid value in {}:2'),
        ("expires never 1h;", '"expires" directive invalid value in {}:2'),
        ("expires modified max;", '"expires" directive invalid value in {}:2'),
        ("expires modified @1h;", '"expires" directive daily time cannot be used with "modified" parameter in {}:2'),
        ("expires @25h;", '"expires" directive daily time value must be less than 24 hours in {}:2'),
        ("expires 1h; expires 2h;", '"expires" directive is duplicate in {}:2'),
        ("add_trailer A b c;", 'invalid parameter "c" in {}:2'),
        ("add_header A $nowhere;", 'unknown "nowhere" variable'),
    ):
        server = serve(site(f"\n{line}"), start=False)
        assert message.format(server.prefix / "nginx.conf") in server.check().stderr, line
