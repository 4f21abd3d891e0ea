"""docs/directives.md is what scripts/directives makes of the declarations, its links and defaults are right; the
examples of docs/scripting.md have types that a checker, so an editor too, can follow."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from headgate.conf.modules import registry

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs/directives.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts/directives.py"))


def test_the_list_of_directives_is_up_to_date(script: dict[str, Any]) -> None:
    assert DOC.read_text() == script["render"](), "run scripts/directives"


def test_every_directive_is_in_the_list() -> None:
    text = DOC.read_text()
    assert [name for name, each in registry().commands.items() if text.count(f"\n| `{name}` |") != len(each)] == []


def test_the_files_it_links_to_exist() -> None:
    links = {line.rpartition("(../")[2].partition(")")[0] for line in DOC.read_text().splitlines() if "(../" in line}
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize(
    "row",
    [
        "| `worker_processes` | main | 1 | `1` |",
        "| `worker_shutdown_timeout` | main | 1 | `0` |",
        "| `large_client_header_buffers` | http, server | 2 | `4 8k` |",
        "| `keepalive_timeout` | http, server, location | 1 or 2 | `75s` |",
        "| `keepalive_timeout` | upstream | 1 | `60s` |",
        "| `proxy_max_temp_file_size` | http, server, location | 1 | `1g` |",
        "| `proxy_next_upstream` | http, server, location | 1 or more | `error timeout` |",
        "| `satisfy` | http, server, location | 1 | `all` |",
        "| `py_blocking_limit` | http | 1 | `100ms` |",
        "| `limit_except` | location | 1 or more, block |  |",
        "| `if` | server, location | 1 or more, block |  |",
        "| `set` | server, location, if in server, if in location | 2 |  |",
        "| `events` | main | block |  |",
    ],
)
def test_a_row(row: str) -> None:
    assert f"\n{row}" in DOC.read_text()


def test_the_examples_of_scripting_have_types(tmp_path: Path) -> None:
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / "docs/scripting.md").read_text(), re.S)):
        (tmp_path / f"example{number}.py").write_text(code)
    for part in ("conf", "masterd", "shm", "worker"):  # the names of an installation, as PEP 561 wants them
        (tmp_path / "path/headgate").mkdir(parents=True, exist_ok=True)
        (tmp_path / "path/headgate" / part).symlink_to(ROOT / part)
        assert (ROOT / part / "py.typed").exists()
    files = sorted(map(str, tmp_path.glob("*.py")))
    argv = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), *files]
    env = {**os.environ, "MYPYPATH": str(tmp_path / "path")}
    found = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert (found.returncode, len(files)) == (0, 5), found.stdout
