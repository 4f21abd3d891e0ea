"""The replacing of texts does not depend on how the body is cut into pieces."""

from types import SimpleNamespace
from typing import Any

from headgate.worker.http.sub_filter import _Substitute, _Text
from hypothesis import given
from hypothesis import strategies as st


def replaced(pieces: list[bytes], texts: list[bytes], once: bool) -> bytes:
    values = [SimpleNamespace(get=lambda r, n=n: b"<%d>" % n) for n in range(len(texts))]
    request: Any = None
    substitute = _Substitute(request, [_Text(t, v) for t, v in zip(texts, values, strict=True)], once)  # type: ignore[arg-type]
    out: list[bytes] = []
    substitute.push = lambda data, last: out.append(data)
    for piece in pieces:
        substitute(piece, False)
    substitute(b"", True)
    return b"".join(out)


def simply(body: bytes, texts: list[bytes], once: bool) -> bytes:
    """At each place the first text that fits, letter by letter."""
    left = dict(enumerate(texts))
    out, at = b"", 0
    while at < len(body):
        found = next((n for n, text in left.items() if body[at : at + len(text)].lower() == text), None)
        if found is None:
            out += body[at : at + 1]
            at += 1
        else:
            out += b"<%d>" % found
            at += len(left[found])
            if once:
                del left[found]
    return out


_TEXT = st.text("abAB", min_size=1, max_size=5).map(lambda text: text.lower().encode())
_PIECES = st.lists(st.text("abABc", max_size=7).map(str.encode), max_size=8)


@given(_PIECES, st.lists(_TEXT, min_size=1, max_size=4), st.booleans())
def test_pieces_make_no_difference(pieces: list[bytes], texts: list[bytes], once: bool) -> None:
    assert replaced(pieces, texts, once) == simply(b"".join(pieces), texts, once)


def test_no_more_than_a_beginning_is_kept() -> None:
    request: Any = None
    template: Any = SimpleNamespace(get=lambda r: b"X")
    substitute = _Substitute(request, [_Text(b"needle", template)], False)
    out: list[bytes] = []
    substitute.push = lambda data, last: out.append(data)
    substitute(b"hay needle hay nee", False)
    assert b"".join(out) == b"hay X hay "
    substitute(b"d", False)
    substitute(b"y", False)
    assert b"".join(out) == b"hay X hay needy"
