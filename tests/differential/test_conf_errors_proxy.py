"""Broken proxy_* directives: headgate's error text is nginx's, as in test_conf_errors.py.

Each case is what stands in a location.
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
]


@pytest.mark.parametrize("text", CASES)
def test_same_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(f"events {{ }}\nhttp {{\nserver {{ listen 127.0.0.1:18999; location / {{\n{text}\n}} }} }}\n")
    (tmp_path / "logs").mkdir()
    expected = nginx_says(path)
    assert expected, "nginx accepts this configuration"
    assert headgate_says(path) == expected
