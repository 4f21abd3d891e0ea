"""DNS messages (sans-IO, over dnspython's wire code): a question to bytes, bytes to a checked answer.

RFC 1035, RFC 2782. Of an answer all addresses count, whichever of a chain's names they stand for; `cname` is the last
alias in it and matters only where there are none.
"""

import secrets
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

A = int(dns.rdatatype.A)
AAAA = int(dns.rdatatype.AAAA)
SRV = int(dns.rdatatype.SRV)
_CNAME, _DNAME = int(dns.rdatatype.CNAME), int(dns.rdatatype.DNAME)
for _kind in (A, AAAA, SRV, _CNAME, _DNAME):
    # dnspython loads their code when it is first needed; a worker without privileges might not be able to
    dns.rdata.get_rdata_class(dns.rdataclass.IN, dns.rdatatype.RdataType(_kind))  # type: ignore[no-untyped-call]

FORMERR, NXDOMAIN, REFUSED, TIMED_OUT = 1, 3, 5, 110
TEXTS = {
    FORMERR: "Format error",
    2: "Server failure",
    NXDOMAIN: "Host not found",
    4: "Unimplemented",
    REFUSED: "Operation refused",
    TIMED_OUT: "Operation timed out",
}
_MAX_TTL = 0x7FFFFFFF


class WireError(Exception):
    """A name cannot be asked for, or a message is none that answers a question; the text is for the log."""


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record."""

    priority: int
    weight: int
    port: int
    name: str


@dataclass(slots=True)
class Answer:
    """A response: `code` is its RCODE; `ttl` in seconds, the least of all records."""

    ident: int
    name: str  # of the question, lower case, no dot at the end
    kind: int
    code: int
    truncated: bool
    empty: bool = True
    ttl: int = _MAX_TTL
    addresses: list[str] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    cname: str | None = None
    odd: list[str] = field(default_factory=list)  # what else was in it, for the log


def question(name: str, kind: int) -> tuple[int, bytes]:
    """A random id and the query's bytes. Raises WireError when no DNS name can be `name`."""
    ident = secrets.randbelow(1 << 16)
    try:
        message = dns.message.make_query(
            dns.name.from_text(name), dns.rdatatype.RdataType(kind), use_edns=False, id=ident
        )
        return ident, message.to_wire()
    except (dns.exception.DNSException, UnicodeError, ValueError) as error:
        raise WireError(f'invalid name "{name}": {error}') from None


def parse(data: bytes) -> Answer:
    """The answer in a datagram or TCP message. Raises WireError."""
    try:
        message = dns.message.from_wire(data, one_rr_per_rrset=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise WireError(f"invalid DNS response: {error or type(error).__name__}") from None
    flags = int(message.flags)
    if not flags & dns.flags.QR or message.opcode() != 0:
        raise WireError(f"invalid DNS response {message.id} fl:{flags:04X}")
    code = int(message.rcode())
    truncated = bool(flags & dns.flags.TC)
    if code == FORMERR and not message.question:
        return Answer(message.id, "", 0, code, truncated)
    if len(message.question) != 1:
        raise WireError("invalid number of questions in DNS response")
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN:
        raise WireError(f"unknown query class {int(asked.rdclass)} in DNS response")
    answer = Answer(message.id, _text(asked.name), int(asked.rdtype), code, truncated)
    answer.empty = not message.answer
    for rrset in message.answer:
        _take(answer, rrset)
    answer.services.sort(key=lambda service: service.priority)
    return answer


def _take(answer: Answer, rrset: "dns.rrset.RRset") -> None:
    kind = int(rrset.rdtype)
    if rrset.rdclass != dns.rdataclass.IN:
        raise WireError(f"unexpected RR class {int(rrset.rdclass)} in DNS response")
    answer.ttl = min(answer.ttl, max(int(rrset.ttl), 0))
    if kind in (A, AAAA):
        if kind != answer.kind:
            raise WireError(f"unexpected {dns.rdatatype.to_text(rrset.rdtype)} record in DNS response")
        answer.addresses += [record.address for record in rrset]
    elif kind == SRV and answer.kind == SRV:
        # a weight of 0 means hardly ever: the least weight there is
        answer.services += [Service(r.priority, r.weight or 1, r.port, _text(r.target)) for r in rrset]
    elif kind == _CNAME:
        answer.cname = _text(rrset[-1].target)
    elif kind != _DNAME:
        answer.odd.append(f"unexpected RR type {kind} in DNS response")


def _text(name: dns.name.Name) -> str:
    return str(name.to_text(omit_final_dot=True)).lower()
