"""proxy_redirect: Location and Refresh of a backend as the client sees them."""

from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply, Request
from tests.harness import Server

Factory = Callable[..., Server]


def moved(request: Request) -> Reply:
    """The fields that the request's own X-Location and X-Refresh tell."""
    pairs = [("Location", request.header("x-location")), ("Refresh", request.header("x-refresh"))]
    return Reply(301, headers=[(name, value) for name, value in pairs if value is not None])


# (location block, its path, the backend's Location, what the client gets; BACKEND and PORT are filled in)
LOCATIONS = [
    ("proxy_pass http://BACKEND;", "http://BACKEND/a", "http://localhost:PORT/a"),
    ("proxy_pass http://BACKEND;", "http://BACKEND", "http://BACKEND"),
    ("proxy_pass http://BACKEND;", "https://BACKEND/a", "https://BACKEND/a"),
    ("proxy_pass http://BACKEND;", "http://other/a", "http://other/a"),
    ("proxy_pass http://BACKEND;", "/a", "/a"),
    ("proxy_pass http://BACKEND;", "a/b", "a/b"),
    ("proxy_pass http://BACKEND/there/;", "http://BACKEND/there/a?b=c#d", "http://localhost:PORT/x/a?b=c#d"),
    ("proxy_pass http://BACKEND/there/;", "http://BACKEND/", "http://BACKEND/"),
    ("proxy_pass http://BACKEND/there/;", "/there/a", "/there/a"),
    ("proxy_pass http://BACKEND/there/; proxy_redirect default;", "http://BACKEND/there/a", "http://localhost:PORT/x/a"),
    ("proxy_pass http://BACKEND; proxy_redirect off;", "http://BACKEND/a", "http://BACKEND/a"),
    ("proxy_pass http://BACKEND; proxy_redirect http://one/ /1/;", "http://one/a", "http://localhost:PORT/1/a"),
    ("proxy_pass http://BACKEND; proxy_redirect http://one/ /1/;", "http://BACKEND/a", "http://BACKEND/a"),
    (
        "proxy_pass http://BACKEND; proxy_redirect http://one/ http://1/; proxy_redirect http://two/ http://2/;",
        "http://two/a",
        "http://2/a",
    ),
    (
        "proxy_pass http://BACKEND; proxy_redirect http://one/ http://first/; proxy_redirect http:// http://second/;",
        "http://one/a",
        "http://first/a",
    ),
    ("proxy_pass http://BACKEND; proxy_redirect http://$http_x_name/ http://$host:99/;", "http://me/a", "http://localhost:99/a"),
    ("proxy_pass http://BACKEND; proxy_redirect ~^http://o.e/(.*)$ http://re/$1;", "http://one/a", "http://re/a"),
    ("proxy_pass http://BACKEND; proxy_redirect ~^http://ONE/(.*)$ http://re/$1;", "http://one/a", "http://one/a"),
    ("proxy_pass http://BACKEND; proxy_redirect ~*^http://ONE/(.*)$ http://re/$1;", "http://one/a", "http://re/a"),
    ("proxy_pass http://BACKEND; proxy_redirect ~one http://all/;", "http://one/a", "http://all/"),
    ("proxy_pass http://BACKEND; proxy_redirect ~^http://(?<who>[a-z]+)/ http://$who.example/;", "http://one/", "http://one.example/"),
    ("proxy_pass http://BACKEND; proxy_redirect http://one/ '';", "http://one/a", "a"),
    ("proxy_pass http://BACKEND; proxy_redirect http://one/ /; absolute_redirect off;", "http://one/a", "/a"),
    ("set $to BACKEND; proxy_pass http://$to;", "http://BACKEND/a", "http://BACKEND/a"),
]  # fmt: skip


REFRESHES = [
    ("5; url=http://BACKEND/a", "5; url=/a"),
    ("5; URL=http://BACKEND/a", "5; URL=/a"),
    ("0;url=http://other/a", "0;url=http://other/a"),
    ("http://BACKEND/a", "http://BACKEND/a"),
    ("5", "5"),
]


@pytest.fixture
def ask(either: Factory, backend: Callable[..., Backend]) -> Callable[..., list[str | None]]:
    """`ask(field, [(location, value)], outer)` -> what the client got for each value that the backend sent."""

    def ask(field: str, told: list[tuple[str, str]], outer: str = "") -> list[str | None]:
        peer = backend(moved)
        blocks = [f"location /{i}/ {{ location /{i}/x/ {{ {location} }} }}" for i, (location, _) in enumerate(told)]
        text = f"http {{ server {{ listen 127.0.0.1:%%PORT_0%%; {outer} {' '.join(blocks)} }} }}"
        server = either(text.replace("BACKEND", peer.address))
        seen = []
        with server.client() as client:
            for i, (_, value) in enumerate(told):
                headers = {"X-Name": "me", f"X-{field}": value.replace("BACKEND", peer.address)}
                got = client.get(f"/{i}/x/", headers).header(field)
                if got is not None:
                    got = got.replace(peer.address, "BACKEND").replace(f":{server.port()}/", ":PORT/")
                    got = got.replace(f"/{i}/x/", "/x/")
                seen.append(got)
        return seen

    return ask


def test_location(ask: Callable[..., list[str | None]]) -> None:
    seen = ask("Location", [(location, told) for location, told, _ in LOCATIONS])
    wrong = {case[:2]: got for case, got in zip(LOCATIONS, seen, strict=True) if got != case[2]}
    assert not wrong


def test_refresh(ask: Callable[..., list[str | None]]) -> None:
    seen = ask("Refresh", [("proxy_pass http://BACKEND;", told) for told, _ in REFRESHES])
    assert seen == [expected for _, expected in REFRESHES]


def test_inherited(ask: Callable[..., list[str | None]]) -> None:
    told = [("proxy_pass http://BACKEND;", "http://one/a"), ("proxy_pass http://BACKEND;", "http://BACKEND/a")]
    assert ask("Location", told, "proxy_redirect http://one/ http://1/;") == ["http://1/a", "http://BACKEND/a"]


def test_off_is_inherited(ask: Callable[..., list[str | None]]) -> None:
    told = [("proxy_pass http://BACKEND;", "http://BACKEND/a")]
    assert ask("Location", told, "proxy_redirect off;") == ["http://BACKEND/a"]


def test_an_outer_locations_default_comes_first(either: Factory, backend: Callable[..., Backend]) -> None:
    """Not what one would expect, but what nginx does: the rule made for the outer proxy_pass is inherited."""
    peer = backend(moved)
    server = either(f"""
        http {{ server {{
            listen 127.0.0.1:%%PORT_0%%;
            location /a/ {{
                proxy_pass http://{peer.address}/one/;
                location /a/b/ {{ proxy_pass http://{peer.address}/two/; }}
            }}
        }} }}""")
    start = f"http://localhost:{server.port()}"
    one, two = f"http://{peer.address}/one/x", f"http://{peer.address}/two/x"
    assert server.get("/a/", {"X-Location": one}).header("Location") == f"{start}/a/x"
    assert server.get("/a/b/", {"X-Location": one}).header("Location") == f"{start}/a/x"
    assert server.get("/a/b/", {"X-Location": two}).header("Location") == two
