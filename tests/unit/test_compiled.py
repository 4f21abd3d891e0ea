"""What was compiled in place runs only while its sources are what was compiled."""

import hashlib
from pathlib import Path

import pytest
from headgate.worker.compiled import check


@pytest.fixture
def stamp(tmp_path: Path) -> Path:
    """The list that a build in place leaves, of one module."""
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "hot.py").write_text("x = 1\n")
    digest = hashlib.sha256(b"x = 1\n").hexdigest()
    path = tmp_path / "worker" / "compiled.txt"
    path.write_text(f"{digest} worker/hot.py\n")
    return path


def test_an_unchanged_source_runs(stamp: Path) -> None:
    check(stamp)


def test_a_changed_source_is_refused_by_name(stamp: Path) -> None:
    stamp.with_name("hot.py").write_text("x = 2\n")
    with pytest.raises(ImportError, match=r"worker/hot\.py has changed since it was compiled"):
        check(stamp)


def test_without_a_list_nothing_was_compiled_in_place(tmp_path: Path) -> None:
    check(tmp_path / "compiled.txt")
