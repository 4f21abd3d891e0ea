"""`error_log` in the http block and inside it: which requests are logged where, levels, the form of a line."""

import re
from collections.abc import Callable

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    error_log logs/http.log info;
    server {
        listen 127.0.0.1:%%PORT_0%%;
        server_name main.example;
        location /deny/ { root %%DIR%%/html; }
        location /own/ { error_log logs/own.log; root %%DIR%%/html; }
        location /two/ {
            error_log logs/own.log error;
            error_log logs/warn.log warn;
            set $a $unset_here;
            root %%DIR%%/html;
        }
        location /set { set $unset_here x; }
        location /quiet/ { error_log logs/quiet.log crit; root %%DIR%%/html; }
        location /silent/ { log_not_found off; root %%DIR%%/html; }
        location /if/ { root %%DIR%%/html; if ($arg_a) { set $a 1; } }
    }
    server {
        listen 127.0.0.1:%%PORT_1%%;
        error_log logs/server.log;
        location / { root %%DIR%%/html; }
        location /quiet/ { error_log logs/quiet.log crit; root %%DIR%%/html; }
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        location / { error_log logs/none.log; return 200; }
    }
}
"""
MISSING = r'\[error\] \d+#\d+: \*\d+ open\(\) ".*/html/%s" failed \(2: No such file or directory\), client: '


def test_where(either: Factory) -> None:
    server = either(CONF)
    for path in ("/deny/a", "/own/b", "/two/c", "/quiet/d", "/silent/e", "/if/f?a=1"):
        assert server.get(path).status == 404
    assert server.get("/g", index=1).status == 404
    server.expect_log(MISSING % "deny/a", name="logs/http.log")
    server.expect_log(MISSING % "own/b", name="logs/own.log")
    server.expect_log(MISSING % "two/c", name="logs/own.log")
    server.expect_log(MISSING % "two/c", name="logs/warn.log")
    server.expect_log(MISSING % "if/f", name="logs/http.log")
    server.expect_log(MISSING % "g", name="logs/server.log")
    assert server.expect_log(r'\[warn\] .*using uninitialized "unset_here" variable', name="logs/warn.log")
    server.stop()
    http = [line for line in server.log_lines("logs/http.log") if "open()" in line]
    assert [re.findall(r"html/(\w+)/", line) for line in http] == [["deny"], ["if"]]
    assert len(server.log_lines("logs/own.log")) == 2  # no warning of the request that has two
    assert server.log_lines("logs/quiet.log") == []
    assert not server.matching(r"\*")  # nothing of requests in the main log


def test_line(either: Factory) -> None:
    server = either(CONF)
    headers = {"Host": "Other:80", "Referer": "http://from/"}
    server.get("/deny/x?y=1", headers)
    line = server.expect_log("open", name="logs/http.log")[0]
    pid = server.workers()[0]
    assert re.fullmatch(
        rf"20\d\d/\d\d/\d\d \d\d:\d\d:\d\d \[error\] {pid}#{pid}: \*1 "
        rf'open\(\) "{server.prefix}/html/deny/x" failed \(2: No such file or directory\), '
        r'client: 127.0.0.1, server: main.example, request: "GET /deny/x\?y=1 HTTP/1.1", host: "Other:80", '
        r'referrer: "http://from/"',
        line,
    )


def test_level_of_the_main_log(either: Factory) -> None:
    server = either(
        """http {
            server { listen 127.0.0.1:%%PORT_0%%; location / { root %%DIR%%/html; } }
        }""",
        level="crit",
    )
    assert server.get("/x").status == 404
    server.stop()
    assert not server.matching("open")
