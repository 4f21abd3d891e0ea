"""HTTP/1.0 and 1.1 spoken to an upstream server: the request's head, the response's head and body.

What a location may set is `headgate.worker.proxy.http`'s; how a head is read and checked is
`headgate.worker.proxy.reader`'s.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.conf.template import Template, fsencode
from headgate.masterd.logfile import Level
from headgate.worker.http.chunked import ChunkedError, ChunkedReader
from headgate.worker.http.head import HTTP_11
from headgate.worker.http.uri import escape_uri
from headgate.worker.http.wire import join_head, select
from headgate.worker.proxy import redirect
from headgate.worker.proxy.reader import read_head
from headgate.worker.upstream import early_hints
from headgate.worker.upstream.errors import Kind, UpstreamError
from headgate.worker.upstream.header import HeadError
from headgate.worker.upstream.protocol import Protocol
from headgate.worker.upstream.upstream import Upstream

if TYPE_CHECKING:
    from headgate.worker.http.llhttp import Header
    from headgate.worker.http.request import Request
    from headgate.worker.proxy.http import ProxyConf
    from headgate.worker.proxy.target import Target

# what a request to an upstream server starts from; proxy_set_header replaces lines of it by name
_DEFAULTS = ("Host", "Connection", "Proxy-Connection", "Content-Length", "Transfer-Encoding", "TE", "Keep-Alive",
             "Expect", "Upgrade")  # fmt: skip


def _quoted(target: bytes) -> bool:
    """Whether the path came with a quoted character: only then nginx quotes it again (r->quoted_uri)."""
    at = target.find(b"%")
    return at >= 0 and not (b"?" in target[:at] or b"#" in target[:at])


class RequestFields:
    """What a location's requests to upstream servers are made of: what is set, what passes of the client's fields."""

    __slots__ = (
        "_kept", "_lines", "_replaced", "host", "limit", "method", "needs_host", "own_coding", "own_length",
        "pass_body", "pass_headers", "set_body", "version",
    )  # fmt: skip

    def __init__(self, conf: "ProxyConf") -> None:
        own = {name.lower() for name, _ in conf.set_header}
        self.host: Template | None = next((t for name, t in conf.set_header if name.lower() == "host"), None)
        # whole lines, and the beginnings of lines whose value the request tells
        self._lines: list[tuple[bytes, Callable[[Any], bytes] | None]] = []
        for name, template in conf.set_header:
            start = fsencode(name) + b": "
            if name.lower() == "host":
                continue
            if template.const is None:
                self._lines.append((start, template.get))
            elif template.const:
                self._lines.append((start + template.const, None))
        self._replaced = {fsencode(name.lower()) for name in (*own, *_DEFAULTS)}
        # which of the two that frame a body are not ours to say
        self.own_length = "content-length" in own
        self.own_coding = "transfer-encoding" in own
        self._kept: dict[bytes, bool] = {}
        self.method = conf.method
        self.version = b" HTTP/1.1" if conf.http_version >= HTTP_11 else b" HTTP/1.0"
        self.needs_host = self.host is None or conf.http_version >= HTTP_11
        self.set_body = conf.set_body
        self.pass_headers = conf.pass_request_headers
        self.pass_body = conf.pass_request_body
        self.limit = conf.buffer_size  # of the response's head

    def add(self, r: "Request", lines: list[bytes]) -> None:
        """Append the lines that are set."""
        for line, get in self._lines:
            if get is None:
                lines.append(line)
                continue
            value = get(r)
            if value:
                lines.append(line + value)

    def passed(self, r: "Request") -> "list[Header]":
        """The client's own fields that nothing replaces."""
        fields = select(r.headers, self._kept)
        if fields is not None:
            return fields
        for name, _ in r.headers:
            if len(self._kept) < 1024 and len(name) < 64:
                self._kept[name] = name.lower() not in self._replaced
        return [field for field in r.headers if field[0].lower() not in self._replaced]


class HttpProtocol(Protocol):
    """HTTP/1.0 and 1.1 to one upstream server, for one request."""

    __slots__ = (
        "_chunked", "_interim", "_tail", "body_length", "conf", "fields", "fixed", "is_head", "prefix", "target",
    )  # fmt: skip

    def __init__(self, conf: "ProxyConf", target: "Target", prefix: bytes, fixed: bool) -> None:
        self.conf = conf
        self.fields = conf.request_fields
        self.target = target
        self.prefix = prefix  # of the location: replaced by the target's URI
        self.fixed = fixed
        self.is_head = False
        self.body_length: int | None = None  # of the request's body, where it is known before
        self._chunked: ChunkedReader | None = None
        self._tail = b""  # of a chunk's size or trailer, until the rest of the line comes
        self._interim = 0  # bytes of interim (1xx) heads before the one that is read now

    def create_request(self, u: Upstream) -> bytes:
        r = u.request
        fields = self.fields
        method = fields.method.get(r) if fields.method is not None else r.method
        self.is_head = method == b"HEAD" or method.upper() == b"HEAD"
        u.uri = uri = self._uri(r)
        start = method + b" " + uri + fields.version
        lines: list[bytes] = []
        host = fields.host.get(r) if fields.host is not None else b""
        if not host and fields.needs_host:
            host = self.target.host_header
        if host:
            lines.append(b"Host: " + host)
        self._framing(u, lines, fields)
        fields.add(r, lines)
        return join_head(start, lines, fields.passed(r) if fields.pass_headers else [])

    def _framing(self, u: Upstream, lines: list[bytes], fields: RequestFields) -> None:
        r = u.request
        body = r.body
        if fields.set_body is not None:
            u.body = fields.set_body.get(r)
            self.body_length = len(u.body)
        elif u.chunked_body:
            if not fields.own_coding:
                lines.append(b"Transfer-Encoding: chunked")
            return
        elif body is not None and fields.pass_body:
            self.body_length = body.size if body.whole else r.head.content_length
        elif r.head.content_length is not None and fields.pass_body:
            self.body_length = 0
        if self.body_length is not None and not fields.own_length:
            lines.append(b"Content-Length: %d" % self.body_length)

    def _uri(self, r: "Request") -> bytes:
        target = self.target
        if not target.uri:
            if r.valid_uri:
                return r.target
            path = escape_uri(r.uri) if r.internal or _quoted(r.target) else r.uri
            return path + b"?" + r.args if r.args else path
        base = fsencode(target.uri)
        if not self.fixed:
            return base if base.startswith(b"/") else b"/" + base
        if not r.valid_location:
            path, base = r.uri, b""
        else:
            path = r.uri[len(self.prefix) :]
        if r.internal or _quoted(r.target):
            path = escape_uri(path)
        out = base + path
        if not out.startswith(b"/"):
            out = b"/" + out
        return out + b"?" + r.args if r.args else out

    def reinit_request(self, u: Upstream) -> None:
        u.head = None
        self._chunked = None
        self._interim = 0

    def process_header(self, u: Upstream, data: bytes) -> int | None:
        limit = self.fields.limit
        while True:
            start = self._interim
            try:
                found = read_head(data[start:] if start else data)
            except HeadError as error:
                raise UpstreamError(Kind.INVALID_HEADER, str(error)) from None
            if (found[1] - 1 if found is not None else len(data) - start) >= limit:
                raise UpstreamError(Kind.INVALID_HEADER, "upstream sent too big header")
            if found is None:
                return None
            head, taken = found
            if head.dropped is not None:
                for text in head.dropped:
                    u.request.log(Level.WARN, text)
            if head.status >= 200 or head.status == 101:
                break
            self._interim = start + taken
            early_hints.received(u, head, self._interim)
        if head.status == 101:
            self._switch(u)
        u.head = head
        return start + taken

    def _switch(self, u: Upstream) -> None:
        """A 101: only for a client that asked for it, in a location that passed this on."""
        if u.request.header(b"upgrade") is None or b"\r\nupgrade:" not in u.wire.lower():
            raise UpstreamError(Kind.INVALID_HEADER, "upstream sent unexpected 101 response")
        u.upgrade = True

    def input_filter_init(self, u: Upstream) -> None:
        head = u.head
        assert head is not None
        # HTTP/1.0 connections are not kept, as on nginx
        u.keepalive = head.version >= HTTP_11 and not head.close and not u.upgrade
        if self.is_head or head.status == 204 or head.status == 304:
            u.length = 0
        elif head.chunked:
            self._chunked = ChunkedReader(self.conf.buffer_size) if self.conf.pass_trailers else ChunkedReader()
            u.length = None
        else:
            u.length = head.length
            if u.length is None:
                u.keepalive = False
        u.plain = self._chunked is None
        u.body_done = u.plain and u.length == 0

    def input_filter(self, u: Upstream, data: bytes) -> bytes:
        chunked = self._chunked
        if chunked is None:
            return super().input_filter(u, data)
        if self._tail:
            data = self._tail + data
        try:
            out, used = chunked.feed(data)
        except ChunkedError as error:
            raise UpstreamError(Kind.ERROR, f"upstream sent invalid chunked response: {error}") from None
        if chunked.done:
            u.body_done = True
            if used < len(data):  # the connection cannot be trusted
                u.keepalive = False
                u.request.log(Level.WARN, "upstream sent data after final chunk")
            if chunked.trailers and self.conf.pass_trailers:
                self._trailers(u, chunked.trailers)
        else:
            self._tail = data[used:]
        return out

    def _trailers(self, u: Upstream, trailers: "list[Header]") -> None:
        assert u.head is not None
        u.head.trailers = trailers
        u.request.trailers = self.conf.table.shown(trailers)

    def rewrite_redirect(self, u: Upstream, value: bytes) -> bytes:
        rules = self.conf.redirects
        return redirect.rewrite(u.request, rules, value) if rules else value

    def rewrite_cookie(self, u: Upstream, value: bytes) -> bytes:
        cookies = self.conf.cookies
        return cookies.rewrite(u.request, value) if cookies else value

    def eof(self, u: Upstream) -> bool:
        return self._chunked is None and u.length is None

    def finalize_request(self, u: Upstream, status: int) -> None:
        pass
