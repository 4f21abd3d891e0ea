"""`access_log` and `log_format`: formats, escaping, inheritance, conditions, buffers, reopening."""

import gzip
import os
import re
import signal
from collections.abc import Callable

from tests.client import build
from tests.harness import Server, descriptors, until

Factory = Callable[..., Server]
COMBINED = re.compile(
    r'127\.0\.0\.1 - (\S+) \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"'
)


def test_default_is_combined(headgate: Factory) -> None:
    user = "user root;" if os.geteuid() == 0 else ""
    server = headgate(
        f"""daemon off; pid logs/nginx.pid; {user}
        events {{ }}
        http {{
            log_format own "own";
            server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ return 200 "four"; }} }}
            server {{ listen 127.0.0.1:%%PORT_1%%; access_log logs/own.log own; location / {{ return 200; }} }}
        }}""",
        defaults=False,
    )
    server.get("/a?b", {"Referer": "from", "User-Agent": "me", "Authorization": "Basic YTpi"})
    server.get("/x", index=1)
    found = COMBINED.fullmatch(server.access_log(1)[0])
    assert found and found.groups() == ("a", "GET /a?b HTTP/1.1", "200", "4", "from", "me")
    assert server.access_log(1, name="logs/own.log") == ["own"]


FORMATS = r"""
http {
    log_format default "[$arg_a] [$http_x] [$arg_none] [$uri]";
    log_format json escape=json '{"a":"$http_x","none":"$arg_none","uri":"$uri"}';
    log_format none escape=none "[$http_x] [$arg_none] [$uri]";
    log_format parts "a " 'b "$arg_a"' " ${arg_a}c\t$1";
    server {
        listen 127.0.0.1:%%PORT_0%%;
        access_log logs/default.log default;
        access_log logs/json.log json;
        access_log logs/none.log none;
        access_log logs/parts.log PARTS;
        location / { return 200; }
    }
}
"""


def test_formats(either: Factory) -> None:
    server = either(FORMATS.replace(r"\t$1", ""))
    server.get("/a%22%0a%5C%01%C3%A9?a=1", [("X", 'q"u\\o\té')])
    server.get("/")
    value, uri = r"q\x22u\x5Co\x09\xE9", r"/a\x22\x0A\x5C\x01\xC3\xA9"
    assert server.access_log(2, name="logs/default.log") == [f"[1] [{value}] [-] [{uri}]", "[-] [-] [-] [/]"]
    json = (server.prefix / "logs/json.log").read_bytes().splitlines()
    assert json[0] == b'{"a":"q\\"u\\\\o\\t\xe9","none":"","uri":"/a\\"\\n\\\\\\u0001\xc3\xa9"}'
    assert json[1] == b'{"a":"","none":"","uri":"/"}'
    none = (server.prefix / "logs/none.log").read_bytes()
    assert none == b'[q"u\\o\t\xe9] [] [/a"\n\\\x01\xc3\xa9]\n[] [] [/]\n'
    assert server.access_log(2, name="logs/parts.log") == ['a b "1" 1c', 'a b "-" -c']


def test_captures_are_no_variables(headgate: Factory) -> None:
    server = headgate(FORMATS, start=False)
    assert 'unknown "1" variable' in server.check().stderr


INHERITED = """
http {
    log_format line "$uri";
    access_log logs/http.log line;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { return 200; }
        location /off { access_log off; return 200; }
        location /off/not { access_log logs/not.log line; return 200; }
        location /own { access_log logs/own.log line; access_log logs/http.log line; return 200; }
        location /if {
            if ($arg_a) { access_log logs/if.log line; return 200; }
            return 200;
        }
        location /both { access_log off; access_log logs/own.log line; return 200; }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        access_log logs/second.log line;
        location / { return 200; }
    }
}
"""


def test_inheritance(either: Factory) -> None:
    server = either(INHERITED)
    for path in ("/a", "/off", "/off/not", "/own", "/if", "/if?a=1", "/both"):
        server.get(path)
    server.get("/second", index=1)
    assert server.access_log(3, name="logs/http.log") == ["/a", "/own", "/if"]
    assert server.access_log(1, name="logs/not.log") == ["/off/not"]
    assert server.access_log(1, name="logs/own.log") == ["/own"]
    assert server.access_log(1, name="logs/if.log") == ["/if"]
    assert server.access_log(1, name="logs/second.log") == ["/second"]


def test_condition(either: Factory) -> None:
    server = either(
        """http {
            log_format line "$request_uri";
            map $status $ok { ~^2 1; default 0; }
            server {
                listen 127.0.0.1:%%PORT_0%%;
                access_log logs/args.log line if=$arg_a;
                access_log logs/status.log line if=$ok;
                location / { return 200; }
                location /error { return 403; }
            }
        }"""
    )
    for path in ("/?a=1", "/?a=0", "/?a=", "/", "/error?a=no"):
        server.get(path)
    assert server.access_log(2, name="logs/args.log") == ["/?a=1", "/error?a=no"]
    assert server.access_log(4, name="logs/status.log") == ["/?a=1", "/?a=0", "/?a=", "/"]


def test_path_with_variables(either: Factory) -> None:
    server = either(
        """http {
            log_format line "$uri";
            server {
                listen 127.0.0.1:%%PORT_0%%;
                access_log logs/$arg_a.log line;
                location / { return 200; }
                location /rootless { root %%DIR%%/nothere; return 200; }
            }
        }"""
    )
    for path in ("/1?a=x", "/2?a=y", "/3?a=x", "/rootless?a=z", "/4?a=no/dir"):
        server.get(path)
    server.allow("existence failed", r"open\(\) .*logs/no/dir.log")
    server.expect_log(
        r'\[error\] .* testing ".*/nothere" existence failed \(2: No such file or directory\) while logging'
    )
    server.expect_log(
        r'\[crit\] .* open\(\) ".*/logs/no/dir.log" failed \(2: No such file or directory\) while logging'
    )
    assert server.access_log(2, name="logs/x.log") == ["/1", "/3"]
    assert server.access_log(1, name="logs/y.log") == ["/2"]
    assert not (server.prefix / "logs/z.log").exists()


BUFFERED = """
http {
    log_format line "$uri";
    server {
        listen 127.0.0.1:%%PORT_0%%;
        access_log logs/size.log line buffer=64;
        access_log logs/time.log line buffer=64k flush=100ms;
        access_log logs/end.log line buffer=64k;
        location / { return 200; }
        location /too { access_log logs/size.log line; return 200; }
    }
}
"""


def test_files_of_names_stay_open(either: Factory) -> None:
    server = either("""
        http {
            log_format one $arg_n;
            server {
                listen 127.0.0.1:%%PORT_0%%;
                access_log logs/$arg_n.log one;
                open_log_file_cache max=2 min_uses=2 valid=1s inactive=1h;
                location / { return 200; }
                location /off { open_log_file_cache off; return 200; }
            }
        }""")
    (worker,) = server.workers()

    def kept() -> set[str]:
        names = {os.path.basename(name) for name in descriptors(worker).values()}
        return names & {"a.log", "b.log", "c.log"}

    def write(name: str, path: str = "/") -> None:
        before = len(server.log_lines(f"logs/{name}.log"))
        server.get(f"{path}?n={name}")
        server.access_log(before + 1, name=f"logs/{name}.log")

    write("a")
    assert not kept()
    write("a")
    until(lambda: kept() == {"a.log"}, "a file that was used twice")
    for _ in range(2):
        write("c", "/off")
    assert kept() == {"a.log"}
    for name in "bbcc":
        write(name)
    until(lambda: kept() == {"b.log", "c.log"}, "the longest unused closed")

    server.allow(r"stat\(\) .*/logs/c.log")  # nginx's, until it has made the file anew
    moved = server.prefix / "logs/c.log"
    moved.rename(server.prefix / "logs/c.old")
    until(lambda: server.get("/?n=c").status == 200 and moved.exists(), "a look at the name")


def test_buffer_is_written_when_full(either: Factory) -> None:
    server = either(BUFFERED)
    for _ in range(3):
        server.get("/" + "x" * 20)
    assert server.access_log(2, name="logs/size.log") == ["/" + "x" * 20] * 2
    server.get("/" + "y" * 100)
    lines = server.access_log(4, name="logs/size.log")
    assert lines == ["/" + "x" * 20] * 3 + ["/" + "y" * 100]


def test_buffer_is_written_in_time(either: Factory) -> None:
    server = either(BUFFERED)
    server.get("/a")
    assert server.access_log(1, name="logs/time.log") == ["/a"]
    assert server.log_lines("logs/end.log") == []
    server.get("/b")
    assert server.access_log(2, name="logs/time.log") == ["/a", "/b"]


def test_buffers_are_compressed(either: Factory) -> None:
    server = either(
        BUFFERED.replace("buffer=64;", "buffer=64 gzip=9;").replace(
            "logs/size.log line;", "logs/size.log line gzip=9 buffer=64;"
        )
    )
    paths = [f"/{number}" * 9 for number in range(8)] + ["/too" + "o" * 100]
    for path in paths:
        server.get(path)
    server.stop()
    data = (server.prefix / "logs/size.log").read_bytes()
    assert gzip.decompress(data).decode().splitlines() == paths
    assert data.count(b"\x1f\x8b") > 2, "each buffer is a member of its own"


def test_buffer_is_written_at_the_end(either: Factory) -> None:
    server = either(BUFFERED)
    server.get("/a")
    server.get("/too")  # the buffer belongs to the file, whichever directive gave it
    assert server.log_lines("logs/end.log") == [] == server.log_lines("logs/size.log")
    server.stop()
    assert server.log_lines("logs/end.log") == ["/a"]
    assert server.log_lines("logs/size.log") == ["/a", "/too"]


def test_reopen(either: Factory) -> None:
    server = either(BUFFERED)
    server.get("/a")
    for name in ("size", "end"):
        (server.prefix / f"logs/{name}.log").rename(server.prefix / f"logs/{name}.old")
    server.send_signal(signal.SIGUSR1)
    until(lambda: (server.prefix / "logs/end.log").exists(), "a new file")
    assert server.access_log(1, name="logs/end.old") == ["/a"]
    server.expect_log("reopening logs", 2)
    server.get("/b")
    server.stop()
    assert server.log_lines("logs/end.log") == ["/b"]
    assert server.log_lines("logs/end.old") == ["/a"]


def test_reload_writes_the_buffers(either: Factory) -> None:
    server = either(BUFFERED)
    server.get("/a")
    server.reload()
    assert server.access_log(1, name="logs/end.log") == ["/a"]


UNREAD = """
http {
    log_format line "$request|$status|$request_method|$uri|$server_protocol|$host|$request_length";
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name main.example;
        access_log logs/line.log line;
        client_header_timeout 300ms;
        large_client_header_buffers 2 2k;
        client_header_buffer_size 1k;
        location / { return 200; }
        location /wait { proxy_pass http://127.0.0.1:%%PORT_9%%; }
    }
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name other.example;
        access_log logs/other.log line;
    }
}
"""


def test_what_cannot_be_read(either: Factory) -> None:
    server = either(UNREAD)
    requests = [
        "garbage\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x y\r\n\r\n",
        "GET /b HTTP/1.1\r\nHost: other.example\r\nbad name: x\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /c HTTP/1.1\r\n\r\n",
        f"GET /d HTTP/1.1\r\nHost: a\r\nX: {'x' * 3000}\r\n\r\n",
    ]
    for request in requests:
        with server.client() as client:
            client.send(request)
            assert client.read_all().startswith(b"HTTP/1.1 400 Bad Request\r\n"), request
    lines = server.access_log(5, name="logs/line.log")
    assert lines[0] == "garbage|400|-|-|-|main.example|0"
    assert lines[1].startswith("GET /a HTTP/1.1|400|GET|/a|HTTP/1.1|main.example|")
    assert lines[2].startswith("GET /%zz HTTP/1.1|400|GET||")
    assert lines[3] == "GET /c HTTP/1.1|400|GET|/c|HTTP/1.1|main.example|19"
    assert server.access_log(1, name="logs/other.log") == [
        f"GET /b HTTP/1.1|400|GET|/b|HTTP/1.1|other.example|{len(requests[2]) - len('bad name: x') - 4}"
    ]


def test_long_request_line(either: Factory) -> None:
    server = either(UNREAD)
    with server.client() as client:
        client.send("GET /" + "x" * 3000 + " HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_all().startswith(b"HTTP/1.1 414 ")
    assert "|414|" in server.access_log(1, name="logs/line.log")[0]


def test_slow_head(either: Factory) -> None:
    server = either(UNREAD)
    with server.client() as client:
        client.send("GET /slow HTTP/1.1\r\nHos")
        assert client.closed()
    assert server.access_log(1, name="logs/line.log")[0].startswith("GET /slow HTTP/1.1|408|GET|/slow|")


def test_client_that_leaves(either: Factory, backend: Callable[..., object]) -> None:
    upstream = backend(connection=lambda connection: connection.recv(65536) and connection.recv(1))
    server = either(UNREAD.replace("%%PORT_9%%", str(upstream.port)))  # type: ignore[attr-defined]
    server.allow("prematurely closed")
    client = server.client()
    client.send(build("GET", "/wait"))
    until(lambda: upstream.connections == 1, "the backend's connection")  # type: ignore[attr-defined]
    client.reset()
    assert server.access_log(1, name="logs/line.log")[0].startswith("GET /wait HTTP/1.1|499|")


def test_lines_of_many_connections(headgate: Factory) -> None:
    server = headgate(
        """worker_processes 2;
        http {
            log_format line "$arg_n";
            access_log logs/line.log line buffer=256 flush=50ms;
            server { listen 127.0.0.1:%%PORT_0%%; location / { return 200; } }
        }"""
    )
    clients = [server.client() for _ in range(20)]
    for n in range(10):
        for i, client in enumerate(clients):
            assert client.get(f"/?n={n}-{i}").status == 200
    lines = server.access_log(200, name="logs/line.log")
    assert sorted(lines) == sorted(f"{n}-{i}" for n in range(10) for i in range(20))
