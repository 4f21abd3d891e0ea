"""`if`: its conditions, what runs inside, and which location a request is in afterwards."""

from collections.abc import Callable

import pytest

from tests.harness import Server

Factory = Callable[..., Server]

CONF = """
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        set $at "server";
        if ($arg_server = ret) { return 403; }
        if ($arg_server = set) { set $at "if in server"; }
        if ($arg_server = go) { rewrite ^ /gone-to; }

        location / { return 200 "$at"; }
        location /gone-to { return 200 "gone to"; }

        location /true { if ($arg_a) { return 200 yes; } return 200 no; }
        location /eq { if ($arg_a = "b c") { return 200 yes; } return 200 no; }
        location /ne { if ($arg_a != b) { return 200 yes; } return 200 no; }
        location /eq-var { if ($arg_a = "x$arg_b") { return 200 yes; } return 200 no; }
        location /spaced { if ( $arg_a = b ) { return 200 yes; } return 200 no; }
        location /re { if ($arg_a ~ "^x(.*)y$") { return 200 "yes $1"; } return 200 no; }
        location /re-i { if ($arg_a ~* abc) { return 200 yes; } return 200 no; }
        location /not-re { if ($arg_a !~ abc) { return 200 yes; } return 200 no; }
        location /not-re-i { if ($arg_a !~* ^(a)bc) { return 200 yes; } return 200 "no $1"; }
        location /named { if ($arg_a ~ "(?<digits>[0-9]+)") { } return 200 "[$digits]"; }
        location /forget { if ($arg_a ~ "(x)") { set $got $1; } if ($arg_a ~ "(z)") { } return 200 "$got[$1]"; }

        location /f { if (-f %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /not-f { if (!-f %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /d { if (-d %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /not-d { if (!-d %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /e { if (-e %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /not-e { if (!-e %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /x { if (-x %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }
        location /not-x { if (!-x %%DIR%%/html/$arg_p) { return 200 yes; } return 200 no; }

        location /several {
            set $v a;
            if ($arg_x) { set $v "${v}x"; }
            if ($arg_y) { set $v "${v}y"; break; }
            set $v "${v}z";
            add_header V $v;
        }
        location /inherits {
            add_header A outer;
            default_type text/outer;
            if ($arg_q) { add_header B inner; }
            if ($arg_r) { set $r 1; }
        }
        location /method { if ($request_method = POST) { return 405; } return 200 ok; }
        location /rewritten { if ($arg_a) { rewrite ^ /gone-to last; } return 200 stayed; }
        location /error { error_page 404 /gone-to; if ($arg_a) { error_page 404 =200 /true?a=1; } return 404; }
        location /root { if ($arg_a) { root %%DIR%%/other; } }
    }
}
"""
FILES = {
    "html/file": "",
    "html/dir/x": "",
    "html/root/f": "outer",
    "other/root/f": "inner",
    "html/several": "",
    "html/inherits": "",
}


@pytest.fixture
def server(either: Factory) -> Server:
    return either(CONF, files=FILES)


ANSWERS = [
    ("/", b"server"), ("/?server=set", b"if in server"), ("/?server=go", b"gone to"),
    ("/true", b"no"), ("/true?a=", b"no"), ("/true?a=0", b"no"), ("/true?a=1", b"yes"), ("/true?a=00", b"yes"),
    ("/eq?a=b%20c", b"no"), ("/eq", b"no"), ("/ne?a=b", b"no"), ("/ne?a=c", b"yes"), ("/ne", b"yes"),
    ("/eq-var?a=xb&b=b", b"yes"), ("/eq-var?a=x", b"yes"), ("/eq-var", b"no"),
    ("/spaced?a=b", b"yes"), ("/spaced", b"no"),
    ("/re?a=x1y", b"yes 1"), ("/re?a=x1", b"no"), ("/re", b"no"), ("/re-i?a=xABc", b"yes"), ("/re-i", b"no"),
    ("/not-re?a=abc", b"no"), ("/not-re?a=ABC", b"yes"), ("/not-re", b"yes"),
    ("/not-re-i?a=ABC", b"no A"), ("/not-re-i?a=b", b"yes"),
    ("/named?a=x12y", b"[12]"), ("/named?a=x", b"[]"), ("/forget?a=x", b"x[]"),
    ("/f?p=file", b"yes"), ("/f?p=dir", b"no"), ("/f?p=none", b"no"), ("/f?p=file/x", b"no"),
    ("/not-f?p=file", b"no"), ("/not-f?p=dir", b"yes"), ("/not-f?p=none", b"yes"),
    ("/d?p=file", b"no"), ("/d?p=dir", b"yes"), ("/d?p=none", b"no"),
    ("/not-d?p=dir", b"no"), ("/not-d?p=none", b"yes"),
    ("/e?p=file", b"yes"), ("/e?p=dir", b"yes"), ("/e?p=none", b"no"),
    ("/not-e?p=file", b"no"), ("/not-e?p=none", b"yes"),
    ("/x?p=file", b"no"), ("/x?p=dir", b"yes"), ("/x?p=none", b"no"),
    ("/not-x?p=file", b"yes"), ("/not-x?p=none", b"yes"),
    ("/method", b"ok"), ("/rewritten?a=1", b"gone to"), ("/rewritten", b"stayed"),
    ("/error", b"gone to"), ("/error?a=1", b"yes"),
    ("/root/f", b"outer"), ("/root/f?a=1", b"inner"),
]  # fmt: skip


def test_answers(server: Server) -> None:
    for path, body in ANSWERS:
        assert server.get(path).body == body, path


def test_statuses(server: Server) -> None:
    assert server.get("/?server=ret").status == 403
    assert server.request("POST", "/method").status == 405
    assert server.get("/error").status == 404
    assert server.get("/error?a=1").status == 200


def test_rules_go_on_after_the_block(server: Server) -> None:
    assert server.get("/several").header("v") == "az"
    assert server.get("/several?x=1").header("v") == "axz"
    assert server.get("/several?x=1&y=1").header("v") == "axy"


def test_location_of_the_block(server: Server) -> None:
    plain = server.get("/inherits")
    assert (plain.header("a"), plain.header("b"), plain.header("content-type")) == ("outer", None, "text/outer")
    inner = server.get("/inherits?q=1")
    assert (inner.header("a"), inner.header("b"), inner.header("content-type")) == (None, "inner", "text/outer")
    assert server.get("/inherits?r=1").header("a") == "outer"
    last = server.get("/inherits?q=1&r=1")  # the last block that holds is the location
    assert (last.header("a"), last.header("b")) == ("outer", None)
