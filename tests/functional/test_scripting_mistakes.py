"""What can be wrong in a user's Python: each mistake is one line of the error log that says where, and harms no one."""

import time
from collections.abc import Callable

import pytest

from tests.client import Client, TruncatedError
from tests.harness import Server

Factory = Callable[..., Server]

HANDLERS = """
import asyncio
import sys
from headgate.worker.script import Request, SubrequestError

async def ok(r): return "ok"
async def dict_body(r): await r.respond(200, None, {"a": 1})
async def list_body(r): await r.respond(200, None, ["a"])
async def dict_returned(r): return {"a": 1}
async def nothing(r): pass
async def text_status(r): await r.respond("200")
async def number_field(r): await r.respond(200, {"X": 1})
async def bad_name(r): await r.respond(200, {"X Y": "1"})
async def group(r):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(boom(r))
async def boom(r): raise RuntimeError("first\\nsecond")
async def cause(r):
    try:
        await boom(r)
    except RuntimeError as error:
        raise LookupError("outer") from error
async def leaves(r): sys.exit(3)
async def cancels(r): raise asyncio.CancelledError
async def nested(r): return (await r.subrequest("/nested_inner")).text
async def nested_inner(r):
    try:
        await r.subrequest("/ok")
    except SubrequestError as error:
        return str(error)
    return (await r.subrequest("/ok")).text
async def too_late(r):
    async def later():
        await asyncio.sleep(0)
        while not r.ctx.get("over"):
            await asyncio.sleep(0.001)
        for use in (r.body.read, r.respond, lambda: r.subrequest("/ok")):
            try:
                await use()
            except Exception as error:
                r.log("notice", f"too late: {error}")
    r.ctx["task"] = asyncio.create_task(later())
    return "ok"
def over(r): r.ctx["over"] = True
async def ignores_the_end(r):
    r.log("notice", "waiting")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        r.log("notice", "still there")
    await r.respond(200, None, "nobody")
    r.log("notice", "never cancelled")
async def leaves_tasks(r):
    async def later():
        try:
            while True:
                await r.subrequest("/ok")
        finally:
            r.log("notice", "still there")
    r.ctx["task"] = asyncio.create_task(later())
    r.log("notice", "waiting")
    await asyncio.sleep(60)
async def longer(r): await r.respond(200, {"Content-Length": "3"}, pieces())
async def shorter(r): await r.respond(200, {"Content-Length": "30"}, pieces())
async def pieces():
    yield "four"
    yield "more"
async def wants_status(r): return "yes"
def filter_fails(r): raise ValueError("no luck")
def filter_sets_and_fails(r):
    r.status = 404
    raise ValueError("no luck")
def filter_status(r): r.status = "abc"
def filter_length(r): r.response_headers["Content-Length"] = "3"
def filter_leaves(r): sys.exit()
def body_number(r, data, last): return 5
def log_fails(r): raise ValueError("no luck")
"""

CONF = """
http {
    py_path scripts;
    py_import handlers.py as h;
    recursive_error_pages on;
    server {
        listen 127.0.0.1:%%PORT_0%%;
HANDLERS
        location = /wants { py_access h.wants_status; py_content h.ok; }
FILTERS
        location = /paged { py_header_filter h.filter_fails; error_page 500 =200 /paged; return 200 "x"; }
        location = /number { py_body_filter h.body_number; return 200 "x"; }
        location = /logged { py_log h.log_fails; return 200 "x"; }
    }
}
"""
FILTERS = ("fails", "sets_and_fails", "status", "length", "leaves")


@pytest.fixture
def server(headgate: Factory) -> Server:
    names = [line.split()[2].partition("(")[0] for line in HANDLERS.splitlines() if line.startswith("async def ")]
    handlers = "\n".join(
        f"location = /{name} {{ py_content h.{name}; py_log h.over; }}"
        for name in names
        if name not in ("pieces", "wants_status")
    )
    filters = "\n".join(
        f'location = /filter_{name} {{ py_header_filter h.filter_{name}; return 200 "x"; }}' for name in FILTERS
    )
    made = headgate(
        CONF.replace("HANDLERS", handlers).replace("FILTERS", filters), files={"scripts/handlers.py": HANDLERS}
    )
    made.allow(r'\[error\].*"h\.', "nested in-memory subrequest", "internal redirection cycle")
    return made


MISTAKES = {
    "dict_body": '"h.dict_body" failed: TypeError: a body is text, bytes or an async iterator, not dict at dict_body',
    "list_body": "TypeError: a body is text, bytes or an async iterator, not list at",
    "dict_returned": "\"h.dict_returned\" returned {'a': 1}, which is no answer, client",
    "nothing": '"h.nothing" gave no answer (is an await missing?), client',
    "text_status": "ValueError: '200' is no status to answer with at text_status in",
    "number_field": "TypeError: text or bytes are wanted, not 1 at number_field in",
    "bad_name": "ValueError: 'X Y': '1' cannot be sent as a field at bad_name in",
    "cancels": '"h.cancels" failed: RuntimeError: the handler was cancelled, client',
    "leaves": "the handler has called for the end of the process; after SystemExit: 3 at leaves in",
    "wants": "\"h.wants_status\" returned 'yes': None or a status is wanted",
    "filter_fails": '"h.filter_fails" failed: ValueError: no luck at filter_fails in',
    "filter_sets_and_fails": '"h.filter_sets_and_fails" failed: ValueError: no luck at',
    "filter_status": "ValueError: 'abc' is no status to answer with at filter_status in",
    "filter_length": "ValueError: Content-Length is not a handler's to say",
    "filter_leaves": '"h.filter_leaves" failed: SystemExit',
}


def test_each_is_a_500_and_one_line(server: Server) -> None:
    workers = server.workers()
    for name, message in MISTAKES.items():
        before = len(server.matching(r"\[error\]"))
        assert (name, server.get(f"/{name}").status) == (name, 500)
        (line,) = server.expect_log(r"\[error\]", before + 1)[before:]
        assert message in line
        assert f'request: "GET /{name} HTTP/1.1"' in line and "worker/script" not in line
    assert server.get("/ok").body == b"ok" and server.workers() == workers


def test_an_error_made_of_others_shows_them(server: Server) -> None:
    server.get("/group")
    server.expect_log(
        r'"h\.group" failed: ExceptionGroup: .* < group in "[^"]*":\d+; in it RuntimeError: first\\x0Asecond at boom'
    )
    server.get("/cause")
    server.expect_log(
        r'LookupError: outer at cause in "[^"]*":\d+; after RuntimeError: .* at boom in "[^"]*":\d+ < cause'
    )


def test_a_filter_that_fails_for_error_pages_too(server: Server) -> None:
    assert server.get("/paged").status == 500
    assert 1 <= len(server.matching(r'"h\.filter_fails" failed')) <= 11  # a redirect's limit, and no more


def test_bodies_that_do_not_fit_cut_the_connection(server: Server) -> None:
    for name, message in {
        "longer": "the body is longer than its Content-Length",
        "shorter": "the body is 22 bytes shorter than its Content-Length",
        "number": '"h.body_number" failed: TypeError: text or bytes are wanted, not 5',
    }.items():
        with pytest.raises(TruncatedError):
            server.get(f"/{name}")
        server.expect_log(message)


def test_a_log_handler_that_fails(server: Server) -> None:
    assert server.get("/logged").body == b"x"
    server.expect_log('"h.log_fails" failed: ValueError: no luck at log_fails')


def test_what_the_handler_left_behind(server: Server) -> None:
    """Of a request that is over, nothing can be had any more."""
    assert server.get("/too_late").body == b"ok"
    server.expect_log("too late: the request's handler has ended", 2)
    server.expect_log("too late: the request is over")


@pytest.mark.parametrize("name", ["ignores_the_end", "leaves_tasks"])
def test_a_handler_that_ignores_its_end(server: Server, name: str) -> None:
    """The client has left: whoever asks for something more is cancelled, without a word."""
    client = Client(server.port())
    client.send(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    server.expect_log("waiting")
    client.close()
    server.expect_log("still there")
    assert server.get("/ok").body == b"ok"
    assert not server.matching("never cancelled|failed|never retrieved")


def test_memory_inside_memory(server: Server) -> None:
    """A subrequest kept in memory cannot have one itself (nginx); it is told so."""
    assert server.get("/nested").body == b'nested in-memory subrequest "/ok"'
    assert server.get("/nested_inner").body == b"ok"


def test_a_helper_is_found_and_reloaded(headgate: Factory) -> None:
    conf = """
    http {
        py_path lib; py_path scripts;
        py_import app.py;
        server {
            listen 127.0.0.1:%%PORT_0%%;
            location / { py_content app.fn; }
            location /later { py_content app.later; }
        }
    }
    """
    app = """
import json
import helper
from package import part
async def fn(r): return json.dumps([helper.text, part.text])
async def later(r):
    import other
    return other.text
"""
    files = {"scripts/app.py": app, "scripts/helper.py": "text = 'old'", "scripts/json.py": "1 / 0"}
    files |= {"lib/package/__init__.py": "", "lib/package/part.py": "text = 'old'", "lib/other.py": "text = 'other'"}
    server = headgate(conf, files=files)
    assert server.get("/").body == b'["old", "old"]'
    assert server.get("/later").body == b"other"
    server.write("scripts/helper.py", "text = 'new'")
    server.write("lib/package/part.py", "text = 'new'")
    server.reload()
    assert server.get("/").body == b'["new", "new"]'
    assert not list(server.prefix.rglob("*.pyc"))
    server.write("scripts/helper.py", "import nowhere")
    server.allow("ModuleNotFoundError")
    assert "app.py\" failed: ModuleNotFoundError: No module named 'nowhere' (line 3)" in server.check().stderr


def test_old_workers_keep_the_old_code(headgate: Factory) -> None:
    conf = """
    http { py_import app.py; server { listen 127.0.0.1:%%PORT_0%%; location / { py_content app.fn; } } }
    """
    app = """
import asyncio, os
async def fn(r):
    while r.args and not os.path.exists(r.variables["document_root"] + "/go"):
        await asyncio.sleep(0.005)
    return word()
def word(): return "WORD"
"""
    server = headgate(conf, files={"app.py": app.replace("WORD", "old")})
    client = server.client()
    client.send(b"GET /?wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.get("/").body == b"old"  # the one before runs by now
    server.write("app.py", app.replace("WORD", "new"))
    server.reload()
    deadline = time.monotonic() + 10
    while server.get("/").body != b"new":
        assert time.monotonic() < deadline
    server.write("html/go", "")
    assert client.response().body == b"old"
