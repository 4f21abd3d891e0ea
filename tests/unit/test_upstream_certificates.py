"""The cache of certificates that variables name."""

from __future__ import annotations

from pathlib import Path

import pytest
from headgate.worker.tls.context import ContextError
from headgate.worker.upstream import certificates
from headgate.worker.upstream.certificates import CertificateCache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(certificates.time, "monotonic", lambda: now[0])
    return now


def put(path: Path, text: str) -> str:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)
    return str(path)


def test_kept_while_valid_and_read_again_when_changed(tmp_path: Path, clock: list[float]) -> None:
    cache = CertificateCache(4, inactive=1000, valid=60)
    path = put(tmp_path / "a", "one")
    assert cache.get(path, "certificate").data == b"one"
    put(tmp_path / "a", "two")
    clock[0] += 60
    assert cache.get(path, "certificate").data == b"one"
    clock[0] += 1
    assert cache.get(path, "certificate").data == b"two"
    (tmp_path / "a").unlink()
    clock[0] += 60
    assert cache.get(path, "certificate").data == b"two"
    clock[0] += 1
    with pytest.raises(ContextError, match="No such file"):
        cache.get(path, "certificate")


def test_the_least_recently_used_goes(tmp_path: Path, clock: list[float]) -> None:
    cache = CertificateCache(2, inactive=1000, valid=1000)
    paths = {name: put(tmp_path / name, name) for name in "abc"}
    for name in "abac":
        cache.get(paths[name], "certificate")
    for name in "abc":
        put(tmp_path / name, "new")
    assert [cache.get(paths[name], "certificate").data for name in "ac"] == [b"a", b"c"]
    assert cache.get(paths["b"], "certificate").data == b"new"


def test_the_inactive_goes(tmp_path: Path, clock: list[float]) -> None:
    cache = CertificateCache(4, inactive=10, valid=1000)
    path, other = put(tmp_path / "a", "one"), put(tmp_path / "b", "two")
    cache.get(path, "certificate")
    put(tmp_path / "a", "new")
    clock[0] += 11
    cache.get(other, "certificate")
    assert cache.get(path, "certificate").data == b"new"


def test_keys_with_a_password_are_not_kept(tmp_path: Path, clock: list[float]) -> None:
    cache = CertificateCache(4, inactive=1000, valid=1000)
    path = put(tmp_path / "k", "-----BEGIN ENCRYPTED PRIVATE KEY-----")
    cache.get(path, "certificate key")
    put(tmp_path / "k", "other")
    assert cache.get(path, "certificate key").data == b"other"


def test_fresh_passes_the_cache_by(tmp_path: Path, clock: list[float]) -> None:
    cache = CertificateCache(4, inactive=1000, valid=1000)
    path = put(tmp_path / "a", "one")
    cache.get(path, "certificate")
    put(tmp_path / "a", "two")
    assert cache.get(path, "certificate", fresh=True).data == b"two"
    assert cache.get(path, "certificate").data == b"two"
