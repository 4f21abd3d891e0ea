"""`allow`, `deny`, `satisfy`, `limit_except`, `auth_delay`: headgate and nginx alike."""

import base64
import time
from collections.abc import Callable

from tests.client import Client
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        map $http_x $realm { default off; on closed; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            listen [::1]:%%PORT_0%%;
            listen unix:%%DIR%%/socket;
            location /deny/ { deny all; location /deny/nested/ { } }
            location /deny/open/ { allow all; }
            location /net/ { allow 127.0.0.0/8; deny all; }
            location /other/ { allow 10.0.0.0/8; allow 2001:db8::/32; deny all; }
            location /one/ { deny 127.0.0.1; allow all; }
            location /unix/ { allow unix:; deny all; }
            location /six/ { allow ::1; deny all; }
            location /first/ { allow 127.0.0.1; deny 127.0.0.1; }
            location /none/ { deny 10.0.0.0/8; }

            location /any/ { satisfy any; deny all; auth_basic closed; auth_basic_user_file users; }
            location /any/allowed/ { allow all; auth_basic closed; auth_basic_user_file users; }
            location /any/nobody/ { satisfy any; deny all; }
            location /all/ { satisfy all; deny all; auth_basic closed; auth_basic_user_file users; }
            location /both/ { allow all; auth_basic closed; auth_basic_user_file users; }
            location /late/ { auth_basic closed; auth_basic_user_file users; auth_delay 300ms; }
            location /realm/ { auth_basic $realm; auth_basic_user_file users; }
            location /page/ { deny all; error_page 403 /denied.html; }

            location /limit/ { limit_except GET { deny all; } return 200 "never"; }
            location /limited/ { limit_except GET POST { deny all; } }
            location /head/ { limit_except POST { deny all; } }
            location /basic/ { limit_except GET { auth_basic closed; auth_basic_user_file users; } }
        }
    }"""
NAMES = (
    "deny deny/nested deny/open net other one unix six first none any any/allowed any/nobody all both late realm page"
)
FILES = {f"html/{name}/x": name for name in f"{NAMES} limit limited head basic".split()}
FILES |= {"html/denied.html": "denied", "users": "user:{PLAIN}pass\n"}
LOGGED = ("access forbidden by rule", "password mismatch", "was not found in")
GOOD = {"Authorization": "Basic " + base64.b64encode(b"user:pass").decode()}
BAD = {"Authorization": "Basic " + base64.b64encode(b"user:fail").decode()}


def start(factory: Factory) -> Server:
    server = factory(CONF, files=FILES)
    server.allow(*LOGGED)
    return server


def test_addresses(either: Factory) -> None:
    server = start(either)
    wanted = {
        "deny": 403, "deny/nested": 403, "deny/open": 200, "net": 200, "other": 403, "one": 403, "unix": 403,
        "six": 403, "first": 200, "none": 200,
    }  # fmt: skip
    assert {name: server.get(f"/{name}/x").status for name in wanted} == wanted
    assert server.get("/page/x").body == b"denied"
    assert len(server.expect_log("access forbidden by rule")) >= 6


def test_addresses_of_other_families(either: Factory) -> None:
    server = start(either)
    six = {"deny": 403, "net": 403, "other": 403, "one": 200, "unix": 403, "six": 200}
    with Client(server.port(), "::1") as client:
        assert {name: client.get(f"/{name}/x").status for name in six} == six
    local = {"deny": 403, "net": 403, "one": 200, "unix": 200, "six": 403, "none": 200}
    with Client(path=str(server.prefix / "socket")) as client:
        assert {name: client.get(f"/{name}/x").status for name in local} == local


def test_satisfy(either: Factory) -> None:
    server = start(either)
    wanted = {
        ("any", "none"): 401, ("any", "good"): 200, ("any", "bad"): 401, ("any/allowed", "none"): 401,
        ("any/nobody", "none"): 403, ("all", "good"): 403, ("all", "none"): 403, ("both", "none"): 401,
        ("both", "good"): 200,
    }  # fmt: skip
    given = {"none": {}, "good": GOOD, "bad": BAD}
    assert {(name, who): server.get(f"/{name}/x", given[who]).status for name, who in wanted} == wanted
    assert server.get("/any/x").header("www-authenticate") == 'Basic realm="closed"'
    assert server.get("/any/x", GOOD).header("www-authenticate") is None
    assert server.get("/realm/x").status == 200
    assert server.get("/realm/x", {"X": "on"}).header("www-authenticate") == 'Basic realm="closed"'


def test_auth_delay(either: Factory) -> None:
    server = start(either)
    began = time.monotonic()
    assert server.get("/late/x", GOOD).status == 200
    assert time.monotonic() - began < 0.28
    assert server.get("/late/x", BAD).status == 401
    assert time.monotonic() - began >= 0.3
    server.expect_log("delaying unauthorized request")


def test_auth_delay_and_a_client_that_leaves(headgate: Factory) -> None:
    server = start(headgate)
    client = server.client()
    client.send(b"GET /late/x HTTP/1.1\r\nHost: a\r\n\r\n")
    server.expect_log("delaying unauthorized request")
    client.close()
    assert '"GET /late/x HTTP/1.1" 499' in server.access_log(1)[0]


def test_limit_except(either: Factory) -> None:
    server = start(either)
    wanted = {
        ("GET", "limited"): 200, ("HEAD", "limited"): 200, ("POST", "limited"): 405, ("PUT", "limited"): 403,
        ("BREW", "limited"): 403, ("GET", "head"): 403, ("HEAD", "head"): 403, ("POST", "head"): 405,
        ("GET", "basic"): 200, ("POST", "basic"): 401,
    }  # fmt: skip
    assert {(method, name): server.request(method, f"/{name}/x").status for method, name in wanted} == wanted
    # rules of the rewrite module do not reach into the block
    assert (server.get("/limit/x").body, server.request("DELETE", "/limit/x").status) == (b"never", 403)


def test_mistakes(headgate: Factory) -> None:
    cases = {
        "allow 1.2.3;": 'invalid parameter "1.2.3" in',
        "deny 1.2.3.4/33;": 'invalid parameter "1.2.3.4/33" in',
        "deny 1.2.3.4/255.0.0.0;": 'invalid parameter "1.2.3.4/255.0.0.0" in',
        "deny 10.0.0.1/8;": "[warn] low address bits of 10.0.0.1/8 are meaningless in",
        "limit_except BREW { }": 'invalid method "BREW" in',
        "limit_except GET { } limit_except PUT { }": '"limit_except" directive is duplicate in',
        "satisfy some;": 'invalid value "some" in',
    }
    for lines, message in cases.items():
        server = headgate(f"http {{ server {{ location / {{ {lines} }} }} }}", start=False)
        assert message in server.check().stderr
