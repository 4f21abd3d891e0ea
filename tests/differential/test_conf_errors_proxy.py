"""Broken proxy_* directives: headgate's error text is nginx's, as in test_conf_errors.py.

The cases are what stands in a location, or in the http block.
"""

from pathlib import Path

import pytest

from tests.differential.test_conf_errors import headgate_says, nginx_says

REWRITES = ["proxy_redirect", "proxy_cookie_domain", "proxy_cookie_path", "proxy_cookie_flags"]

CASES = [
    *(f"{name};" for name in REWRITES),
    *(f"{name} on;" for name in REWRITES),
    *(f"{name} a b c d e;" for name in REWRITES),
    *(f"{name} off; {name} off;" for name in REWRITES),
    *(f"{name} off; {name} a secure;" for name in REWRITES),
    *(f"{name} a secure; {name} off;" for name in REWRITES),
    *(f"{name} ~( secure;" for name in REWRITES),
    *(f"{name} a $nosuch;" for name in REWRITES),
    "set $memcached_key a; memcached_pass 127.0.0.1;",
    "set $memcached_key a; memcached_pass localhost;",
    "set $memcached_key a; memcached_pass 127.0.0.1:0;",
    "set $memcached_key a; memcached_pass nosuch.invalid:1;",
    "proxy_redirect default;",
    "proxy_redirect default; proxy_pass http://127.0.0.1:1;",
    "proxy_pass http://$host; proxy_redirect default;",
    "proxy_redirect a b c;",
    "proxy_hide_header;",
    "proxy_hide_header a b;",
    "proxy_pass_header;",
    "proxy_ignore_headers;",
    "proxy_ignore_headers Nonsense;",
    "proxy_intercept_errors;",
    "proxy_intercept_errors yes;",
    "proxy_intercept_errors on; proxy_intercept_errors on;",
    "proxy_force_ranges 1;",
    "proxy_limit_rate;",
    "proxy_limit_rate x;",
    "proxy_limit_rate 1; proxy_limit_rate 1;",
    "limit_rate x;",
    "limit_rate $nosuch;",
    "limit_rate 1 2;",
    "limit_rate_after 1x;",
    "proxy_pass_request_headers 1;",
    "proxy_pass_request_body 1;",
    "proxy_method;",
    "proxy_method a b;",
    "proxy_method $nosuch;",
    "proxy_set_body;",
    "proxy_set_body $nosuch;",
    "proxy_set_header A;",
    "proxy_set_header A $nosuch;",
    "proxy_http_version 3;",
    "proxy_http_version 1.1; proxy_http_version 1.1;",
    "proxy_buffer_size x;",
    "if ($host) { proxy_hide_header A; }",
    "if ($host) { proxy_redirect off; }",
    "proxy_bind;",
    "proxy_bind nonsense;",
    "proxy_bind 127.0.0.1 opaque;",
    "proxy_bind 127.0.0.1 transparent more;",
    "proxy_bind off; proxy_bind 127.0.0.1;",
    "proxy_bind $nosuch;",
    "proxy_store;",
    "proxy_store on; proxy_store off;",
    "proxy_store $nosuch;",
    "proxy_store_access user:x;",
    "proxy_store_access user;",
    "proxy_store_access other:rw;",
    "proxy_buffers 8;",
    "proxy_buffers 0 4k;",
    "proxy_buffers 8 0;",
    "proxy_buffers 1 4k;",
    "proxy_buffers x 4k;",
    "proxy_buffers 8 4x;",
    "proxy_busy_buffers_size 1k;",
    "proxy_busy_buffers_size 1m;",
    "proxy_temp_file_write_size 1k;",
    "proxy_max_temp_file_size 1k;",
    "proxy_max_temp_file_size x;",
    "proxy_temp_path;",
    "proxy_temp_path a 1 2 3 4;",
    "proxy_temp_path a x;",
    "proxy_next_upstream;",
    "proxy_next_upstream nonsense;",
    "proxy_next_upstream_tries x;",
    "proxy_next_upstream_timeout x;",
    "proxy_next_upstream_tries 1; proxy_next_upstream_tries 2;",
    "proxy_connect_timeout 1x;",
    "proxy_read_timeout;",
    "proxy_send_timeout -1;",
    "proxy_buffering yes;",
    "proxy_request_buffering 1;",
    "proxy_socket_keepalive 1;",
    "proxy_ignore_client_abort 2;",
    "proxy_ssl_verify 1;",
    "proxy_ssl_verify_depth x;",
    "proxy_ssl_protocols SSLv9;",
    "proxy_ssl_ciphers;",
    "proxy_ssl_session_reuse no;",
    "proxy_ssl_name $nosuch;",
    "proxy_ssl_server_name yes;",
    "proxy_ssl_conf_command a;",
    "proxy_ssl_password_file /nonexistent;",
    "proxy_pass;",
    "proxy_pass 127.0.0.1;",
    "proxy_pass ftp://127.0.0.1;",
    "proxy_pass http://;",
    "proxy_pass http:///x;",
    "proxy_pass http://:80/x;",
    "proxy_pass http://127.0.0.1:x/y;",
    "proxy_pass http://127.0.0.1:0/y;",
    "proxy_pass http://127.0.0.1:99999;",
    "proxy_pass http://[::1/x;",
    "proxy_pass http://unix:;",
    "proxy_pass http://nosuch.invalid/x;",
    "proxy_pass http://nosuch.invalid:80/x;",
    "proxy_pass http://127.0.0.1:1; proxy_pass http://127.0.0.1:1;",
    "proxy_pass http://$nosuch;",
    "if ($host) { proxy_pass http://127.0.0.1:1/x; }",
    "limit_except GET { proxy_pass http://127.0.0.1:1/x; }",
    "resolver;",
    "resolver x y=;",
    "resolver 127.0.0.1 valid=x;",
    "resolver 127.0.0.1 ipv6=x;",
    "resolver 127.0.0.1; resolver 127.0.0.1;",
    "resolver nosuch.invalid;",
    "resolver 127.0.0.1:x;",
    "resolver_timeout x;",
    "keepalive 5;",
]

# what stands in the http block
BLOCKS = [
    *(
        f"upstream u {{ {text} }}"
        for text in (
            "",
            "server;",
            "server 127.0.0.1:x;",
            "server http://a;",
            "server nosuch.invalid:80;",
            "server unix:;",
            "server 127.0.0.1 weight=0;",
            "server 127.0.0.1 max_fails=x;",
            "server 127.0.0.1 fail_timeout=x;",
            "server 127.0.0.1 max_conns=x;",
            "server 127.0.0.1 nonsense;",
            "server 127.0.0.1 backup;",
            "server 127.0.0.1; keepalive;",
            "server 127.0.0.1; keepalive x;",
            "server 127.0.0.1; keepalive 1; keepalive 2;",
            "server 127.0.0.1; keepalive_requests x;",
            "server 127.0.0.1; keepalive_timeout x;",
            "server 127.0.0.1; keepalive_time x;",
            "server 127.0.0.1; zone;",
            "server 127.0.0.1; zone z 1;",
            "server 127.0.0.1; proxy_pass http://a;",
        )
    ),
    "upstream u { server 127.0.0.1; } upstream u { server 127.0.0.1; }",
    "upstream u { server 127.0.0.1; } server { location / { proxy_pass http://u:80; } }",
    "upstream u:80 { server 127.0.0.1; } server { location / { proxy_pass http://u; } }",
    "server { location ~ x { proxy_pass http://127.0.0.1:1/x; } }",
    "server { location @x { proxy_pass http://127.0.0.1:1/x; } }",
    "server { proxy_pass http://127.0.0.1:1; }",
]


def same(text: str, directory: Path) -> None:
    path = directory / "nginx.conf"
    path.write_text(text)
    (directory / "logs").mkdir()
    expected = nginx_says(path)
    assert expected, "nginx accepts this configuration"
    assert headgate_says(path) == expected


@pytest.mark.parametrize("text", CASES)
def test_in_a_location(text: str, tmp_path: Path) -> None:
    same(f"events {{ }}\nhttp {{\nserver {{ listen 127.0.0.1:18999; location / {{\n{text}\n}} }} }}\n", tmp_path)


@pytest.mark.parametrize("text", BLOCKS)
def test_in_http(text: str, tmp_path: Path) -> None:
    same(f"events {{ }}\nhttp {{\n{text}\n}}\n", tmp_path)
