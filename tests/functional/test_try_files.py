"""`try_files`: names, directories, the last argument, with root and with alias, on headgate and on nginx alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]
BOTH = pytest.mark.parametrize("binary", ["headgate", "nginx"])
FILES = {
    "html/a.html": "a",
    "html/fall": "fall",
    "html/dir/index.html": "dir",
    "html/dir/x.html": "x",
    "html/static": "static",
    "data/one": "one",
    "data/sub/index.html": "sub",
    "data/fall": "data fall",
}


@pytest.fixture
def serve(binary: str, request: pytest.FixtureRequest) -> Factory:
    """The factory of the binary that the test's `binary` parameter names."""
    factory: Factory = request.getfixturevalue(binary)
    return factory


def site(locations: str, server: str = "") -> str:
    return f"http {{ server {{ listen 127.0.0.1:%%PORT_0%%; {server} {locations} }} }}"


@BOTH
def test_names_in_order_then_the_fallback(serve: Factory) -> None:
    conf = site(
        """
        location / { try_files $uri $uri.html $uri/ /fall?from=$uri; }
        location = /fall { add_header X-Args $args; add_header X-Internal $request_uri; }
        location /code/ { try_files $uri =404; }
        location /teapot/ { try_files $uri =418; }
        location /none/ { try_files $uri =204; }
        location /named/ { try_files $uri @there; }
        location @there { return 200 "named $uri $args"; }
        location /lost/ { try_files $uri @nowhere; }
        location /file/ { try_files /static =404; }
        location /dironly { try_files $uri/ =404; }
        location /notdir { try_files /dir =404; }
        """
    )
    server = serve(conf, files=FILES)
    for target, status, body in (
        ("/a.html", 200, b"a"),
        ("/a", 200, b"a"),
        ("/dir", 301, None),
        ("/dir/", 200, b"dir"),
        ("/dir/x", 200, b"x"),
        ("/zzz", 200, b"fall"),
        ("/code/x", 404, None),
        ("/none/x", 204, b""),
        ("/named/x?q=1", 200, b"named /named/x q=1"),
        ("/file/x", 200, b"static"),
        ("/dironly", 404, None),
        ("/notdir", 404, None),
    ):
        reply = server.get(target)
        assert reply.status == status, target
        assert body is None or reply.body == body, target
    reply = server.get("/zzz")
    assert (reply.header("X-Args"), reply.header("X-Internal")) == ("from=/zzz", "/zzz")
    assert server.get("/teapot/x").status == 418
    line = r'could not find named location "@nowhere"'
    server.allow(line)
    assert server.get("/lost/x").status == 500
    server.expect_log(line)


@BOTH
def test_missing_names_are_not_logged(serve: Factory) -> None:
    server = serve(site("location / { try_files $uri $uri/x /a.html; }"), files=FILES)
    assert server.get("/none").body == b"a"
    assert server.get("/a.html/below").body == b"a"
    assert server.get("/" + "n" * 300).body == b"a"


@BOTH
def test_a_name_that_is_found_keeps_method_and_content_handler(serve: Factory) -> None:
    conf = site(
        """
        location / { try_files /static /x; }
        location /ret/ { try_files $uri /static =404; return 200 "never tried"; }
        """
    )
    server = serve(conf, files=FILES)
    assert server.request("POST", "/x").status == 405
    assert server.get("/ret/x").body == b"never tried"


@BOTH
def test_with_alias(serve: Factory) -> None:
    conf = site(
        """
        location /i/ { alias %%DIR%%/data/; try_files $uri $uri/ /i/fall; }
        location /j/ { alias %%DIR%%/data/; try_files /one =404; }
        location ~ ^/re/(.*)$ { alias %%DIR%%/data; try_files /$1 /$1/index.html =404; }
        location ~ ^/dir/(.*)$ { alias %%DIR%%/data/$1; try_files "" / =404; }
        """
    )
    server = serve(conf, files=FILES)
    for target, status, body in (
        ("/i/one", 200, b"one"),
        ("/i/sub/", 200, b"sub"),
        ("/i/none", 200, b"data fall"),
        ("/j/any", 200, b"one"),
        ("/re/one", 200, b"one"),
        ("/re/sub", 200, b"sub"),
        ("/re/none", 404, None),
        ("/dir/one", 200, b"one"),
    ):
        reply = server.get(target)
        assert reply.status == status, target
        assert body is None or reply.body == body, target


@BOTH
def test_it_is_not_inherited(serve: Factory) -> None:
    conf = site(
        "location /in/ { } location /outer/ { try_files /a.html =404; location /outer/in/ { } }",
        server="try_files /static =404;",
    )
    server = serve(conf, files=FILES)
    server.allow("No such file")
    assert server.get("/anything").body == b"static"
    assert server.get("/in/x").status == 404
    assert server.get("/outer/x").body == b"a"
    assert server.get("/outer/in/x").status == 404


@BOTH
def test_an_if_block_leaves_it_out(serve: Factory) -> None:
    server = serve(site("location / { try_files /a.html =404; if ($arg_x) { set $y 1; } }"), files=FILES)
    server.allow("No such file")
    assert server.get("/none").body == b"a"
    assert server.get("/none?x=1").status == 404


@BOTH
def test_circles_end(serve: Factory) -> None:
    server = serve(site("location / { try_files $uri /loop; }"), files=FILES)
    line = r'rewrite or internal redirection cycle while internally redirecting to "/loop"'
    server.allow(line)
    assert server.get("/x").status == 500
    server.expect_log(line)


@BOTH
def test_configuration_errors(serve: Factory) -> None:
    for directives, message in (
        ("try_files $uri =x;", 'invalid code "=x" in {}:2'),
        ("try_files $uri =1000;", 'invalid code "=1000" in {}:2'),
        ("try_files $uri;", 'invalid number of arguments in "try_files" directive in {}:2'),
        ("try_files a b; try_files c d;", '"try_files" directive is duplicate in {}:2'),
    ):
        server = serve(site(f"location / {{\n{directives} }}"), start=False)
        result = server.check()
        assert result.returncode == 1
        assert message.format(server.prefix / "nginx.conf") in result.stderr
