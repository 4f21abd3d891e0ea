"""Host names against certificates: what OpenSSL's X509_check_host() says, for the same names."""

from __future__ import annotations

import pytest
from headgate.worker.tls.names import matches


def cert(*names: str, common: str = "common.test") -> dict[str, object]:
    subject = ((("commonName", common),),)
    return {"subject": subject, **({"subjectAltName": tuple(("DNS", name) for name in names)} if names else {})}


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        ("a.test", "a.test", True),
        ("A.Test", "a.tEST", True),
        ("a.test", "b.test", False),
        ("a.test", "a.test.evil", False),
        ("*.a.test", "x.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "x.y.a.test", False),
        ("*.a.test", ".a.test", False),
        ("f*.a.test", "foo.a.test", True),
        ("f*.a.test", "f.a.test", False),
        ("*f.a.test", "of.a.test", True),
        ("f*.a.test", "goo.a.test", False),
        ("*.test", "a.test", False),  # one label behind the star is too wide
        ("*", "a", False),
        ("x.*.test", "x.y.test", False),
        ("*.*.test", "x.y.test", False),
        ("**.a.test", "xy.a.test", False),
        ("xn--*.a.test", "xn--q.a.test", False),
        ("f*.a.test", "xn--f.a.test", False),
        ("*.a.test", "x_y.a.test", False),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_one_name(name: str, host: str, expected: bool) -> None:
    assert matches(cert(name), host) is expected


def test_the_common_name_counts_only_without_others() -> None:
    assert matches(cert(), "common.test")
    assert not matches(cert("a.test"), "common.test")


def test_addresses_are_no_names() -> None:
    certificate = {"subject": (), "subjectAltName": (("IP Address", "127.0.0.1"),)}
    assert not matches(certificate, "127.0.0.1")


@pytest.mark.parametrize("certificate", [{}, cert("a.test")])
def test_nothing_matches_an_empty_name(certificate: dict[str, object]) -> None:
    assert not matches(certificate, "")
