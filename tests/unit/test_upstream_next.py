"""The rule that decides whether another peer is tried: the whole matrix, and what each kind of failure means."""

from itertools import product

import pytest
from headgate.shm.peers import FAILED, NEXT
from headgate.worker.upstream.errors import BY_STATUS, PEER_STATE, STATUS, WORDS, Kind
from headgate.worker.upstream.next import decide

FAILURES = [kind for kind in Kind if kind not in (Kind.NON_IDEMPOTENT, Kind.OFF)]
METHODS = {b"GET": True, b"HEAD": True, b"PUT": True, b"DELETE": True, b"POST": False, b"LOCK": False, b"PATCH": False}
BOTH = (False, True)

# What must be so for a retry, as nginx documents proxy_next_upstream: a row for each reason to give up.
REASONS = {
    "the kind is not listed": lambda c: not c["listed"],
    "no peer is left": lambda c: c["left"] == 0 and not (c["cached"] and c["kind"] is Kind.ERROR),
    "the request was sent and may not be repeated": lambda c: c["sent"] and not c["repeatable"] and not c["also"],
    "the body has gone by": lambda c: c["sent"] and c["streamed"],
    "the time is over": lambda c: c["late"],
}


def cases() -> list[dict[str, object]]:
    names = ("kind", "listed", "also", "method", "sent", "left", "cached", "streamed", "late")
    rows = product(FAILURES, BOTH, BOTH, METHODS, BOTH, (0, 1, 5), BOTH, BOTH, BOTH)
    return [dict(zip(names, row, strict=True), repeatable=METHODS[row[3]]) for row in rows]


def run(case: dict[str, object]) -> bool:
    """`decide`, with a `proxy_next_upstream` that lists the case's kind (or all others), and non_idempotent or not."""
    kind = case["kind"]
    assert isinstance(kind, Kind)
    others = Kind(0)
    for each in FAILURES:
        if each is not kind and each is not Kind.NO_LIVE:
            others |= each
    listed = kind if case["listed"] else others
    if case["also"]:
        listed |= Kind.NON_IDEMPOTENT
    return decide(
        kind,
        listed,
        left=case["left"],  # type: ignore[arg-type]
        method=case["method"],  # type: ignore[arg-type]
        sent=bool(case["sent"]),
        streamed=bool(case["streamed"]),
        cached=bool(case["cached"]),
        late=bool(case["late"]),
    )


def test_every_case_is_retried_unless_there_is_a_reason_not_to() -> None:
    seen = {False: 0, True: 0}
    for case in cases():
        why = [reason for reason, holds in REASONS.items() if holds(case)]
        assert run(case) is not bool(why), f"{case}: {why}"
        seen[not why] += 1
    assert seen[True] > 500 and seen[False] > 5000


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_alone_is_enough_to_give_up(reason: str) -> None:
    alone = [case for case in cases() if [why for why, holds in REASONS.items() if holds(case)] == [reason]]
    assert alone
    assert not any(run(case) for case in alone)


def test_nothing_is_retried_when_nothing_is_listed() -> None:
    for kind in FAILURES:
        assert not decide(kind, Kind(0), left=5, method=b"GET", sent=False, streamed=False, cached=True, late=False)


# kind: status that the client gets when it was the last try, whether the peer is blamed
MEANING = {
    Kind.ERROR: (502, FAILED),
    Kind.TIMEOUT: (504, FAILED),
    Kind.INVALID_HEADER: (502, FAILED),
    Kind.HTTP_500: (500, FAILED),
    Kind.HTTP_502: (502, FAILED),
    Kind.HTTP_503: (503, FAILED),
    Kind.HTTP_504: (504, FAILED),
    Kind.HTTP_403: (403, NEXT),
    Kind.HTTP_404: (404, NEXT),
    Kind.HTTP_429: (429, FAILED),
    Kind.NO_LIVE: (502, FAILED),
}


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.name.lower())
def test_what_a_kind_means(kind: Kind) -> None:
    assert (STATUS[kind], PEER_STATE[kind]) == MEANING[kind]


def test_statuses_that_another_peer_may_better() -> None:
    assert {status: kind.name for status, kind in BY_STATUS.items()} == {
        status: f"HTTP_{status}" for status in (500, 502, 503, 504, 403, 404, 429)
    }


def test_words_of_the_directive() -> None:
    words = (
        "error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429 non_idempotent off"
    )
    assert sorted(WORDS) == sorted(words.split())
