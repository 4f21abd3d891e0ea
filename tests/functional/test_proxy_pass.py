"""proxy_pass: which server, with which URI, on headgate and nginx alike; names with several addresses at the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backends import Backend, Reply, Request, named
from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
    http {
        proxy_set_header X-Level http;
        proxy_method PUT;
        upstream Group { server BACKEND; }
        server {
            listen 127.0.0.1:%%PORT_0%%;
            merge_slashes off;
            proxy_set_header X-Level server;
            location / { proxy_pass http://group; }
            location /below/ { proxy_pass http://group/above/; }
            location /bare/ { proxy_pass http://group/; }
            location /cut/ { proxy_pass http://group/x; }
            location /args/ { proxy_pass http://group/x?own=1; }
            location = /exactly { proxy_pass http://group/else; }
            location ~ ^/matched/ { proxy_pass http://group; }
            location /variable/ { set $to GROUP; proxy_pass http://$to; }
            location /variable/uri/ { proxy_pass http://group$arg_to; }
            location /address/ { set $to BACKEND; proxy_pass http://$to/x; }
            location /unix/ { proxy_pass http://unix:%%DIR%%/socket:/u/; }
            location /ipv6/ { proxy_pass http://IPV6/six/; }
            location /rewritten/ { rewrite ^/rewritten/(.*) /new/$1 break; proxy_pass http://group/unused/; }
            location /if/ { if ($arg_a) { proxy_pass http://group; } proxy_pass http://group/other/; }
            location /limited/ { limit_except POST { proxy_pass http://group; } return 403; }
            location /outer/ {
                proxy_method PATCH;
                proxy_pass http://group/out/;
                location /outer/inner/ { proxy_set_header X-Level inner; proxy_pass http://group/in/; }
                location /outer/no/ { return 200 "not passed on"; }
            }
        }
    }
"""


@pytest.fixture(scope="module", params=["headgate", "nginx"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    def seen(asked: Request) -> Reply:
        return Reply(body=f"{asked.method} {asked.target} {asked.header('x-level')}".encode())

    folder = tmp_path_factory.mktemp("pass")
    with ExitStack() as stack:
        one, six = Backend(seen), Backend(seen, host="::1")
        server = Server(CONF.replace("BACKEND", one.address).replace("IPV6", six.address), folder, request.param)
        unix = Backend(seen, unix=str(folder / "socket"))
        for each in (one, six, unix):
            stack.callback(each.stop)
        stack.callback(server.kill)
        yield server.start()
        server.finish()


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/a//b/../c?d=%20", "PUT /a//b/../c?d=%20 server"),
        ("/below/a%2fb?c", "PUT /above/a/b?c server"),
        ("/bare/", "PUT / server"),
        ("/bare/%3f%20", "PUT /%3F%20 server"),
        ("/cut/a", "PUT /xa server"),
        ("/args/a?b=2", "PUT /x?own=1a?b=2 server"),
        ("/exactly?a", "PUT /else?a server"),
        ("/matched/%61", "PUT /matched/%61 server"),
        ("/variable/%61?b", "PUT /variable/%61?b server"),
        ("/variable/uri/?to=/there", "PUT /there server"),
        ("/address/%61?b", "PUT /x server"),
        ("/unix/a", "PUT /u/a server"),
        ("/ipv6/a", "PUT /six/a server"),
        ("/rewritten/a?b", "PUT /new/a?b server"),
        ("/if/a?a=1", "PUT /if/a?a=1 server"),
        ("/if/a", "PUT /other/a server"),
        ("/limited/a", "PUT /limited/a server"),
        ("/outer/a", "PATCH /out/a server"),
        ("/outer/inner/a", "PATCH /in/a inner"),
        ("/outer/no/a", "not passed on"),
    ],
)
def test_what_is_asked_of_whom(running: Server, target: str, body: str) -> None:
    assert running.get(target).text == body


def test_a_location_without_its_slash_is_redirected_to(running: Server) -> None:
    """auto_redirect: only where the name ends with a slash, and its handler passes on."""
    for target, location in {"/below": "/below/", "/outer?a=b": "/outer/?a=b"}.items():
        reply = running.get(target, {"Host": "here"})
        assert (reply.status, reply.header("location")) == (301, f"http://here:{running.port()}{location}")
    assert running.get("/exactl").text == "PUT /exactl server"


NAMES = """
import socket

real = socket.getaddrinfo


def getaddrinfo(host, port, *args, **options):
    if host != "two.test":
        return real(host, port, *args, **options)
    return [entry for each in ("127.0.0.1", "127.0.0.2") for entry in real(each, port, *args, **options)]


socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.parametrize("way", ["proxy_pass", "upstream"])
def test_a_name_with_two_addresses_is_two_servers(
    headgate: Factory, backend: Callable[..., Backend], tmp_path: Path, way: str
) -> None:
    """Each has the full weight. What the system's resolver says is put in its place here."""
    (tmp_path / "names").mkdir()
    (tmp_path / "names/sitecustomize.py").write_text(NAMES)
    one = backend(named("one"))
    two = backend(named("two"), host="127.0.0.2", port=one.port)
    third = backend(named("third"))
    name = f"two.test:{one.port}"
    group = f"upstream group {{ server {name} weight=2; server {third.address}; }}" if way == "upstream" else ""
    running = headgate(
        f"""http {{ {group} server {{
            listen 127.0.0.1:%%PORT_0%%; location / {{ proxy_pass http://{"group" if group else name}; }}
        }} }}""",
        env={"PYTHONPATH": str(tmp_path / "names")},
    )
    count = 10
    answers = [running.get().text for _ in range(count)]
    shares = {"one": 4, "two": 4, "third": 2} if group else {"one": 5, "two": 5}
    assert {who: answers.count(who) for who in shares} == shares
    two.stop()
    running.allow("Connection refused")
    assert {running.get().text for _ in range(count)} == set(shares) - {"two"}
