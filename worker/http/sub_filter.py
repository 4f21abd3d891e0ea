"""`sub_filter`: texts in a response's body replaced by others (nginx: ngx_http_sub_filter_module).

Texts are looked for in any case of ASCII letters. At each place the first directive that fits wins; what it puts there
is not looked at again. The filter keeps back no more than what may be the beginning of a text.
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Call, Conf, Ctx, directive
from headgate.conf.template import Template
from headgate.worker.http import mime, validators
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import BodyFilter
from headgate.worker.http.mime import Types

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request

_MOST = 255
Pair = tuple[Template, Template]  # the text, and what takes its place


def _pair(call: Call) -> Pair:
    text, value = call.args
    if not text:
        raise call.error_at("empty search pattern")
    if len(vars(call.conf(SubFilterConf)).get("pairs", ())) == _MOST:
        raise call.error_at(f"number of search patterns exceeds {_MOST}")
    return call.template(text), call.template(value)


class SubFilterConf(Conf, level=Ctx.LOCATION):
    """The replacements of a location."""

    pairs: list[Pair] = directive("sub_filter", HSL, "2", _pair, many=True)
    once: bool = directive("sub_filter_once", HSL, "flag", slots.flag, default=True)
    last_modified: bool = directive("sub_filter_last_modified", HSL, "flag", slots.flag, default=False)
    type_lines: list[list[bytes]] = directive("sub_filter_types", HSL, "1+", mime.words, many=True)
    types: Types

    def finish(self, scope: "Scope") -> None:
        self.types = mime.types(self.type_lines)

    def attach(self, node: Location) -> None:
        if self.pairs:
            node.filters += (sub_filter,)


def sub_filter(r: "Request") -> None:
    """The header filter."""
    conf = r.location.get(SubFilterConf)
    if r.content_length == 0 or not mime.matches(r, conf.types):
        return
    texts = [(text.get(r).lower(), value) for text, value in conf.pairs]
    wanted = [_Text(text, value) for text, value in texts if text]
    if not wanted:
        return
    r.add_body_filter(_Substitute(r, wanted, conf.once))
    if r.parent is not None:
        return
    r.content_length = None
    if conf.last_modified:
        validators.weaken_etag(r)
    else:
        validators.drop_last_modified(r)
        validators.drop_etag(r)


class _Text:
    """A text to look for, in lower case. `at`: where it is next in what is being looked through, -1: nowhere."""

    __slots__ = ("at", "template", "text", "value")

    def __init__(self, text: bytes, template: Template) -> None:
        self.text = text
        self.template = template
        self.value: bytes | None = None
        self.at = -1


class _Substitute(BodyFilter):
    """One response's replacements."""

    __slots__ = ("kept", "longest", "once", "texts")

    def __init__(self, r: "Request", texts: list[_Text], once: bool) -> None:
        super().__init__(r)
        self.texts = texts
        self.once = once
        self.longest = max(len(each.text) for each in texts)
        self.kept = b""  # what may be the beginning of a text

    def __call__(self, data: bytes, last: bool) -> None:
        if not self.texts:
            self.push(data, last)
            return
        data = self.kept + data
        low = data.lower()
        out: list[bytes] = []
        at = 0
        for each in self.texts:
            each.at = low.find(each.text)
        while True:
            found = min((each for each in self.texts if each.at >= 0), key=lambda each: each.at, default=None)
            end = len(data) if last else self._partial(low, at, found)
            if found is None or found.at >= end:
                break
            out += (data[at : found.at], self._value(found))
            at = found.at + len(found.text)
            if self.once:
                self.texts.remove(found)
            for each in self.texts:
                if 0 <= each.at < at:
                    each.at = low.find(each.text, at)
        if not self.texts:
            end = len(data)
        out.append(data[at:end])
        self.kept = data[end:]
        body = b"".join(out)
        if body or last:
            self.push(body, last)

    def _value(self, found: _Text) -> bytes:
        if found.value is None:
            found.value = found.template.get(self.request)
        return found.value

    def _partial(self, low: bytes, at: int, found: _Text | None) -> int:
        """Where what must wait for more data begins: a text may begin there that comes before `found`."""
        size = len(low)
        for start in range(max(at, size - self.longest + 1), size):
            rest = low[start:]
            for each in self.texts:
                if found is not None and (found.at < start or (found.at == start and each is found)):
                    return size  # it comes first
                if len(each.text) > len(rest) and each.text.startswith(rest):
                    return start
        return size
