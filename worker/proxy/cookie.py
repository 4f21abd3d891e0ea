"""`proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: Set-Cookie as the client should see it.

A cookie is taken apart only where one of the three is set, and put together anew only when something changed
(nginx: ngx_http_proxy_rewrite_cookie).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.conf.template import Template
from headgate.worker.http.directives import regex
from headgate.worker.http.regex import Regex
from headgate.worker.proxy.redirect import OFF, Rule, front_or_pattern, off, pattern, rewrite

if TYPE_CHECKING:
    from headgate.worker.http.request import Request

Attribute = tuple[bytes, bytes | None]  # name and value; the first one is the cookie itself

# what a flag does: the attribute it is about, and its new value (None: none, _REMOVE: it goes)
_REMOVE = b"\0"
_FLAGS: dict[bytes, tuple[bytes, bytes | None]] = {
    b"secure": (b"Secure", None),
    b"nosecure": (b"Secure", _REMOVE),
    b"httponly": (b"HttpOnly", None),
    b"nohttponly": (b"HttpOnly", _REMOVE),
    b"samesite=strict": (b"SameSite", b"Strict"),
    b"samesite=lax": (b"SameSite", b"Lax"),
    b"samesite=none": (b"SameSite", b"None"),
    b"nosamesite": (b"SameSite", _REMOVE),
}


@dataclass(slots=True, frozen=True)
class Flags:
    """One proxy_cookie_flags: which cookie, and the flags it gets."""

    name: Template | Regex
    flags: list[Template]

    def fit(self, r: "Request", name: bytes) -> bool:
        if isinstance(self.name, Regex):
            return self.name.test(r, name, log=False)
        return self.name.get(r).lower() == name.lower()

    def wanted(self, r: "Request") -> dict[bytes, tuple[bytes, bytes | None]]:
        """By lower-case attribute name, in the order in which nginx adds them; of contradictions nginx's first."""
        told = {flag.get(r).lower() for flag in self.flags}
        out: dict[bytes, tuple[bytes, bytes | None]] = {}
        for word, (name, value) in _FLAGS.items():
            if word in told:
                out.setdefault(name.lower(), (name, value))
        return out


def domain(call: Call, others: list[Rule | None]) -> Rule | None:
    """Parse one proxy_cookie_domain: a leading dot counts in neither text, and the cookie keeps its own."""
    if off(call, others):
        return OFF
    _two(call)
    text, new = call.args
    if text.startswith("~"):
        return pattern(call, text[1:], call.template(new), caseless=True)
    wanted, replacement = call.template(text.removeprefix(".")), call.template(new.removeprefix("."))

    def rule(r: "Request", value: bytes) -> bytes | None:
        dot = value[:1] if value.startswith(b".") else b""
        if value[len(dot) :].lower() != wanted.get(r).lower():
            return None
        return dot + replacement.get(r)

    return rule


def path(call: Call, others: list[Rule | None]) -> Rule | None:
    """Parse one proxy_cookie_path."""
    if off(call, others):
        return OFF
    _two(call)
    return front_or_pattern(call)


def _two(call: Call) -> None:
    if len(call.args) == 1:
        raise call.error_at(f'invalid parameter "{call.args[0]}"')


def flags(call: Call, others: "list[Flags | None]") -> Flags | None:
    """Parse one proxy_cookie_flags."""
    is_off = call.args == ["off"]
    if others and (is_off or others[0] is None):
        raise call.error("is duplicate")
    if is_off:
        return None
    _two(call)
    text = call.args[0]
    name = regex(call, text[1:], caseless=True) if text.startswith("~") else call.template(text)
    return Flags(name, [call.template(flag) for flag in call.args[1:]])


class Cookies:
    """What a location does to cookies."""

    __slots__ = ("_domains", "_flags", "_paths")

    def __init__(self, domains: list[Rule | None], paths: list[Rule | None], flags: "list[Flags | None]") -> None:
        self._domains = tuple(rule for rule in domains if rule is not None)
        self._paths = tuple(rule for rule in paths if rule is not None)
        self._flags = [each for each in flags if each is not None]

    def __bool__(self) -> bool:
        return bool(self._domains or self._paths or self._flags)

    def rewrite(self, r: "Request", cookie: bytes) -> bytes:
        """A Set-Cookie value, changed or not."""
        attributes = [_attribute(part) for part in cookie.split(b";")]
        first = attributes[0]
        if first[1] is None:  # no cookie
            return cookie
        new = [first, *(self._value(r, each) for each in attributes[1:])]
        changed = any(one is not other for one, other in zip(new, attributes, strict=True))
        for each in self._flags:
            if each.fit(r, first[0]):
                wanted = each.wanted(r)
                if wanted:
                    new, changed = _with_flags(new, wanted), True
                break
        if not changed:
            return cookie
        return b"; ".join(name if value is None else name + b"=" + value for name, value in new)

    def _value(self, r: "Request", attribute: Attribute) -> Attribute:
        name, value = attribute
        low = name.lower()
        rules = self._domains if low == b"domain" else self._paths if low == b"path" else ()
        if value is None or not rules:
            return attribute
        new = rewrite(r, rules, value)
        return attribute if new is value else (name, new)


def _attribute(part: bytes) -> Attribute:
    name, equals, value = part.partition(b"=")
    return name.strip(b" "), value.strip(b" ") if equals else None


def _with_flags(attributes: list[Attribute], wanted: dict[bytes, tuple[bytes, bytes | None]]) -> list[Attribute]:
    """Change the attributes that are there, remove them, or add them at the end."""
    out = attributes[:1]
    left = dict(wanted)
    for name, value in attributes[1:]:
        low = name.lower()
        new = wanted.get(low)
        if new is None:
            out.append((name, value))
            continue
        left.pop(low, None)
        if new[1] is _REMOVE:
            continue
        same = new[1] is None or (value is not None and value.lower() == new[1].lower())
        out.append((name, value) if same else new)
    return out + [new for new in left.values() if new[1] is not _REMOVE]
