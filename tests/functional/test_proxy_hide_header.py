"""proxy_hide_header, proxy_pass_header: which of a backend's fields the client sees."""

from collections.abc import Iterator

import pytest

from tests.backends import Reply, Request
from tests.proxying import Proxying, proxying

FIELDS = [
    ("Date", "Mon, 28 Sep 1970 06:00:00 GMT"),
    ("Server", "own"),
    ("X-Pad", "pad"),
    ("X-Accel-Expires", "1"),
    ("X-One", "1"),
    ("x-two", "2"),
    ("X-One", "3"),
    ("Set-Cookie", "a=b"),
    ("Keep-Alive", "timeout=5"),
    ("ETag", 'W/"x"'),
    ("etag-not", "y"),
]

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { proxy_pass http://BACKEND; }
            location /hide/ { proxy_pass http://BACKEND; proxy_hide_header X-ONE; proxy_hide_header set-cookie; }
            location /pass/ { proxy_pass http://BACKEND; proxy_pass_header date; proxy_pass_header X-Pad; }
            location /server/ { proxy_pass http://BACKEND; proxy_pass_header Server; }
            location /all/ { proxy_pass http://BACKEND; proxy_pass_header Server; proxy_pass_header Date; }
            location /both/ { proxy_pass http://BACKEND; proxy_hide_header X-Two; proxy_pass_header X-Two; }
        }
        server {
            listen 127.0.0.1:%%PORT_1%%;
            proxy_hide_header X-One;
            proxy_pass_header X-Pad;
            location / { proxy_pass http://BACKEND; }
            location /more/ { proxy_pass http://BACKEND; proxy_hide_header X-Two; }
            location /pass/ { proxy_pass http://BACKEND; proxy_pass_header Server; }
        }
    }"""


def answer(request: Request) -> Reply:
    return Reply(headers=[] if request.target.endswith("/bare") else FIELDS)


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxying]:
    with proxying(request.param, tmp_path_factory, CONF, answer) as running:
        yield running


def shown(proxy: Proxying, target: str, index: int = 0) -> dict[str, list[str]]:
    """The backend's fields that the client got: by lower-case name, without those that the proxy makes."""
    got: dict[str, list[str]] = {}
    for name, value in proxy.server.get(target, index=index).headers:
        if (name, value) in FIELDS:
            got.setdefault(name.lower(), []).append(value)
    return got


USUAL = {"x-one": ["1", "3"], "x-two": ["2"], "set-cookie": ["a=b"], "etag": ['W/"x"'], "etag-not": ["y"]}


@pytest.mark.parametrize(
    ("target", "index", "without", "extra"),
    [
        ("/", 0, [], {}),
        ("/hide/", 0, ["x-one", "set-cookie"], {}),
        ("/pass/", 0, [], {"date": [FIELDS[0][1]], "x-pad": ["pad"]}),
        ("/server/", 0, [], {"server": ["own"]}),
        ("/all/", 0, [], {"server": ["own"], "date": [FIELDS[0][1]]}),
        ("/both/", 0, [], {}),
        ("/", 1, ["x-one"], {"x-pad": ["pad"]}),
        ("/more/", 1, ["x-two"], {"x-pad": ["pad"]}),
        ("/pass/", 1, ["x-one"], {"server": ["own"]}),
    ],
)
def test_shown(proxy: Proxying, target: str, index: int, without: list[str], extra: dict[str, list[str]]) -> None:
    expected = {name: values for name, values in USUAL.items() if name not in without} | extra
    assert shown(proxy, target, index) == expected


def test_our_own_server_and_date(proxy: Proxying) -> None:
    reply = proxy.server.get("/")
    assert len(reply.all("Server")) == len(reply.all("Date")) == 1
    assert (reply.header("Server") or "").startswith(("headgate", "nginx"))


def test_a_backends_silence_is_passed_on(proxy: Proxying) -> None:
    """Where Server and Date are the backend's to say, it may leave them out."""
    assert proxy.server.get("/all/bare").all("Server") == proxy.server.get("/all/bare").all("Date") == []
    assert proxy.server.get("/server/bare").all("Server") == []
    assert len(proxy.server.get("/server/bare").all("Date")) == 1


def test_names_keep_their_spelling_and_order(proxy: Proxying) -> None:
    names = [name for name, _ in proxy.server.get("/").headers]
    assert [name for name in names if name in {"X-One", "x-two", "Set-Cookie", "ETag", "etag-not"}] == [
        "X-One", "x-two", "X-One", "Set-Cookie", "ETag", "etag-not",
    ]  # fmt: skip
