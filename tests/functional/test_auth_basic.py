"""`auth_basic`, `auth_basic_user_file`: headgate and nginx alike."""

import base64
import os
from collections.abc import Callable

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        server {
            listen 127.0.0.1:%%PORT_0%%;
            auth_basic closed;
            auth_basic_user_file users;
            location / { }
            location /off/ { auth_basic off; }
            location /variable/ { auth_basic "site $arg_a"; auth_basic_user_file $document_root/$arg_b; }
            location /none/ { auth_basic_user_file none; }
            location /folder/ { auth_basic_user_file html; }
            location /user { return 200 "$remote_user"; }
        }
    }"""
# all of the password "secret"; see tests/unit/test_http_crypt.py
USERS = """# a comment
plain:{PLAIN}secret
apr1:$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0:a comment
sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
ssha:{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0
md5:$1$saltsalt$9xy1btjgzLYfb7hivXtC//
sha256:$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA
sha512:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1
bcrypt:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW
des:saHW9GdxihkGQ\r
broken:{SSHA}!
plain:{PLAIN}second
#hidden:{PLAIN}secret
last:{PLAIN}secret"""
FILES = {f"html/{name}": "in" for name in ("x", "off/x", "variable/x", "none/x", "folder/x")}
FILES |= {"users": USERS, "html/more": "other:{PLAIN}secret\n"}
RIGHT = ("plain", "apr1", "sha", "ssha", "md5", "sha256", "sha512", "bcrypt", "des", "last")
LOGGED = ("password mismatch", "was not found in", "No such file", "Is a directory", "Permission denied")


def basic(text: str, scheme: str = "Basic ") -> dict[str, str]:
    return {"Authorization": scheme + base64.b64encode(text.encode()).decode()}


def start(factory: Factory) -> Server:
    server = factory(CONF, files=FILES)
    server.allow(*LOGGED)
    return server


def test_every_form_of_password(either: Factory) -> None:
    server = start(either)
    assert {name: server.get("/x", basic(f"{name}:secret")).status for name in RIGHT} == dict.fromkeys(RIGHT, 200)
    assert {name: server.get("/x", basic(f"{name}:Secret")).status for name in RIGHT} == dict.fromkeys(RIGHT, 401)


def test_who_is_kept_out(either: Factory) -> None:
    server = start(either)
    kept_out = [
        "nobody:secret", "plain:second", "broken:secret", "hidden:secret", "#hidden:secret", "pla:secret", ":secret",
        "plain", "plain:", "plain:secretx", "plain :secret",
    ]  # fmt: skip
    for text in kept_out:
        reply = server.get("/x", basic(text))
        assert (text, reply.status) == (text, 401)
        assert reply.header("www-authenticate") == 'Basic realm="closed"'
    for value in ("Basic", "Basic ", "Basic !!!", "Digest x", "", "basic cGxhaW46c2VjcmV0eA=="):
        assert server.get("/x", {"Authorization": value}).status == 401
    assert server.get("/x").status == 401
    server.expect_log("no user/password was provided for basic authentication")
    server.expect_log('user "nobody" was not found in ".*/users"')
    server.expect_log('user "plain": password mismatch')


def test_ways_to_write_it(either: Factory) -> None:
    server = start(either)
    for scheme in ("Basic ", "basic ", "BASIC    "):
        assert server.get("/x", basic("plain:secret", scheme)).status == 200
    assert server.get("/x", {"Authorization": "Basic cGxhaW46c2VjcmV0"}).status == 200
    assert server.get("/user", basic("plain:x")).body == b"plain"


def test_off_variables_and_files_that_are_not_there(either: Factory) -> None:
    server = start(either)
    assert server.get("/off/x").status == 200
    reply = server.get("/variable/x?a=1&b=more")
    assert (reply.status, reply.header("www-authenticate")) == (401, 'Basic realm="site 1"')
    assert server.get("/variable/x?b=more", basic("other:secret")).status == 200
    assert server.get("/none/x", basic("plain:secret")).status == 403
    assert server.get("/none/x").status == 401
    assert server.get("/folder/x", basic("plain:secret")).status == 500


def test_a_change_of_the_file_counts_at_once(either: Factory) -> None:
    server = start(either)
    assert server.get("/x", basic("new:secret")).status == 401
    new = server.prefix / "users.new"
    new.write_text("new:{PLAIN}secret\n")
    os.replace(new, server.prefix / "users")
    assert server.get("/x", basic("new:secret")).status == 200
    assert server.get("/x", basic("plain:secret")).status == 401
