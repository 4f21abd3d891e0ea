"""`types` and `default_type`: the Content-Type of an extension, on headgate and on nginx alike."""

from __future__ import annotations

from collections.abc import Callable

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


def kind(server: Server, target: str) -> str | None:
    reply = server.get(target)
    assert reply.status == 200, target
    return reply.header("Content-Type")


@BOTH
def test_extensions(serve: Factory) -> None:
    conf = site("", http="types { text/one a b; text/two c; text/gz gz tar.gz; } default_type text/other;")
    names = {"f.a": "one", "f.B": "one", "f.x.c": "two", "f.tar.gz": "gz", "f": "other", "f.": "other", "f.d": "other",
             "d.a/f": "other", "d/.a": "other", ".a": "other", "a": "other", "d/x.a": "one", "f..a": "one"}  # fmt: skip
    server = serve(conf, files={f"html/{name}": "x" for name in names})
    for name, expected in names.items():
        assert kind(server, f"/{name}") == f"text/{expected}", name


@BOTH
def test_defaults(serve: Factory) -> None:
    names = {"a.html": "text/html", "a.gif": "image/gif", "a.jpg": "image/jpeg", "a.css": "text/plain"}
    server = serve(site(""), files={f"html/{name}": "x" for name in names})
    for name, expected in names.items():
        assert kind(server, f"/{name}") == expected, name


@BOTH
def test_inherited_where_none_is_set(serve: Factory) -> None:
    conf = site(
        """
        types { } default_type text/server;
        location /in/ { }
        location /own/ { types { text/own o; } types { text/second s; } location /own/in/ { default_type ""; } }
        location /none/ { types { } }
        """,
        http="types { text/http o; }",
    )
    names = ["in/f.o", "own/f.o", "own/f.s", "own/in/f.s", "own/in/f", "own/f.html", "none/f.o"]
    server = serve(conf, files={f"html/{name}": "x" for name in names})
    expected = ["text/server", "text/own", "text/second", "text/second", None, "text/server", "text/server"]
    assert [kind(server, f"/{name}") for name in names] == expected


@BOTH
def test_the_extension_is_that_of_the_uri_in_the_end(serve: Factory) -> None:
    conf = site(
        """
        location = /i/x.b { alias %%DIR%%/html/f.a; }
        location /t/ { try_files /f.a =404; }
        location /e/ { error_page 404 =200 /f.a; }
        location /r/ { rewrite ^ /f.a break; }
        location /d/ { index f.a; }
        """,
        http="types { text/one a; text/two b; }",
    )
    server = serve(conf, files={"html/f.a": "x", "html/d/f.a": "x"})
    server.allow("No such file")
    for target, expected in (
        ("/i/x.b", "two"),
        ("/t/x.b", "one"),
        ("/e/x.b", "one"),
        ("/r/x.b", "one"),
        ("/d/", "one"),
    ):
        assert kind(server, target) == f"text/{expected}", target


@BOTH
def test_return_has_the_type_of_its_uri(serve: Factory) -> None:
    server = serve(site('location / { return 200 "x"; }', http="types { text/one a; } default_type text/other;"))
    assert kind(server, "/f.a") == "text/one"
    assert kind(server, "/f.b") == "text/other"


@BOTH
def test_included_tables(serve: Factory) -> None:
    conf = site("", http="types { include more.types; text/x x; }")
    server = serve(conf, files={"more.types": "text/y y;\ntext/z z;\n", "html/f.x": "x", "html/f.z": "x"})
    assert (kind(server, "/f.x"), kind(server, "/f.z")) == ("text/x", "text/z")


@BOTH
def test_messages(serve: Factory) -> None:
    server = serve(site("\ntypes { text/a a;\n text/b b A; }\nlocation /in { }"), start=False)
    text = 'duplicate extension "a", content type: "text/b", previous content type: "text/a"'
    stderr = server.check().stderr
    assert stderr.count(f"[warn] {text} in {server.prefix}/nginx.conf:3") + stderr.count(f"{text} in") == 2
    for conf, message in (
        ("\ntypes { text/a { } }", 'unexpected "{{" in {}:2'),
        ("\ntypes a;", 'directive "types" has no opening "{{" in {}:2'),
        ("\ntypes a { }", 'invalid number of arguments in "types" directive in {}:2'),
        ("\ndefault_type a; default_type b;", '"default_type" directive is duplicate in {}:2'),
        ("\ntypes_hash_max_size x;", '"types_hash_max_size" directive invalid number in {}:2'),
    ):
        server = serve(site(conf), start=False)
        assert message.format(server.prefix / "nginx.conf") in server.check().stderr, conf
