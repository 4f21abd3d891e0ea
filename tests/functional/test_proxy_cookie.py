"""proxy_cookie_domain, proxy_cookie_path, proxy_cookie_flags: Set-Cookie of a backend as the client sees it."""

from collections.abc import Callable

import pytest

from tests.backends import Backend, Reply
from tests.harness import Server

Factory = Callable[..., Server]
Backends = Callable[..., Backend]

CASES = [
    # what the location says, the backend's cookie, the client's
    ("proxy_cookie_domain one.example two.example;", "a=b; Domain=one.example; A", "a=b; Domain=two.example; A"),
    ("proxy_cookie_domain one.example two.example;", "a=b; domain=ONE.example", "a=b; domain=two.example"),
    ("proxy_cookie_domain one.example two.example;", "a=b; Domain=.one.example", "a=b; Domain=.two.example"),
    ("proxy_cookie_domain .one.example .two.example;", "a=b; Domain=one.example", "a=b; Domain=two.example"),
    ("proxy_cookie_domain one.example two.example;", "a=b; Domain=x.one.example", "a=b; Domain=x.one.example"),
    ("proxy_cookie_domain one.example two.example;", "a=b;Path=/x", "a=b;Path=/x"),
    ("proxy_cookie_domain one.example two.example;", "a=b;Domain=one.example;A=x", "a=b; Domain=two.example; A=x"),
    ("proxy_cookie_domain one.example two.example;", "Domain=one.example; a=b", "Domain=one.example; a=b"),
    ("proxy_cookie_domain one.example $http_x_name.example;", "a=b; Domain=one.example", "a=b; Domain=me.example"),
    ("proxy_cookie_domain $http_x_name.example two.example;", "a=b; Domain=me.example", "a=b; Domain=two.example"),
    (r"proxy_cookie_domain ~\.(?P<who>[a-z]+)\.test$ $who.b;", "a=b; Domain=x.ONE.test", "a=b; Domain=ONE.b"),
    (r"proxy_cookie_domain ~(.+)\.example $1.test;", "a=b; Domain=one.example", "a=b; Domain=one.test"),
    ("proxy_cookie_domain a b; proxy_cookie_domain one.example x;", "c=d; Domain=one.example", "c=d; Domain=x"),
    ("proxy_cookie_domain one.example off;", "a=b; Domain=one.example", "a=b; Domain=off"),
    ("proxy_cookie_domain one.example '';", "a=b; Domain=one.example", "a=b; Domain="),
    ("proxy_cookie_path /one/ /two/;", "a=b; Path=/one/x; HttpOnly", "a=b; Path=/two/x; HttpOnly"),
    ("proxy_cookie_path /one/ /two/;", "a=b; PATH=/one/", "a=b; PATH=/two/"),
    ("proxy_cookie_path /one/ /two/;", "a=b; Path=/ONE/", "a=b; Path=/ONE/"),
    ("proxy_cookie_path /one/ /two/;", "a=b; Path=/one", "a=b; Path=/one"),
    ("proxy_cookie_path /one/ /two/;", "a=b; Path", "a=b; Path"),
    ("proxy_cookie_path ~^/([a-z]+)/.*$ /$1;", "a=b; Path=/one/x", "a=b; Path=/one"),
    ("proxy_cookie_path ~^/ONE/ /two/;", "a=b; Path=/one/x", "a=b; Path=/one/x"),
    ("proxy_cookie_path ~*^/ONE/ /two/;", "a=b; Path=/one/x", "a=b; Path=/two/"),
    ("proxy_cookie_path / '/; Secure';", "a=b; Path=/", "a=b; Path=/; Secure"),
    ("proxy_cookie_path /a/ /b/; proxy_cookie_domain x y;", "c=d; Domain=x; Path=/a/", "c=d; Domain=y; Path=/b/"),
    ("proxy_cookie_flags a secure;", "a=b", "a=b; Secure"),
    ("proxy_cookie_flags a secure;", "a=b;secure", "a=b; secure"),
    ("proxy_cookie_flags A secure;", "a=b", "a=b; Secure"),
    ("proxy_cookie_flags a secure;", "c=d", "c=d"),
    ("proxy_cookie_flags a nosecure;", "a=b; Secure; Path=/", "a=b; Path=/"),
    ("proxy_cookie_flags a nosecure;", "a=b; Path=/", "a=b; Path=/"),
    ("proxy_cookie_flags a httponly;", "a=b; Path=/", "a=b; Path=/; HttpOnly"),
    ("proxy_cookie_flags a nohttponly;", "a=b; HTTPONLY", "a=b"),
    ("proxy_cookie_flags a samesite=strict;", "a=b", "a=b; SameSite=Strict"),
    ("proxy_cookie_flags a samesite=lax;", "a=b; samesite=none", "a=b; SameSite=Lax"),
    ("proxy_cookie_flags a samesite=none;", "a=b; samesite=NONE", "a=b; samesite=NONE"),
    ("proxy_cookie_flags a nosamesite;", "a=b; SameSite=Lax; Secure", "a=b; Secure"),
    ("proxy_cookie_flags a httponly secure samesite=lax;", "a=b", "a=b; Secure; HttpOnly; SameSite=Lax"),
    ("proxy_cookie_flags a secure nosecure;", "a=b", "a=b; Secure"),
    ("proxy_cookie_flags a samesite=lax samesite=strict;", "a=b", "a=b; SameSite=Strict"),
    ("proxy_cookie_flags ~^a secure;", "abc=d", "abc=d; Secure"),
    ("proxy_cookie_flags ~^A secure;", "abc=d", "abc=d; Secure"),
    ("proxy_cookie_flags ~. secure; proxy_cookie_flags a httponly;", "a=b", "a=b; Secure"),
    ("proxy_cookie_flags a httponly; proxy_cookie_flags ~. secure;", "c=d", "c=d; Secure"),
    ("proxy_cookie_flags a $http_x_flag;", "a=b", "a=b; HttpOnly"),
    ("proxy_cookie_flags $http_x_name secure;", "me=b", "me=b; Secure"),
    ("proxy_cookie_flags a $http_x_none;", "a=b;Path=/", "a=b;Path=/"),
    ("proxy_cookie_flags a nonsense;", "a=b", "a=b"),
    ("proxy_cookie_flags a secure;", "a", "a"),
    ("proxy_cookie_flags a secure;", "a=b=c; Path=/", "a=b=c; Path=/; Secure"),
    ("proxy_cookie_flags a secure;", " a = b ; Path = / ", "a=b; Path=/; Secure"),
]  # fmt: skip


@pytest.fixture
def ask(either: Factory, backend: Backends) -> Callable[..., dict[str, list[str]]]:
    """`ask({location: cookies}, outer)` -> for each location the cookies that the client got."""

    def ask(told: dict[str, list[str]], outer: str = "") -> dict[str, list[str]]:
        cookies = list(told.values())
        peer = backend(lambda r: Reply(headers=[("Set-Cookie", cookie) for cookie in cookies[int(r.target[1:])]]))
        locations = [f"location = /{i} {{ proxy_pass http://{peer.address}; {text} }}" for i, text in enumerate(told)]
        server = either(f"http {{ {outer} server {{ listen 127.0.0.1:%%PORT_0%%; {' '.join(locations)} }} }}")
        with server.client() as client:
            replies = [client.get(f"/{i}", {"X-Name": "me", "X-Flag": "HTTPonly"}) for i in range(len(told))]
        return {text: reply.all("Set-Cookie") for text, reply in zip(told, replies, strict=True)}

    return ask


def test_cookie(ask: Callable[..., dict[str, list[str]]]) -> None:
    told: dict[str, list[str]] = {}
    expected: dict[str, list[str]] = {}
    for location, cookie, seen in CASES:
        told.setdefault(location, []).append(cookie)
        expected.setdefault(location, []).append(seen)
    assert ask(told) == expected


def test_inherited_where_none_is_set(ask: Callable[..., dict[str, list[str]]]) -> None:
    outer = "proxy_cookie_path /a /b; proxy_cookie_domain x y; proxy_cookie_flags a secure;"
    assert ask({"": ["a=b; Path=/a; Domain=x"]}, outer) == {"": ["a=b; Path=/b; Domain=y; Secure"]}


def test_off_ends_inheritance(ask: Callable[..., dict[str, list[str]]]) -> None:
    outer = "proxy_cookie_path /a /b; proxy_cookie_domain x y; proxy_cookie_flags a secure;"
    location = "proxy_cookie_path off; proxy_cookie_domain off; proxy_cookie_flags off;"
    assert ask({location: ["a=b; Path=/a; Domain=x"]}, outer) == {location: ["a=b; Path=/a; Domain=x"]}
