"""Core variables: of the request, the connection, the response, the process."""

import os
import re
import socket
import time
from collections.abc import Callable

import pytest

from tests.client import Client
from tests.harness import Server

Factory = Callable[..., Server]


def conf(text: str, http: str = "", server: str = "") -> str:
    """A server that answers every request with `text`."""
    return f"""http {{ {http}
        server {{
            listen 127.0.0.1:%%PORT_0%%;
            server_name main.example other.example;
            {server}
            location / {{ return 200 "{text}"; }}
        }}
    }}"""


def test_request_line(either: Factory) -> None:
    names = "request request_method request_uri uri document_uri args query_string is_args server_protocol"
    server = either(conf("|".join(f"${name}" for name in names.split())))
    assert server.get("/a%20b/../c?x=1&y").text == (
        "GET /a%20b/../c?x=1&y HTTP/1.1|GET|/a%20b/../c?x=1&y|/c|/c|x=1&y|x=1&y|?|HTTP/1.1"
    )
    assert server.get("/").text == "GET / HTTP/1.1|GET|/|/|/||||HTTP/1.1"
    with server.client() as client:
        client.send("PUT /x HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        assert client.response().text == "PUT /x HTTP/1.0|PUT|/x|/x|/x||||HTTP/1.0"


def test_host(either: Factory) -> None:
    server = either(conf("$host|$http_host|$server_name|$hostname"))
    name = socket.gethostname().lower()
    assert server.get("/", {"Host": "Main.Example:81"}).text == f"main.example|Main.Example:81|main.example|{name}"
    assert server.get("/", {"Host": "unknown."}).text == f"unknown|unknown.|main.example|{name}"
    with server.client() as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        assert client.response().text == f"main.example||main.example|{name}"
    with server.client() as client:
        client.send("GET http://abs.example:82/ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        assert client.response().text == f"abs.example|b|main.example|{name}"


def test_port_of_the_request(headgate: Factory) -> None:
    server = headgate(conf("$request_port|$is_request_port"))
    assert server.get("/", {"Host": "a:81"}).text == "81|:"
    assert server.get("/", {"Host": "[::1]:82"}).text == "82|:"
    assert server.get("/", {"Host": "a"}).text == "|"
    with server.client() as client:
        client.send("GET http://b:83/ HTTP/1.1\r\nHost: a:81\r\nConnection: close\r\n\r\n")
        assert client.response().text == "83|:"


def test_fields(either: Factory) -> None:
    server = either(
        conf("$http_x_one|$http_X_ONE|$http_none|$http_referer|$http_user_agent|$content_type|$content_length")
    )
    headers = {"X-One": "1", "Referer": "r", "User-Agent": "ua", "Content-Type": "a/b"}
    assert server.request("POST", "/", headers, b"body").text == "1|1||r|ua|a/b|4"
    assert server.get("/").text == "||||||"


def test_repeated_fields(headgate: Factory) -> None:
    server = headgate(conf("$http_x|$http_cookie|$http_x_forwarded_for"))
    headers = [
        ("X", "1"),
        ("x", "2"),
        ("Cookie", "a=1"),
        ("cookie", "b=2"),
        ("X-Forwarded-For", "p"),
        ("X-Forwarded-For", "q"),
    ]
    assert server.get("/", headers).text == "1, 2|a=1; b=2|p, q"


def test_arguments(either: Factory) -> None:
    server = either(conf("$arg_a|$arg_B|$arg_long_name|$arg_none"))
    assert server.get("/?a=1&b=2&long_name=%20").text == "1|2|%20|"
    assert server.get("/?xa=0&A=1&a=2&b=&").text == "1|||"
    assert server.get("/?a&b==&none").text == "|=||"
    assert server.get("/").text == "|||"


def test_cookies(either: Factory) -> None:
    server = either(conf("$cookie_a|$cookie_B"))
    assert server.get("/", {"Cookie": "a=1; b=2"}).text == "1|2"
    assert server.get("/", {"Cookie": "aa=0;A=1;  b = 2 ;b=3"}).text == "1|2 "
    assert server.get("/", {"Cookie": "a; b"}).text == "|"
    assert server.get("/", [("Cookie", "x=1"), ("Cookie", "b=3")]).text == "|3"
    assert server.get("/").text == "|"


@pytest.mark.parametrize(
    "credentials, user",
    [
        ("Basic YWI6Yw==", "ab"),
        ("basic YWI6Yw", "ab"),
        ("Basic OnB3", ""),
        ("Basic YWI=", ""),
        ("Bearer x", ""),
        ("Basic ?", ""),
    ],
)
def test_remote_user(headgate: Factory, credentials: str, user: str) -> None:
    server = headgate(conf("[$remote_user]"))
    assert server.get("/", {"Authorization": credentials}).text == f"[{user}]"


def test_connection(either: Factory) -> None:
    names = "remote_addr remote_port server_addr server_port scheme https connection_requests pipe"
    server = either(conf("|".join(f"${name}" for name in names.split())))
    with server.client() as client:
        text = f"127.0.0.1|{client.local_port}|127.0.0.1|{server.port()}|http||"
        assert client.get("/").text == text + "1|."
        assert client.get("/").text == text + "2|."
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        assert [client.response().text for _ in range(2)] == [text + "3|.", text + "4|p"]


def test_connection_number(either: Factory) -> None:
    server = either(conf("$connection"))
    with server.client() as one, server.client() as two:
        assert one.get("/").text == one.get("/").text
        assert int(two.get("/").text) > int(one.get("/").text)


def test_ipv6(either: Factory) -> None:
    server = either(conf("$remote_addr|$server_addr|$binary_remote_addr", server="listen [::1]:%%PORT_0%%;"))
    with Client(server.port(), "::1") as client:
        assert client.get("/").body == b"::1|::1|" + socket.inet_pton(socket.AF_INET6, "::1")
    assert server.get("/").body == b"127.0.0.1|127.0.0.1|\x7f\0\0\1"


def test_unix_socket(either: Factory) -> None:
    text = "$remote_addr|$remote_port|$server_addr|$server_port|$binary_remote_addr|$tcpinfo_rtt"
    server = either(conf(text, server="listen unix:%%DIR%%/s;"))
    with Client(path=str(server.prefix / "s")) as client:
        assert client.get("/").text == f"unix:||unix:{server.prefix}/s||unix:|"


def test_tcp_info(either: Factory) -> None:
    server = either(conf("$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space"))
    values = [int(value) for value in server.get("/").text.split()]
    assert len(values) == 4 and values[2] > 0 and values[3] > 0


def test_process(headgate: Factory) -> None:
    server = headgate(conf("$pid|$nginx_version"))
    assert server.get("/").text == f"{server.workers()[0]}|1.31.5"


def test_time(either: Factory) -> None:
    server = either(conf("$msec|$time_local|$time_iso8601"), env={"TZ": "IST-5:30"})
    msec, local, iso = server.get("/").text.split("|")
    assert abs(float(msec) - time.time()) < 10 and re.fullmatch(r"\d+\.\d{3}", msec)
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/20\d\d:\d\d:\d\d:\d\d \+0530", local)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+05:30", iso)
    moment = time.mktime(time.strptime(iso[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert abs(moment - 19800 - time.time()) < 10


def test_request_time(either: Factory) -> None:
    server = either(conf("$request_time $connection_time"))
    with server.client() as client:
        client.send("GET / HTTP/1.1\r\nHost: a\r\n")
        assert client.silent(0.1)
        client.send("\r\n")
        request, connection = client.response().text.split()
    assert re.fullmatch(r"\d+\.\d{3}", request)
    assert 0.05 <= float(request) <= float(connection) + 0.01


def test_request_id(either: Factory) -> None:
    server = either(conf("$request_id $request_id"))
    first, second = (server.get("/").text.split() for _ in range(2))
    assert first[0] == first[1] and first[0] != second[0]
    assert re.fullmatch(r"[0-9a-f]{32}", first[0])


def test_files(either: Factory) -> None:
    server = either(
        """http {
            server {
                listen 127.0.0.1:%%PORT_0%%;
                location / { return 200 "$document_root|$request_filename"; }
                location /r { root %%DIR%%/link; return 200 "$document_root|$realpath_root|$request_filename"; }
                location /a/ { alias %%DIR%%/other/; return 200 "$document_root|$request_filename"; }
                location /v { root %%DIR%%/$arg_d; return 200 "$document_root|$request_filename"; }
                location /gone { root %%DIR%%/gone; return 200 "[$realpath_root]"; }
            }
        }""",
        files={"other/x": ""},
        start=False,
    )
    (server.prefix / "link").symlink_to("other")
    server.start()
    here = server.prefix
    assert server.get("/x").text == f"{here}/html|{here}/html/x"
    assert server.get("/r/x").text == f"{here}/link|{here}/other|{here}/link/r/x"
    assert server.get("/a/x").text == f"{here}/other/|{here}/other/x"
    assert server.get("/v/x?d=other").text == f"{here}/other|{here}/other/v/x"
    server.allow(r"realpath\(\) .*/gone\" failed \(2: No such file or directory\)")
    assert server.get("/gone").text == "[]"


RESPONSE = """http {
    log_format after "$status|$bytes_sent|$body_bytes_sent|$sent_http_content_type|$sent_http_content_length|\
$sent_http_location|$sent_http_x_a|$request_completion|$request_length";
    log_format kept "$sent_http_connection|$sent_http_keep_alive";
    server {
        listen 127.0.0.1:%%PORT_0%%;
        access_log logs/after.log after;
        access_log logs/kept.log kept;
        keepalive_timeout 75 20;
        location /text { add_header X-A b; return 200 "hello"; }
        location /redirect { absolute_redirect off; return 301 /to; }
        location /close { return 444; }
    }
}"""


def test_response(either: Factory) -> None:
    server = either(RESPONSE)
    with server.client() as client:
        text = client.get("/text")
        redirect = client.request("GET", "/redirect", {"Connection": "close"})
    with server.client() as client:
        client.send("GET /close HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_all()
    lines = server.access_log(3, name="logs/after.log")
    head = len(text.raw) - 5
    assert lines[0] == f"200|{head + 5}|5|text/plain|5|-|b|OK|{len('GET /text HTTP/1.1') + 21}"
    size = len(redirect.body)
    assert lines[1].startswith(f"301|{len(redirect.raw)}|{size}|text/html|{size}|/to|-|OK|")
    assert lines[2].startswith("444|0|0|-|-|-|-||")
    if not server.is_nginx:  # which has forgotten that the connection is kept when it logs
        assert server.access_log(3, name="logs/kept.log") == ["keep-alive|timeout=20", "close|-", "close|-"]


def test_request_body(either: Factory, backend: Callable[..., object]) -> None:
    upstream = backend()
    server = either(
        f"""http {{
            log_format body "$request_body|$request_length";
            log_format file "$request_body_file";
            server {{
                listen 127.0.0.1:%%PORT_0%%;
                client_body_buffer_size 1k;
                access_log logs/body.log body;
                access_log logs/file.log file;
                location / {{ proxy_pass http://127.0.0.1:{upstream.port}; }}
            }}
        }}"""  # type: ignore[attr-defined]
    )
    server.request("POST", "/", body=b"a body")
    server.request("POST", "/", {"Transfer-Encoding": "chunked"}, b"3\r\nabc\r\n0\r\n\r\n")
    server.request("POST", "/", body=b"x" * 5000)
    server.get("/")
    bodies = [line.split("|") for line in server.access_log(4, name="logs/body.log")]
    assert [body for body, _ in bodies] == ["a body", "abc", "-", "-"]
    head = len("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert [int(length) for _, length in bodies] == [
        head + len("Content-Length: 6\r\n") + 6,
        head + len("Transfer-Encoding: chunked\r\n") + 13,
        head + len("Content-Length: 5000\r\n") + 5000,
        head - 1,
    ]
    files = server.access_log(4, name="logs/file.log")
    assert files[0] == files[1] == files[3] == "-"
    assert files[2].startswith(os.path.join(str(server.prefix), "temp_client_body", ""))
