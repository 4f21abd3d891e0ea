"""proxy_intercept_errors decided: over plain stand-ins for the configuration."""

from types import SimpleNamespace
from typing import Any

import pytest
from headgate.worker.upstream.header import ResponseHead
from headgate.worker.upstream.intercept import intercept


def upstream(on: bool, pages: set[int], always_404: bool) -> Any:
    page = SimpleNamespace(page=lambda status: True if status in pages else None)
    request = SimpleNamespace(location=SimpleNamespace(get=lambda kind: page), fields=[])
    return SimpleNamespace(request=request, conf=SimpleNamespace(intercept_errors=on, INTERCEPT_404=always_404))


@pytest.mark.parametrize(
    ("on", "pages", "always_404", "status", "expected"),
    [
        (False, {404, 500}, False, 404, None),
        (True, {404, 500}, False, 404, 404),
        (True, {500}, False, 404, None),
        (True, set(), False, 500, None),
        (False, set(), True, 404, 404),
        (False, {500}, True, 500, None),
    ],
)
def test_which(on: bool, pages: set[int], always_404: bool, status: int, expected: int | None) -> None:
    assert intercept(upstream(on, pages, always_404), ResponseHead(status, b"", 11, [])) == expected


def test_401_takes_its_challenges_along() -> None:
    fields = [(b"www-authenticate", b"a"), (b"X-A", b"b"), (b"WWW-Authenticate", b"c")]
    u = upstream(True, {401}, False)
    assert intercept(u, ResponseHead(401, b"", 11, fields)) == 401
    assert u.request.fields == [(b"WWW-Authenticate", b"a"), (b"WWW-Authenticate", b"c")]
