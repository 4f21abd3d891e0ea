"""`proxy_redirect`: Location and Refresh of an upstream server, as the client should see them.

Rules are tried in order, the first that fits counts: a text in front is replaced, a regular expression replaces
the whole. Without a directive the URL of proxy_pass becomes the location's name (`default`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from headgate.conf.directive import Call
from headgate.conf.template import Template, fsencode
from headgate.worker.http.directives import regex

if TYPE_CHECKING:
    from headgate.worker.http.request import Request
    from headgate.worker.proxy.target import Pass

# (request, value) -> the new value, or None when the rule does not fit
Rule = Callable[["Request", bytes], bytes | None]
OFF: Rule | None = None  # the one entry of a list that `off` has made


def rewrite(r: "Request", rules: tuple[Rule, ...], value: bytes) -> bytes:
    """What the first rule that fits makes of `value`; `value` itself when none does."""
    for rule in rules:
        new = rule(r, value)
        if new is not None:
            return new
    return value


def front(pattern: Template, replacement: Template) -> Rule:
    """Replace a text that the value begins with."""

    def rule(r: "Request", value: bytes) -> bytes | None:
        text = pattern.get(r)
        return replacement.get(r) + value[len(text) :] if value.startswith(text) else None

    return rule


def pattern(call: Call, text: str, replacement: Template, caseless: bool) -> Rule:
    """Replace the whole value when a regular expression matches it."""
    compiled = regex(call, text, caseless)

    def rule(r: "Request", value: bytes) -> bytes | None:
        match = compiled.search(value)
        if match is None:
            return None
        compiled.capture(r, match)
        return replacement.get(r)

    return rule


def front_or_pattern(call: Call) -> Rule:
    """`TEXT|~REGEX|~*REGEX REPLACEMENT`."""
    text, replacement = call.args[0], call.template(call.args[1])
    if text.startswith("~"):
        caseless = text.startswith("~*")
        return pattern(call, text[2 if caseless else 1 :], replacement, caseless)
    return front(call.template(text), replacement)


def off(call: Call, others: list[Rule | None]) -> bool:
    """Whether this directive is `off`, which can only stand alone; `others` are those of the same block."""
    is_off = call.args == ["off"]
    if others and (is_off or others[0] is OFF):
        raise call.error("is duplicate")
    return is_off


def redirect(call: Call, others: list[Rule | None], pass_: "Pass | None") -> Rule | None:
    """Parse one proxy_redirect."""
    if off(call, others):
        return OFF
    if len(call.args) == 2:
        return front_or_pattern(call)
    if call.args[0] != "default":
        raise call.error_at(f'invalid parameter "{call.args[0]}"')
    if pass_ is None:
        raise call.error_at('"proxy_redirect default" should be placed after the "proxy_pass" directive')
    rule = default(pass_)
    if rule is None:
        reason = '"proxy_redirect default" cannot be used with "proxy_pass" directive with variables'
        raise call.error_at(reason)
    return rule


def default(pass_: "Pass") -> Rule | None:
    """The rule that undoes what proxy_pass does to a URI; None where variables leave that open."""
    target = pass_.target
    if target is None:
        return None
    url = fsencode(pass_.template.source)
    text, replacement = (url, pass_.prefix) if target.uri else (url + b"/", b"/")

    def rule(r: "Request", value: bytes) -> bytes | None:
        return replacement + value[len(text) :] if value.startswith(text) else None

    return rule
