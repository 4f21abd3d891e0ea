"""open_log_file_cache: which files stay open."""

import os
from pathlib import Path

import pytest
from headgate.worker.http.log_cache import LogCache


def kept(cache: LogCache) -> list[str]:
    return [os.fsdecode(path)[-1] for path, entry in cache.entries.items() if entry.file is not None]


def write(cache: LogCache, folder: Path, names: str) -> None:
    for name in names:
        cache.write(os.fsencode(folder / name), b"line\n")


def test_the_longest_unused_of_too_many_is_closed(tmp_path: Path) -> None:
    cache = LogCache(most=2)
    write(cache, tmp_path, "abac")
    assert kept(cache) == ["a", "c"]
    assert (tmp_path / "a").read_text() == "line\n" * 2


def test_a_file_stays_open_once_it_was_used_often_enough(tmp_path: Path) -> None:
    cache = LogCache(most=5, min_uses=3)
    write(cache, tmp_path, "aab")
    assert kept(cache) == []
    write(cache, tmp_path, "ab")
    assert kept(cache) == ["a"]


def test_what_is_not_used_is_closed(tmp_path: Path) -> None:
    cache = LogCache(most=5, inactive=0)
    write(cache, tmp_path, "ab")
    assert kept(cache) == ["b"]


def test_a_file_that_cannot_be_opened_closes_no_other(tmp_path: Path) -> None:
    cache = LogCache(most=1)
    write(cache, tmp_path, "a")
    with pytest.raises(FileNotFoundError):
        write(cache, tmp_path / "nothere", "b")
    (tmp_path / "a").unlink()
    write(cache, tmp_path, "a")
    assert kept(cache) == ["a"]
    assert not (tmp_path / "a").exists(), "nobody looks at the name meanwhile"


@pytest.mark.parametrize("gone", [True, False])
def test_a_name_is_looked_at_again(tmp_path: Path, gone: bool) -> None:
    cache = LogCache(most=1, valid=0)
    write(cache, tmp_path, "a")
    (tmp_path / "a").rename(tmp_path / "old")
    if not gone:
        (tmp_path / "a").write_text("")
    write(cache, tmp_path, "aa")
    assert ((tmp_path / "a").read_text(), (tmp_path / "old").read_text()) == ("line\n" * 2, "line\n")
