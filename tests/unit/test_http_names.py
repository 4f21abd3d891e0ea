"""Host names and masks: which one is found, which are refused."""

import pytest
from headgate.worker.http.names import Names


def names(*texts: bytes) -> Names[bytes]:
    out: Names[bytes] = Names()
    for text in texts:
        out.add(text, text)
    return out


ALL = names(b"a.com", b"*.a.com", b"*.b.a.com", b"mail.*", b"www.mail.*", b".both.org", b"", b"single")


@pytest.mark.parametrize(
    "name, found",
    [
        (b"a.com", b"a.com"), (b"x.a.com", b"*.a.com"), (b"x.y.a.com", b"*.a.com"), (b"b.a.com", b"*.a.com"),
        (b"x.b.a.com", b"*.b.a.com"), (b"xa.com", None), (b"mail.ru", b"mail.*"), (b"mail.a.ru", b"mail.*"),
        (b"www.mail.ru", b"www.mail.*"), (b"mail", None), (b"xmail.ru", None), (b"mail.a.com", b"*.a.com"),
        (b"both.org", b".both.org"), (b"x.both.org", b".both.org"), (b"", b""), (b"single", b"single"), (b"com", None),
    ],
)  # fmt: skip
def test_find(name: bytes, found: bytes | None) -> None:
    assert ALL.find(name) == found


@pytest.mark.parametrize("name", [b"*", b"*a", b"a*", b"a.*.b", b"*.a.*", b"**.a", b"a..b", b"*.", b".*", b"a\0"])
def test_refused(name: bytes) -> None:
    with pytest.raises(ValueError):
        names(name)


def test_upper_case_is_folded() -> None:
    assert names(b"*.A.Com").find(b"x.a.com") == b"*.A.Com"


def test_first_of_a_name_stays() -> None:
    table: Names[int] = Names()
    assert table.add(b".a", 1)
    assert not table.add(b"a", 2)
    assert not table.add(b"*.a", 3)
    assert (table.find(b"a"), table.find(b"x.a")) == (1, 1)
