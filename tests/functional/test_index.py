"""`index`: which file answers a directory's URI, on headgate and on nginx alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

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


@BOTH
def test_the_first_name_that_is_there_answers(serve: Factory) -> None:
    conf = site(
        """
        index many;
        location /two/ { index first second; index third; }
        location /abs/ { index none /other/page; }
        location /var/ { index $arg_n.html many; }
        location /absvar/ { index $arg_n; }
        location /data/ { alias %%DIR%%/data/; index x; }
        location /noslash/ { alias %%DIR%%/data; index /other/page; }
        """
    )
    files = {
        "html/many": "root",
        "html/two/second": "second",
        "html/two/third": "third",
        "html/abs/x": "x",
        "html/other/page": "page",
        "html/var/a.html": "a",
        "html/var/many": "many",
        "html/absvar/x": "x",
        "data/x": "alias",
        "html/third/third": "only one",
    }
    server = serve(conf, files=files)
    for target, body in (
        ("/", b"root"),
        ("/two/", b"second"),
        ("/abs/", b"page"),
        ("/var/?n=a", b"a"),
        ("/var/?n=b", b"many"),
        ("/absvar/?n=/two/third", b"third"),
        ("/data/", b"alias"),
        ("/noslash/", b"page"),
    ):
        assert server.get(target).body == body, target
    with server.client() as client:
        assert client.request("HEAD", "/").header("Content-Length") == "4"


@BOTH
def test_the_default_is_index_html(serve: Factory) -> None:
    server = serve(
        site("location /in/ { location /in/er/ { } }"), files={"html/index.html": "i", "html/in/er/index.html": "e"}
    )
    assert server.get("/").body == b"i"
    assert server.get("/in/er/").body == b"e"


@BOTH
def test_the_index_is_an_internal_request_of_its_own(serve: Factory) -> None:
    conf = site(
        """
        location / { index page.php; }
        location ~ \\.php$ { root %%DIR%%/php; add_header X-Args "$args" always; add_header X-Uri "$uri" always; }
        location /circle/ { index /circle/; }
        """
    )
    server = serve(conf, files={"html/a/page.php": "static", "php/a/page.php": "from php"})
    reply = server.get("/a/?x=1&y")
    assert (reply.body, reply.header("X-Args"), reply.header("X-Uri")) == (b"from php", "x=1&y", "/a/page.php")
    line = r'rewrite or internal redirection cycle while internally redirecting to "/circle/"'
    server.allow(line)
    assert server.get("/circle/").status == 500
    server.expect_log(line)


@BOTH
def test_what_is_not_there(serve: Factory) -> None:
    server = serve(site("location /off/ { log_not_found off; }"), files={"html/empty/x": "x", "html/file": "x"})
    html = server.prefix / "html"
    (html / "loop").symlink_to("loop")
    (html / "dirs").mkdir()
    (html / "dirs/index.html").mkdir()
    for target, status, line in (
        ("/none/", 404, rf'"{html}/none/index.html" is not found \(2: No such file or directory\)'),
        ("/file/", 404, rf'"{html}/file/index.html" is not found \(20: Not a directory\)'),
        ("/empty/", 403, rf'directory index of "{html}/empty/" is forbidden'),
    ):
        server.allow(line)
        assert server.get(target).status == status, target
        server.expect_log(line)
    assert server.get("/loop/").status == 403
    assert server.get("/off/none/").status == 404
    reply = server.get("/dirs/")
    assert (reply.status, reply.header("Location")) == (301, f"http://localhost:{server.port()}/dirs/index.html/")


@BOTH
def test_a_directory_that_may_not_be_searched(serve: Factory) -> None:
    """For root the worker becomes somebody else, and the files lie where that somebody can come."""
    with tempfile.TemporaryDirectory() as name:
        shut = Path(name, "shut")
        shut.mkdir()
        for file in ("index.html", "a"):
            (shut / file).write_text("x")
        Path(name).chmod(0o755)
        shut.chmod(0o000)
        server = serve(site(f"root {name};") + ("\nuser nobody nogroup;" if os.geteuid() == 0 else ""))
        for target, line in (
            ("/shut/", rf'"{shut}/index.html" is forbidden \(13: Permission denied\)'),
            ("/shut/a", rf'open\(\) "{shut}/a" failed \(13: Permission denied\)'),
        ):
            server.allow(line)
            assert server.get(target).status == 403
            server.expect_log(line)
        shut.chmod(0o700)


@BOTH
def test_configuration_messages(serve: Factory) -> None:
    server = serve(site('\nindex "";'), start=False)
    assert f'index "" in "index" directive is invalid in {server.prefix}/nginx.conf:2' in server.check().stderr
    server = serve(site("\nindex /a b;"), start=False)
    warning = 'only the last index in "index" directive should be absolute'
    assert f"[warn] {warning} in {server.prefix}/nginx.conf:2" in server.check().stderr.replace("nginx: ", "")
