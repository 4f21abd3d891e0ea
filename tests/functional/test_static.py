"""Static files: `root`, `alias`, the content handler's statuses and log lines, on headgate and on nginx alike."""

from __future__ import annotations

import email.utils
import os
from collections.abc import Callable

import pytest

from tests.client import build
from tests.harness import Server

Factory = Callable[..., Server]
BOTH = pytest.mark.parametrize("binary", ["headgate", "nginx"])
MTIME = 1_700_000_000
DATE = email.utils.formatdate(MTIME, usegmt=True)


@pytest.fixture
def serve(binary: str, request: pytest.FixtureRequest) -> Factory:
    """The factory of the binary that the test's `binary` parameter names."""
    factory: Factory = request.getfixturevalue(binary)
    return factory


def site(locations: str, http: str = "", server: str = "") -> str:
    return f"http {{ {http} server {{ listen 127.0.0.1:%%PORT_0%%; {server} {locations} }} }}"


@BOTH
def test_a_file_is_served_with_its_validators(serve: Factory) -> None:
    server = serve(site("types { text/html html; }"), files={"html/a.html": "hello", "html/empty.txt": ""})
    os.utime(server.prefix / "html/a.html", (MTIME, MTIME + 0.75))
    reply = server.get("/a.html")
    assert (reply.status, reply.body) == (200, b"hello")
    assert reply.header("Content-Type") == "text/html"
    assert reply.header("Content-Length") == "5"
    assert reply.header("Last-Modified") == DATE
    assert reply.header("ETag") == f'"{MTIME:x}-5"'
    assert reply.header("Accept-Ranges") == "bytes"
    empty = server.get("/empty.txt")
    assert (empty.status, empty.body, empty.header("Content-Length")) == (200, b"", "0")


@BOTH
def test_head_has_the_same_fields_and_no_body(serve: Factory) -> None:
    server = serve(site(""), files={"html/a": "hello", "html/big": b"x" * 200_000})
    for name, size in (("/a", "5"), ("/big", "200000")):
        with server.client() as client:
            get, head, again = (client.request(method, name) for method in ("GET", "HEAD", "GET"))
        assert head.headers == get.headers
        assert (head.status, head.body, head.header("Content-Length")) == (200, b"", size)
        assert again.body == get.body


@BOTH
def test_etag_off(serve: Factory) -> None:
    server = serve(site("location /off/ { etag off; }"), files={"html/off/a": "x", "html/a": "x"})
    assert server.get("/off/a").header("ETag") is None
    assert server.get("/off/a").header("Last-Modified") is not None
    assert server.get("/a").header("ETag") is not None


@BOTH
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/a", 405),
        ("POST", "/dir", 301),
        ("POST", "/none", 404),
        ("POST", "/dir/", 405),
        ("PUT", "/a", 405),
        ("PUT", "/dir/", 405),
        ("DELETE", "/none", 405),
        ("HEAD", "/none", 404),
        ("HEAD", "/dir", 301),
    ],
)
def test_methods(serve: Factory, method: str, target: str, status: int) -> None:
    server = serve(site(""), files={"html/a": "x", "html/dir/index.html": "x"})
    server.allow("No such file")
    assert server.request(method, target).status == status


@BOTH
def test_a_body_that_comes_with_get_is_thrown_away(serve: Factory) -> None:
    server = serve(site(""), files={"html/a": "hello"})
    with server.client() as client:
        for body in (b"x" * 10, b"y" * 100_000):
            assert client.request("GET", "/a", body=body).body == b"hello"
        client.send(
            build("GET", "/a", {"Transfer-Encoding": "chunked"}) + b"3\r\nabc\r\n0\r\n\r\n" + build("GET", "/a")
        )
        assert client.response().body == client.response().body == b"hello"


@BOTH
def test_a_directory_without_its_slash_is_redirected(serve: Factory) -> None:
    conf = site("location /rel/ { absolute_redirect off; } location /data/ { alias %%DIR%%/html/rel/; }")
    server = serve(conf, files={"html/dir/a": "", "html/rel/dir/a": "", "html/a b/c": "", "html/sü/c": ""})
    here = f"http://localhost:{server.port()}"
    for target, location in (
        ("/dir", f"{here}/dir/"),
        ("/dir?a=b&c", f"{here}/dir/?a=b&c"),
        ("/a%20b", f"{here}/a%20b/"),
        ("/s%C3%BC", f"{here}/s%C3%BC/"),
        ("/rel/dir", "/rel/dir/"),
        ("/rel/dir?x", "/rel/dir/?x"),
        ("/data/dir", f"{here}/data/dir/"),
    ):
        reply = server.get(target)
        assert (reply.status, reply.header("Location")) == (301, location), target
        assert b"<title>301 Moved Permanently</title>" in reply.body


@BOTH
def test_what_cannot_be_opened(serve: Factory) -> None:
    server = serve(site(""), files={"html/a": "x", "html/dir/b": "x"})
    html = server.prefix / "html"
    (html / "loop").symlink_to("loop")
    (html / "link").symlink_to("a")
    os.mkfifo(html / "fifo")
    long = "n" * 300
    for target, status, line in (
        ("/none", 404, rf'open\(\) "{html}/none" failed \(2: No such file or directory\), client: 127.0.0.1, server: '),
        ("/a/b", 404, rf'open\(\) "{html}/a/b" failed \(20: Not a directory\)'),
        (f"/{long}", 404, rf'open\(\) "{html}/{long}" failed \(36: File name too long\)'),
        ("/loop", 403, rf'open\(\) "{html}/loop" failed \(40: Too many levels of symbolic links\)'),
        ("/fifo", 404, rf'\[crit\].*"{html}/fifo" is not a regular file'),
        ("/dir/", 403, rf'directory index of "{html}/dir/" is forbidden'),
    ):
        server.allow(line)
        assert server.get(target).status == status, target
        server.expect_log(line)
    assert server.get("/link").body == b"x"


@BOTH
def test_log_not_found_off(serve: Factory) -> None:
    server = serve(site("location /off/ { log_not_found off; }"), files={"html/a": "x"})
    assert server.get("/off/none").status == 404
    assert server.get("/off/").status == 404
    server.allow("/none2")
    assert server.get("/none2").status == 404
    assert len(server.expect_log("No such file")) == 1


@BOTH
def test_alias(serve: Factory) -> None:
    conf = site(
        """
        location /i/ { alias %%DIR%%/data/images/; location /i/sub/ { } }
        location /noslash { alias %%DIR%%/data/images; }
        location = /exact { alias data/one; }
        location ~ ^/u/(?<user>\\w+)/(.*)$ { alias %%DIR%%/data/$user/$2; }
        location ~ ^/fixed { alias %%DIR%%/data/one; }
        location /v/ { alias %%DIR%%/data/$arg_d/; }
        location /w/ { alias $arg_d/; }
        """
    )
    files = {"data/images/a": "image", "data/images/sub/b": "sub", "data/one": "one", "data/ann/x/y": "of ann"}
    server = serve(conf, files=files)
    for target, body in (
        ("/i/a", b"image"),
        ("/i/sub/b", b"sub"),
        ("/noslash/a", b"image"),
        ("/exact", b"one"),
        ("/u/ann/x/y", b"of ann"),
        ("/fixed/whatever", b"one"),
        ("/v/a?d=images", b"image"),
        ("/w/a?d=data/images", b"image"),
    ):
        assert server.get(target).body == body, target


@BOTH
def test_root(serve: Factory) -> None:
    conf = site(
        """
        location /rel/ { root data; }
        location /slash/ { root %%DIR%%/data/; }
        location /var/ { root %%DIR%%/$host; }
        location /relvar/ { root $host; location /relvar/in/ { } }
        location %%DIR%%/abs/ { root /; }
        location /if/ { if ($arg_x) { root %%DIR%%/data; } }
        """,
        server="root %%DIR%%/other;",
    )
    files = {
        "other/a": "other",
        "data/rel/a": "rel",
        "data/slash/a": "slash",
        "localhost/var/a": "var",
        "localhost/relvar/in/a": "relvar",
        "abs/a": "abs",
        "data/if/a": "data if",
        "other/if/a": "other if",
    }
    server = serve(conf, files=files)
    for target, body in (
        ("/a", b"other"),
        ("/rel/a", b"rel"),
        ("/slash/a", b"slash"),
        ("/var/a", b"var"),
        ("/relvar/in/a", b"relvar"),
        (f"{server.prefix}/abs/a", b"abs"),
        ("/if/a", b"other if"),
        ("/if/a?x=1", b"data if"),
    ):
        assert server.get(target).body == body, target


@BOTH
def test_alias_after_a_rewrite_that_stays_is_an_error(serve: Factory) -> None:
    conf = site("location /i/ { alias %%DIR%%/data/; rewrite ^/i/(.*) /j/$1 break; }")
    server = serve(conf, files={"data/a": "x"})
    line = r'\[alert\].*"alias" cannot be used in location "/i/" where URI was rewritten'
    server.allow(line)
    assert server.get("/i/a").status == 500
    server.expect_log(line)


@BOTH
def test_an_error_page_is_a_file_with_the_errors_status(serve: Factory) -> None:
    conf = site(
        """
        error_page 404 /404.html;
        location /ok/ { error_page 404 =200 /404.html; }
        location /only/ { error_page 405 /405.html; }
        """
    )
    server = serve(conf, files={"html/404.html": "not here", "html/405.html": "not so", "html/only/a": "x"})
    server.allow("No such file")
    reply = server.get("/none", {"If-None-Match": "*", "Range": "bytes=0-1"})
    assert (reply.status, reply.body) == (404, b"not here")
    assert server.get("/ok/none", {"Range": "bytes=0-2"}).body == b"not"
    reply = server.request("POST", "/only/a", body=b"data")
    assert (reply.status, reply.body) == (405, b"not so")


@BOTH
def test_names_are_bytes(serve: Factory) -> None:
    server = serve(site(""), files={"html/a b+c": "1", "html/grün": "2", "html/per%20cent": "3"})
    (server.prefix / "html" / os.fsdecode(b"\xff\xfe")).write_bytes(b"4")
    for target, body in (("/a%20b+c", b"1"), ("/gr%c3%bcn", b"2"), ("/per%2520cent", b"3"), ("/%FF%fe", b"4")):
        assert server.get(target).body == body, target


ERRORS = [
    ("root a; root b;", '"root" directive is duplicate in {}:3'),
    ("alias a; alias b;", '"alias" directive is duplicate in {}:3'),
    ("root a; alias b;", '"alias" directive is duplicate, "root" directive was specified earlier in {}:3'),
    ("alias a; root b;", '"root" directive is duplicate, "alias" directive was specified earlier in {}:3'),
    ("root $document_root/a;", 'the $document_root variable cannot be used in the "root" directive in {}:3'),
    ("alias ${realpath_root}/a;", 'the $realpath_root variable cannot be used in the "alias" directive in {}:3'),
    ("root;", 'invalid number of arguments in "root" directive in {}:3'),
    ("etag maybe;", 'invalid value "maybe" in "etag" directive, it must be "on" or "off" in {}:3'),
    ("output_buffers 0 4k;", '"output_buffers" directive invalid value in {}:3'),
]


@BOTH
@pytest.mark.parametrize(("directives", "message"), ERRORS)
def test_configuration_errors(serve: Factory, directives: str, message: str) -> None:
    server = serve(site(f"location / {{\n\n{directives} }}"), start=False)
    result = server.check()
    assert result.returncode == 1
    assert message.format(server.prefix / "nginx.conf") in result.stderr


@BOTH
def test_alias_is_not_for_servers_or_named_locations(serve: Factory) -> None:
    for conf, message in (
        (site("", server="alias a;"), '"alias" directive is not allowed here'),
        (site("location @a { alias a; }"), 'the "alias" directive cannot be used inside the named location'),
    ):
        result = serve(conf, start=False).check()
        assert f"{message} in " in result.stderr


@pytest.mark.parametrize("line", ["disable_symlinks on;", "open_file_cache max=10;", "directio 4m;", "read_ahead 1;"])
def test_what_headgate_does_not_do_is_refused(headgate: Factory, line: str) -> None:
    name = line.split()[0]
    result = headgate(site(line), start=False).check()
    assert result.returncode == 1
    assert f'"{name}' in result.stderr and "is known to nginx but not implemented by headgate in " in result.stderr
    assert headgate(site("disable_symlinks off; open_file_cache off;"), start=False).check().returncode == 0
