"""Requests for site/conf.d/50-upstream.conf: how upstream servers are reached and asked."""

from __future__ import annotations

from collections.abc import Iterator

from tests.client import build, chunked
from tests.differential.cases import get, one, raw, words
from tests.differential.compare import Case

HOST = "upstream.example"


def reaching() -> Iterator[Case]:
    """Addresses, names, and the address that is shown to the server."""
    for target in words("""
        /implicit/a /unix/a?b=c /unix-group/one /unix-group/two /unix-group/three /unix-none/a /ipv6/a /down/a
        /variable/address/ /variable/?a=app /variable/?a=APP /variable/?a=none /variable/?a= /variable/?a=down
        /variable/address6/ /variable/?a=app:1
        /named/?a=app.test /named/?a=alias.test /named/?a=app.test. /named/?a=nobody.test /named/?a=broken.test
        /named/?a=empty.test /named/?a=silent.test /named/?a=127.0.0.1 /unresolved/?a=app.test /unresolved/?a=127.0.0.1
        /bind/ /bind/variable/?a=127.0.0.6 /bind/variable/?a= /bind/port/ /bind/off/ /options/
    """):
        yield get(target, host=HOST)
    yield one("POST to a name", "/named/?a=app.test", host=HOST, method="POST", body=b"to the name")


def trying() -> Iterator[Case]:
    """Kept connections, time limits, tries."""
    for number in range(5):
        yield one(f"connection {number}", "/keepalive/", host=HOST)
        yield one(f"connection {number}, not kept", "/no-keepalive/", host=HOST)
    for target in words("""
        /connect/ /read/ /read/head /read/body /read/next/ /read/next/head /read/next/body /read/late/
        /tries/ /tries/one/ /tries/two/ /tries/off/
    """):
        yield get(target, host=HOST)
        yield one(f"POST {target}", target, host=HOST, method="POST", body=b"once or more")
    yield one("a connection after keepalive_timeout", "/keepalive/", host=HOST)
    for kind in words("error invalid 4xx 5xx repeated"):
        for what in words("200 403 404 429 500 502 503 504 cut-head bad-header huge-head"):
            target = f"/kinds/{kind}/{what}"
            yield get(target, host=HOST)
            yield one(f"POST {target}", target, host=HOST, method="POST", body=b"once or more")


def portions() -> Iterator[Case]:
    """Buffers, temporary files, rates, stored files, what a response may tell."""
    for place in words("small file unbuffered limited limited/client"):
        for what in words("big chunked until-close zero 404"):
            yield get(f"/{place}/{what}", host=HOST)
        yield one(f"HEAD /{place}/big", f"/{place}/big", host=HOST, method="HEAD")
    te = ("Transfer-Encoding", "chunked")
    for place in words("streamed in-file small implicit"):
        # nginx's buffer may be a quarter larger, beside 2k that the head's has room for
        for size in (0, 1000, 1020, 4000, 40_000):
            if size > 1024 and place == "streamed":  # in how many reads it comes can be seen
                break
            body = b"%05d" % size * (size // 5)
            yield one(f"{size} bytes to {place}", f"/{place}/count", host=HOST, method="POST", body=body)
            wire = chunked(body[:9], body[9:]) if body else chunked()
            yield one(f"{size} bytes in chunks to {place}", f"/{place}/count", te, host=HOST, method="POST", body=wire)
    for place in words("told told/ignored"):
        for what in words("accel-rate accel-limits own-headers"):
            yield get(f"/{place}/{what}", host=HOST)
    for what in words("own-headers 404 204 cut-body cut-chunked until-close"):
        yield get(f"/store/{what}?a=1", host=HOST)
        yield get(f"/stored/1/store/{what}", host=HOST)
    yield one("HEAD is not stored", "/store/own-headers?a=2", host=HOST, method="HEAD")
    yield get("/stored/2/store/own-headers", host=HOST)
    yield get("/store/own-headers?a=../../escaped", host=HOST)
    for number in range(2):
        yield one(f"stored where it is missed {number}", "/kept/own-headers", host=HOST)


def switching() -> Iterator[Case]:
    """101."""
    upgrade = {"Host": HOST, "Upgrade": "echo", "Connection": "upgrade", "X-Case": "an upgrade"}
    yield raw("an upgrade", build("GET", "/upgrade/", upgrade) + b"and what is said.", unframed=True)
    yield one(
        "an upgrade that is refused", "/upgrade/refused/x", ("Upgrade", "echo"), ("Connection", "upgrade"), host=HOST
    )
    yield one("an upgrade over HTTP/1.0", "/upgrade/refused/x", ("Upgrade", "echo"), host=HOST, version="1.0")


def securely() -> Iterator[Case]:
    """TLS: who the server is, who we are, how."""
    for target in words("""
        / /verified/ /other-name/ /other-name/?a=wrong.example /other-name/?a=localhost /other-root/ /revoked/
        /not-revoked/ /deep/ /asked/?a=given.example /asked/?a=127.0.0.1 /asked/?a=port.example:443
        /certificate/ /variable/?a=client /variable/?a=open /variable/?a=none /1.2/ /1.3/ /none/
        /reused/ /reused/again /not-reused/ /not-reused/again /plain/
    """):
        yield get(f"/tls{target}", host=HOST)
    yield one("a POST by TLS", "/tls/", host=HOST, method="POST", body=b"secret" * 10_000)


CASES: list[Case] = [*reaching(), *trying(), *portions(), *switching(), *securely()]
