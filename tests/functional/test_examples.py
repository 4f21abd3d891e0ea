"""The example configurations are valid, for headgate and for nginx, and do what their comments say."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends import Backend, named
from tests.client import TruncatedError
from tests.harness import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.conf"))
Factory = Callable[..., Server]


def example(name: str, backends: dict[int, Backend] | None = None) -> dict[str, object]:
    """Server's arguments for an example: a free port for 8080, `backends` for the ports 9001 to 9004."""
    text = (EXAMPLES / name).read_text().replace("listen 8080", "listen 127.0.0.1:%%PORT_0%%")
    for port, backend in (backends or {}).items():
        text = text.replace(f"127.0.0.1:{port}", backend.address)
    return {"conf": text, "files": {"mime.types": (EXAMPLES / "mime.types").read_text()}}


def without_g(server: Server) -> list[str]:
    """The command line without the harness's `-g`: the examples have their own error_log."""
    return ["-t", "-p", f"{server.prefix}/", "-c", "nginx.conf", "-e", "error.log"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("binary", ["headgate", "nginx"])
def test_example_is_valid(request: pytest.FixtureRequest, binary: str, name: str) -> None:
    server = request.getfixturevalue(binary)(start=False, **example(name))
    server.ports.release()
    done = server.run(*without_g(server))
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr
    assert not re.search(r"\[(warn|error|emerg)\]", done.stderr), done.stderr


def test_the_first_configuration_of_the_readme(headgate: Factory, backend: Callable[..., Backend]) -> None:
    lines = (EXAMPLES.parent / "README.md").read_text().splitlines()
    start = lines.index("    events {")
    end = next(number for number in range(start, len(lines)) if lines[number] and not lines[number].startswith("    "))
    text = textwrap.dedent("\n".join(lines[start:end])).replace("listen 8080", "listen 127.0.0.1:%%PORT_0%%")
    one, two = backend(named("one")), backend(named("two"))
    text = text.replace("127.0.0.1:9001", one.address).replace("127.0.0.1:9002", two.address)
    server = headgate(text, files={"files/static/a.txt": "a file"})
    assert server.get("/static/a.txt").text == "a file"
    assert sorted(server.get("/").text for _ in range(6)) == ["one"] * 4 + ["two"] * 2


def run(factory: Factory, name: str, backends: dict[int, Backend]) -> Server:
    """The example, running; its error_log gives way to the harness's."""
    arguments = example(name, backends)
    text = re.sub(r"^error_log .*$", "", str(arguments.pop("conf")), flags=re.M)
    return factory(text, **arguments)


def test_reverse_proxy(headgate: Factory, backend: Callable[..., Backend]) -> None:
    one = backend()
    server = run(headgate, "reverse-proxy.conf", dict.fromkeys((9001, 9002, 9003, 9004), one))
    body = server.get("/path?a=b", {"Host": "site.example"}).text
    assert body.startswith("GET /path?a=b HTTP/1.1\n")
    assert "Host: site.example\nX-Real-IP: 127.0.0.1\nX-Forwarded-For: 127.0.0.1\nX-Forwarded-Proto: http\n" in body
    assert server.get("/-/alive").body == b"alive\n"
    (line,) = server.access_log(1, "access.log")
    assert re.search(rf'"GET /path\?a=b HTTP/1.1" 200 \d+ to={one.address} answered=200 in=\d\.\d\d\d$', line)


def test_static_site(headgate: Factory, backend: Callable[..., Backend]) -> None:
    server = run(headgate, "static-site.conf", {9001: backend()})
    server.allow(r"No such file or directory")
    for name in ("index.html", "about.html", "docs/index.html", "app.0123abcd.js", ".env"):
        server.write(f"site/{name}", name)
    assert server.get("/").text == "index.html"
    assert server.get("/about").text == "about.html"
    assert server.get("/docs/").text == "docs/index.html"
    script = server.get("/app.0123abcd.js")
    assert (script.header("content-type"), script.header("cache-control")) == (
        "text/javascript",
        "public, max-age=31536000, immutable",
    )
    assert server.get("/.env").status == 404
    assert server.get("/50x.html").status == 404
    assert server.get("/api/users").text.startswith("GET /users HTTP/1.")


def test_many_names(headgate: Factory, backend: Callable[..., Backend]) -> None:
    stable, canary = backend(), backend()
    server = run(headgate, "many-names.conf", {9001: stable, 9002: stable, 9003: canary})
    with pytest.raises(TruncatedError):
        server.get("/", {"Host": "unknown.example"})
    moved = server.get("/a?b", {"Host": "www.example.com"})
    assert (moved.status, moved.header("location")) == (301, "http://shop.example.com/a?b")
    server.get("/", {"Host": "shop.example.com"})
    server.get("/", {"Host": "shop.example.com", "Cookie": "release=new"})
    server.get("/", {"Host": "shop.example.com", "User-Agent": "our-tests/1"})
    server.get("/", {"Host": "joe.users.example.com"})
    assert (len(stable.requests), len(canary.requests)) == (2, 2)
    assert stable.requests[1].header("x-user") == "joe"
