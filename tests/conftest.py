"""Fixtures: `headgate` and `nginx` are factories of running servers, `backend` of fake HTTP backends.

See harness.py and backends.py for what they make; the end of the test stops everything and checks the error logs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Backend
from tests.harness import NGINX, Ports, Server

Factory = Callable[..., Any]


def _servers(binary: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def factory(conf: str, *, start: bool = True, **options: Any) -> Server:
        server = Server(conf, tmp_path / f"{binary}-{len(made)}", binary, **options)
        made.append(server)
        return server.start() if start else server

    yield factory
    errors = []
    for server in made:
        try:
            server.finish()
        except AssertionError as error:
            errors.append(str(error))
        server.ports.release()
    assert not errors, "\n".join(errors)


@pytest.fixture
def headgate(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`headgate(conf, start=True, **Server's options)` -> a running headgate."""
    yield from _servers("headgate", tmp_path)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`nginx(conf, ...)` -> a running nginx with the same configuration."""
    if shutil.which(NGINX) is None:
        pytest.skip("nginx is not installed")
    yield from _servers("nginx", tmp_path)


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    """`backend(handler, **Backend's options)` -> a running fake backend."""
    made: list[Backend] = []

    def factory(*args: Any, **options: Any) -> Backend:
        made.append(Backend(*args, **options))
        return made[-1]

    yield factory
    for each in made:
        each.stop()
    errors = [error for each in made for error in each.errors]
    assert not errors, f"a backend's handler failed: {errors}"


@pytest.fixture
def free_port() -> int:
    """A port below the ephemeral range that was free a moment ago."""
    ports = Ports()
    number = ports[0]
    ports.release()
    return number


@pytest.fixture(params=["headgate", "nginx"])
def either(request: pytest.FixtureRequest) -> Callable[..., Server]:
    """`headgate`, and in a second run `nginx`: for what both must do alike."""
    factory: Callable[..., Server] = request.getfixturevalue(request.param)
    return factory
