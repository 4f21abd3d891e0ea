"""Requests for site/conf.d/40-features.conf: access, what answers are made of, what becomes of backends' answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.client import chunked
from tests.differential.cases import get, one, words
from tests.differential.compare import Case

GUARDED, MADE, REWRITING = "guarded.example", "made.example", "rewriting.example"


def _basic(user: str, password: str = "secret", scheme: str = "Basic") -> tuple[str, str]:
    return "Authorization", f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def guarded() -> Iterator[Case]:
    """Addresses, passwords, methods, subrequests that decide."""
    for target in words("""
        /allowed /allow/plain.txt /allow/none /deny/plain.txt /deny/page/x /others/plain.txt /password/plain.txt
        /password/open/plain.txt /no-users/plain.txt /any/plain.txt /any-allowed/plain.txt /all/plain.txt
        /methods/plain.txt /methods-proxied/a /methods-password/a /hidden
        /asked/plain.txt?status=200 /asked/plain.txt?status=204
        /asked/plain.txt?status=401 /asked/plain.txt?status=403 /asked/plain.txt?status=404 /asked/plain.txt?status=500
        /asked/plain.txt?status=302 /asked/plain.txt?status=unauthorized /asked/static/plain.txt /asked/denied/plain.txt
        /asked/password/plain.txt /asked/broken/plain.txt
    """):
        yield get(target, host=GUARDED)
    for user in words("plain apr1 md5 sha512 sha ssha nobody short"):
        yield get("/password/plain.txt", _basic(user), host=GUARDED)
    yield get("/password/plain.txt", _basic("apr1", "wrong"), host=GUARDED)
    yield get("/password/plain.txt", _basic("apr1", ""), host=GUARDED)
    yield get("/password/plain.txt", _basic("plain", scheme="basic"), host=GUARDED)
    yield get("/password/plain.txt", _basic("plain", scheme="Bearer"), host=GUARDED)
    yield get("/password/plain.txt", ("Authorization", "Basic"), host=GUARDED)
    yield get("/password/plain.txt", ("Authorization", "Basic not-base64!"), host=GUARDED)
    yield get("/password/none", _basic("plain"), host=GUARDED)
    for place in ("any", "any-allowed", "all", "no-users", "methods-password"):
        yield get(f"/{place}/plain.txt", _basic("apr1"), host=GUARDED)
    for method in words("HEAD POST PUT OPTIONS"):
        for place in ("/methods/plain.txt", "/methods-proxied/a", "/methods-password/a"):
            yield one(f"{method} {place}", place, host=GUARDED, method=method)
    yield one("a body that is asked about", "/asked/plain.txt?status=204", host=GUARDED, method="POST", body=b"x" * 99)
    yield one("HEAD that is asked about", "/asked/plain.txt?status=204", host=GUARDED, method="HEAD")


def made() -> Iterator[Case]:
    """Filters, subrequests, rewrites, conditions."""
    for target in words("""
        /substituted/start.html /substituted/plain.txt /substituted/dir/ /substituted/none /substituted/all/plain.txt
        /substituted/all/large.bin /substituted/kept/start.html?a=x /substituted/empty.txt
        /added/start.html /added/plain.txt /added/none /added/dir /part/x
        /included/plain.html /included/echo.html?a=%20<b> /included/echo.html /included/if.html /included/if.html?a=1
        /included/if.html?b=xy /included/virtual.html /included/file.html /included/block.html /included/broken.html
        /included/quiet/broken.html /included/quiet/echo.html /included/none.html /included/
        /mirrored/plain.txt /mirrored/none /sliced/sliced /sliced/404
        /expires/off/plain.txt /expires/epoch/plain.txt /expires/epoch/none /expires/epoch/dir
        /expires/max/plain.txt /expires/type/dir/file.js /expires/type/page.html /expires/type/plain.txt
        /inherited/plain.txt /inherited/none /own/plain.txt /own/none /own/dir
        /trailers/chunked /trailers/200 /trailers/404
        /rewritten/last/x?a=b /rewritten/break/plain.txt /rewritten/break/none
        /rewritten/moved/x?a=b /rewritten/found/x?a=b /rewritten/away/x%20y?a=b
        /rewritten/args?a=b /rewritten/cycle /rewritten/word/named?q=1 /rewritten/else
        /if/plain.txt /if/plain.txt?a=1 /if/plain.txt?f=plain.txt /if/plain.txt?f=none /if/plain.txt?e=/none
        /if/plain.txt?e=/plain.txt /if/none
    """):
        yield get(target, host=MADE)
    yield one("HEAD of what is substituted", "/substituted/start.html", host=MADE, method="HEAD")
    yield one("HEAD of what is added to", "/added/start.html", host=MADE, method="HEAD")
    yield one("HEAD of what includes", "/included/virtual.html", host=MADE, method="HEAD")
    yield one("substituted over HTTP/1.0", "/substituted/start.html", host=MADE, version="1.0")
    yield one("included over HTTP/1.0", "/included/virtual.html", host=MADE, version="1.0")
    yield get("/substituted/start.html", ("Range", "bytes=0-1"), host=MADE)
    yield get("/substituted/kept/start.html", ("If-Modified-Since", "Tue, 14 Nov 2023 22:13:20 GMT"), host=MADE)
    yield get("/added/start.html", ("Range", "bytes=0-1"), host=MADE)
    for ranges in ("0-10", "1000-1100", "1000-", "-5", "9999-", "0-1,5-6"):
        yield get("/sliced/sliced", ("Range", f"bytes={ranges}"), host=MADE)
    yield one("trailers over HTTP/1.0", "/trailers/chunked", host=MADE, version="1.0")
    yield one("HEAD with trailers", "/trailers/chunked", host=MADE, method="HEAD")
    yield one("POST that is refused by an if", "/if/plain.txt", host=MADE, method="POST", body=b"body")
    yield get("/if/plain.txt", ("User-Agent", "an OLD Browser"), host=MADE)
    yield get("/if/plain.txt", ("User-Agent", "a browser"), host=MADE)


def rewriting() -> Iterator[Case]:
    """What becomes of a backend's answer."""
    redirects = words("redirect redirect-self redirect-other redirect-root redirect-relative redirect-upper refresh")
    for what in (*redirects, "refresh-other"):
        for place in ("default", "off", "rules"):
            yield get(f"/{place}/{what}?a=x", host=REWRITING)
    for place in ("default", "off", "cookies"):
        yield get(f"/{place}/cookies-all?a=y", host=REWRITING)
    for place in ("default", "headers"):
        yield get(f"/{place}/own-headers", host=REWRITING)
        yield get(f"/{place}/200", host=REWRITING)
    for what in words("accel-uri accel-args accel-named accel-no-name accel-missing accel-unsafe accel-range"):
        yield get(f"/accel/{what}?q=1", host=REWRITING)
        yield get(f"/ignored/{what}?q=1", host=REWRITING)
    yield one("HEAD of an X-Accel-Redirect", "/accel/accel-uri", host=REWRITING, method="HEAD")
    yield one("POST of an X-Accel-Redirect", "/accel/accel-uri", host=REWRITING, method="POST", body=b"body")
    yield get("/accel/accel-uri", ("Range", "bytes=1-2"), host=REWRITING)
    yield get("/accel/accel-range", ("Range", "bytes=1-2"), host=REWRITING)
    for what in words("200 301 302 401 403 404 500 502 503 unauthorized closed"):
        yield get(f"/intercepted/{what}", host=REWRITING)
    for what in words("200 404 500 503 closed bad-header"):
        yield get(f"/next/{what}", host=REWRITING)
        yield get(f"/next/off/{what}", host=REWRITING)
        yield one(f"POST next {what}", f"/next/{what}", host=REWRITING, method="POST", body=b"again")
    for place in words("method bare own-host unbuffered streamed ranged closed"):
        for what in ("x?a=1", "big", "chunked"):
            yield get(f"/{place}/{what}", ("X-Own", "1"), host=REWRITING)
            yield one(f"POST /{place}/{what}", f"/{place}/{what}", host=REWRITING, method="POST", body=b"posted")
    yield get("/ranged/ranged", ("Range", "bytes=1-2"), host=REWRITING)
    yield get("/ranged/chunked", ("Range", "bytes=1-2"), host=REWRITING)
    yield get("/unbuffered/until-close", host=REWRITING)
    te = ("Transfer-Encoding", "chunked")
    for place in ("streamed", "bare", "method"):
        yield one(f"chunked POST /{place}", f"/{place}/x", te, host=REWRITING, method="POST", body=chunked(b"a", b"bc"))
