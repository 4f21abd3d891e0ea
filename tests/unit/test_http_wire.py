"""`wire` splits usual heads, and says of them exactly what httptools and the readers say."""

from __future__ import annotations

import pytest
from headgate.worker.http.head import BadRequest, parse_head
from headgate.worker.http.wire import join_head, split_request, split_response
from headgate.worker.proxy.reader import parse_response
from hypothesis import example, given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from([b"Host", b"X-A", b"x-forwarded-for", b"Accept", b"Cookie", b"1", b"-", b"X_A", b"X A", b""])
VALUE = st.binary(max_size=12) | st.sampled_from([b"a", b" a", b"a b \t", b"", b"\xff", b"a\r\n b", b"\x7f", b"a\tb"])
LINE_END = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n"])
FIELDS = st.lists(st.tuples(NAMES, VALUE, LINE_END), max_size=4)
METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"get", b"FOO", b""])
TARGETS = st.sampled_from([b"/", b"/a?b=%20", b"*", b"http://a/", b"/a b", b"/\xc3", b"", b"/" + b"a" * 300])
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 4 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.11", b""])


def _lines(fields: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return b"".join(name + b": " + value + end for name, value, end in fields)


@settings(max_examples=400)
@given(METHODS, TARGETS, VERSIONS, FIELDS, st.sampled_from([b"\r\n", b"\n", b""]), st.binary(max_size=4))
@example(b"GET", b"/", b"HTTP/1.1", [(b"Host", b"a", b"\r\n")], b"\r\n", b"GET / HTTP/1.1\r\n\r\n")
def test_a_request_is_split_as_httptools_splits_it(
    method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes, bytes]], end: bytes, more: bytes
) -> None:
    head = method + b" " + target + b" " + version + b"\r\n" + _lines(fields) + end
    found = split_request(head + more)
    if found is None:
        return
    taken, *split = found
    try:
        parsed = parse_head((head + more)[:taken])
    except BadRequest as error:  # by what the fields mean
        assert "duplicate" in error.reason, error
        return
    assert split == [parsed.method, parsed.target, parsed.version, parsed.headers]


@settings(max_examples=400)
@given(
    st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.2 ", b"HTTP/1.1"]),
    st.sampled_from(
        [b"200 OK", b"404 Not Found", b"101 x", b"099 x", b"20 OK", b"200 ", b"200", b"200 \x01", b"500 \xff"]
    ),
    FIELDS,
    st.sampled_from([b"\r\n", b"\n", b""]),
    st.binary(max_size=4),
)
def test_a_response_is_split_as_httptools_splits_it(
    version: bytes, status: bytes, fields: list[tuple[bytes, bytes, bytes]], end: bytes, body: bytes
) -> None:
    data = version + status + b"\r\n" + _lines(fields) + end + body
    found = split_response(data)
    if found is None:
        return
    taken, *split = found
    parsed = parse_response(data)
    assert parsed is not None
    head, end_of_head = parsed
    assert (taken, split) == (end_of_head, [head.status, head.reason, head.version, head.fields])


def test_the_usual_request_is_usual() -> None:
    head = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Spaced: \t b c \t\r\n\r\n"
    fields = [(b"Host", b"a"), (b"X-Empty", b""), (b"X-Spaced", b"b c")]
    assert split_request(head + b"more") == (len(head), b"GET", b"/a?b", 11, fields)


def test_the_usual_response_is_usual() -> None:
    head = b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    assert split_response(head + b"more") == (len(head), 404, b"404 Not Found", 10, [(b"Content-Length", b"0")])


@pytest.mark.parametrize("split", [split_request, split_response])
def test_a_head_cut_short_anywhere_is_not_there_yet(split: object) -> None:
    assert callable(split)
    head = {split_request: b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", split_response: b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"}[
        split
    ]
    assert [split(head[:size]) for size in range(len(head))] == [None] * len(head)


def test_names_are_kept_by_spelling() -> None:
    """Many names that share a place are still told apart."""
    names = [b"X-%d" % number for number in range(3000)] * 2
    head = b"GET / HTTP/1.1\r\n" + b"".join(name + b": 1\r\n" for name in names) + b"\r\n"
    found = split_request(head)
    assert found is not None and [name for name, _ in found[4]] == names


def test_a_head_is_put_together() -> None:
    assert join_head(b"A", [], []) == b"A\r\n\r\n"
    assert join_head(b"A", [b"B: c"], [(b"D", b"e"), (b"F", b"")]) == b"A\r\nB: c\r\nD: e\r\nF: \r\n\r\n"
    with pytest.raises(TypeError):
        join_head(b"A", [], [("D", "e")])  # type: ignore[list-item]
