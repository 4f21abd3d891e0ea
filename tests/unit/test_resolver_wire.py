"""DNS messages: questions as RFC 1035 has them, answers checked; nothing that comes breaks the reader."""

from __future__ import annotations

import random

import dns.message
import dns.rrset
import pytest
from headgate.worker.resolver import wire
from headgate.worker.resolver.wire import AAAA, SRV, A, WireError, parse, question


def reply(name: str, kind: str, *records: tuple[str, str, str], ttl: int = 60) -> dns.message.Message:
    out = dns.message.make_response(dns.message.make_query(name, kind, use_edns=False))
    out.answer = [dns.rrset.from_text(owner, ttl, "IN", type_, text) for owner, type_, text in records]
    return out


def test_a_question_is_one_query_with_a_random_id() -> None:
    ident, data = question("a.example", A)
    assert data == ident.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0\1a\7example\0\0\1\0\1"
    assert len({question("a.example", AAAA)[0] for _ in range(50)}) > 40


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test", ".".join(["a" * 63] * 4), "\udcff.test"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(WireError):
        question(name, A)


def test_addresses_and_the_least_ttl() -> None:
    message = reply("A.test.", "A", ("a.test.", "CNAME", "b.test."), ("b.test.", "A", "192.0.2.1"))
    message.answer[1].ttl = 7
    message.answer.append(dns.rrset.from_text("b.test.", 9, "IN", "A", "192.0.2.2"))
    answer = parse(message.to_wire())
    assert (answer.name, answer.kind, answer.code, answer.ident) == ("a.test", A, 0, message.id)
    assert (answer.addresses, answer.ttl, answer.cname) == (["192.0.2.1", "192.0.2.2"], 7, "b.test")


def test_an_alias_alone() -> None:
    answer = parse(reply("a.test.", "AAAA", ("a.test.", "CNAME", "B.test.")).to_wire())
    assert (answer.addresses, answer.cname, answer.empty) == ([], "b.test", False)


def test_services_in_order_of_priority_and_twice_when_twice() -> None:
    one, two = ("s.test.", "SRV", "20 0 80 b.test."), ("s.test.", "SRV", "10 5 81 a.test.")
    services = parse(reply("s.test.", "SRV", one, two, two).to_wire()).services
    assert [(each.priority, each.weight, each.port, each.name) for each in services] == [
        (10, 5, 81, "a.test"),
        (10, 5, 81, "a.test"),
        (20, 1, 80, "b.test"),  # a weight of 0 is the least there is
    ]


def test_codes_and_emptiness() -> None:
    message = reply("a.test.", "A")
    assert parse(message.to_wire()).empty
    message.set_rcode(3)
    assert parse(message.to_wire()).code == wire.NXDOMAIN


def test_truncated() -> None:
    message = reply("a.test.", "A")
    message.flags |= dns.flags.TC
    assert parse(message.to_wire()).truncated


def test_other_records_are_told_of() -> None:
    answer = parse(reply("a.test.", "A", ("a.test.", "TXT", '"x"'), ("a.test.", "A", "192.0.2.1")).to_wire())
    assert answer.addresses == ["192.0.2.1"]
    assert answer.odd == ["unexpected RR type 16 in DNS response"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (dns.message.make_query("a.test.", "A"), "invalid DNS response"),
        (reply("a.test.", "A", ("a.test.", "AAAA", "::1")), "unexpected AAAA record"),
    ],
)
def test_what_is_no_answer(message: dns.message.Message, text: str) -> None:
    with pytest.raises(WireError, match=text):
        parse(message.to_wire())


def test_broken_bytes_raise_one_error_only() -> None:
    whole = reply("s.test.", "SRV", ("s.test.", "SRV", "1 1 80 a.test."), ("s.test.", "CNAME", "b.test.")).to_wire()
    chance = random.Random(7)
    broken = [whole[:n] for n in range(len(whole))] + [b"", b"\0" * 12, b"\xff" * 64, b"\xc0\x0c" * 40]
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        broken.append(bytes(data))
    for data in broken:
        try:
            answer = parse(data)
        except WireError:
            continue
        assert answer.kind in (A, AAAA, SRV, 0) or answer.kind < 1 << 16
