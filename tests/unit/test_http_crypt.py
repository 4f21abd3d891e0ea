"""Passwords in all their forms; the hashes were made by `openssl passwd` and by crypt(3)."""

import pytest
from headgate.worker.http.crypt import CryptError, is_slow, verify

HASHES = [
    b"$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0",
    b"$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    b"$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    b"$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
    b"$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
    b"saHW9GdxihkGQ",
    b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    b"{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0",
    b"{PLAIN}secret",
]


@pytest.mark.parametrize("stored", HASHES)
def test_the_right_password_and_others(stored: bytes) -> None:
    assert verify(b"secret", stored)
    assert not verify(b"Secret", stored)
    assert not verify(b"", stored)
    assert not verify(b"secre", stored)


def test_a_long_password_and_a_short_salt() -> None:
    stored = b"$apr1$ab$aPXNdsX0wq8N/LJdZEZgW1"
    assert verify(b"a much longer password than sixteen", stored)
    assert not verify(b"a much longer password than sixteem", stored)


def test_a_password_ends_at_a_nul_as_in_c() -> None:
    assert verify(b"secret\0more", b"{PLAIN}secret")


@pytest.mark.parametrize("stored", [b"{SSHA}", b"{SSHA}!", b"{SHA}", b"$apr1$", b"{SSHA}c2hvcnQ="])
def test_broken_forms_fit_no_password(stored: bytes) -> None:
    assert not verify(b"secret", stored)


@pytest.mark.parametrize("stored", [b"$9$x$y", b"!", b"*"])
def test_forms_that_crypt_does_not_know(stored: bytes) -> None:
    with pytest.raises(CryptError):
        verify(b"secret", stored)


def test_which_are_slow() -> None:
    assert [stored[:4] for stored in HASHES if is_slow(stored)] == [b"$5$s", b"$6$s", b"$2y$"]
