"""httpdate: the formats that nginx reads, and everything that http_date writes."""

from __future__ import annotations

import pytest
from headgate.worker.http import httpdate
from headgate.worker.http.output import http_date
from hypothesis import given
from hypothesis import strategies as st

THEN = 784111777


@pytest.mark.parametrize(
    "text",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun,06 Nov 1994 08:49:37",
        b", 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov 06 08:49:37 1994",
    ],
)
def test_the_three_formats(text: bytes) -> None:
    assert httpdate.parse(text) == THEN


@pytest.mark.parametrize(
    ("text", "year"), [(b"Sun, 01-Jan-69 00:00:00 GMT", 2069), (b"Thu, 01-Jan-70 00:00:00 GMT", 1970)]
)
def test_two_digits_of_a_year(text: bytes, year: int) -> None:
    assert httpdate.parse(text) == httpdate.parse(b"x, 01 Jan %d 00:00:00 GMT" % year)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"junk",
        b"0",
        b"Sun, 06 Nov 1994",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 29 Feb 1900 08:49:37 GMT",
        b"Sun, 29 Feb 2023 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:60 GMT",
        b"1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_date(text: bytes) -> None:
    assert httpdate.parse(text) is None


def test_leap_days() -> None:
    assert httpdate.parse(b"Tue, 29 Feb 2000 00:00:00 GMT") == 951782400


@given(st.integers(0, 253402300799))
def test_what_we_write_we_read(seconds: int) -> None:
    assert httpdate.parse(http_date(seconds)) == seconds


@given(st.binary(max_size=60))
def test_nothing_breaks_it(text: bytes) -> None:
    assert isinstance(httpdate.parse(text), int | None)
