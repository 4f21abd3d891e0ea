"""`ssi`: server side includes (nginx: ngx_http_ssi_filter_module).

The filter reads a page's commands (`ssi_reader.py`) and has them done (`ssi_commands.py`). Variables and blocks belong
to the main request, so that included pages share them. A command that has to wait for its subrequest stops the page
here: what follows is kept by the reader, and no more of the response is made meanwhile.
"""

import time
from typing import TYPE_CHECKING, Any

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.conf.errors import ConfError
from headgate.conf.template import Getter, Variable, Variables
from headgate.masterd.logfile import Level
from headgate.worker.http import mime, validators
from headgate.worker.http.conf import Location
from headgate.worker.http.filters import HELD_FILTER, BodyFilter
from headgate.worker.http.mime import Types
from headgate.worker.http.request import DRAIN
from headgate.worker.subrequest.ssi_commands import COMMANDS, SsiError
from headgate.worker.subrequest.ssi_reader import Command, Problem, SsiReader

if TYPE_CHECKING:
    from headgate.conf.build import Scope
    from headgate.worker.http.request import Request

ENTITY, URL, NONE = "entity", "url", "none"  # how echo writes values
ERROR_TEXT = b"[an error occurred while processing the directive]"
TIME_FORMAT = "%A, %d-%b-%Y %H:%M:%S %Z"
MAX_PARAMS = 16


class SsiConf(Conf, level=Ctx.LOCATION):
    """SSI of a location. The sizes of file and recycled buffers are checked; there are no such buffers here."""

    enabled: bool = directive("ssi", HSL | Ctx.LOCATION_IF, "flag", slots.flag, default=False)
    silent_errors: bool = directive("ssi_silent_errors", HSL, "flag", slots.flag, default=False)
    ignore_recycled: bool = directive("ssi_ignore_recycled_buffers", HSL, "flag", slots.flag, default=False)
    min_file_chunk: int = directive("ssi_min_file_chunk", HSL, "1", slots.size, default=1024)
    value_length: int = directive("ssi_value_length", HSL, "1", slots.size, default=255)
    last_modified: bool = directive("ssi_last_modified", HSL, "flag", slots.flag, default=False)
    type_lines: list[list[bytes]] = directive("ssi_types", HSL, "1+", mime.words, many=True)
    types: Types
    variables: Variables
    _getters: dict[str, Getter | None]

    def finish(self, scope: "Scope") -> None:
        self.types = mime.types(self.type_lines)
        assert scope.variables is not None
        self.variables = scope.variables
        self._getters = {}

    def attach(self, node: Location) -> None:
        if self.enabled:
            node.filters += (ssi_filter,)

    def variable(self, r: "Request", name: str) -> bytes | None:
        """The value of a variable that a page names; None when there is none of that name."""
        getters = self._getters
        if name not in getters:
            if len(getters) > 1024:
                getters.clear()
            try:
                getters[name] = self.variables.lookup(name)
            except ConfError:
                getters[name] = None
        get = getters[name]
        return get(r) if get is not None else None


class Page:
    """What a page and those included in it share."""

    __slots__ = ("blocks", "captures", "variables")

    def __init__(self) -> None:
        self.variables: dict[str, bytes] = {}
        self.blocks: list[tuple[bytes, list[bytes]]] = []
        self.captures: Any = None  # of the last regular expression that matched

    def get(self, name: str) -> bytes | None:
        """The value of a variable that SSI knows itself, or of a capture."""
        match = self.captures
        if match is not None and len(name) == 1 and name.isdigit() and int(name) <= match.re.groups:
            return match.group(int(name)) or b""
        return self.variables.get(name)


def ssi_filter(r: "Request") -> None:
    """The header filter."""
    conf = r.location.get(SsiConf)
    if r.content_length == 0 or not mime.matches(r, conf.types):
        return
    main = r.main
    page = main.kept(Page) or main.keep(Page())
    r.add_body_filter(r.keep(SsiFilter(r, conf, page)))
    if r is not main:
        return
    mime.body_changes(r)
    r.postpone = r.location.core.postpone_output
    if conf.last_modified:
        validators.weaken_etag(r)
    else:
        validators.drop_last_modified(r)
        validators.drop_etag(r)


class SsiFilter(BodyFilter):
    """One page on its way."""

    __slots__ = (
        "_last", "_out", "_reader", "block", "chosen", "conditional", "conf", "encoding", "error_text", "output",
        "page", "time_format", "waiting",
    )  # fmt: skip

    def __init__(self, r: "Request", conf: SsiConf, page: Page) -> None:
        super().__init__(r)
        self.conf = conf
        self.page = page
        self.output = True  # not in a branch that is not taken, nor in a block
        self.conditional = 0  # 1 after if or elif, 2 after else
        self.chosen = False  # a branch of this `if` was taken
        self.block: list[bytes] | None = None  # what the block that is being read holds
        self.encoding = ENTITY
        self.error_text = ERROR_TEXT
        self.time_format = TIME_FORMAT
        self.waiting = False
        self._reader = SsiReader(conf.value_length)
        self._out: list[bytes] = []
        self._last = False

    def __call__(self, data: bytes, last: bool) -> None:
        if data:
            self._reader.feed(data)
        self._last = self._last or last
        if not self.waiting:
            self._read()

    def wait(self) -> None:
        """Go on with the page when `resume` is called."""
        self.waiting = True
        self.request.held |= HELD_FILTER

    def resume(self) -> None:
        """What was waited for is there."""
        r = self.request
        if r.done:
            return
        self.waiting = False
        self._read()
        if not self.waiting:
            r.held &= ~HELD_FILTER
            r.post(DRAIN)

    def write(self, data: bytes) -> None:
        """Put something into the page here."""
        self._out.append(data)

    def flush(self) -> None:
        """Hand on what there is: what follows is a subrequest's."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.push(data, False)

    def _read(self) -> None:
        reader = self._reader
        while not self.waiting:
            event = reader.next()
            if event is None:
                break
            if isinstance(event, bytes):
                if self.output:
                    self._out.append(event)
                elif self.block is not None:
                    self.block.append(event)
            elif isinstance(event, Command):
                try:
                    self._do(event)
                except SsiError:
                    self._error()
            elif isinstance(event, Problem):
                self.request.log(Level.ERROR, event.text)
            else:
                self._error()
        if self._last and not self.waiting:
            self._last = False
            data = b"".join(self._out)
            self._out.clear()
            self.push(data, True)
        else:
            self.flush()

    def _error(self) -> None:
        if not self.conf.silent_errors:
            self._out.append(self.error_text)

    def fail(self, text: str) -> SsiError:
        """Log why a command fails, and return what is to be raised."""
        self.request.log(Level.ERROR, text)
        return SsiError(text)

    def _do(self, command: Command) -> None:
        name = command.name.decode("utf-8", "surrogateescape")
        kind = COMMANDS.get(name)
        if kind is None:
            if self.output:
                raise self.fail(f'invalid SSI command: "{name}"')
            return
        if not self.output and not kind.ends_block:
            if self.block is not None:
                self.block.append(_text(command))
                return
            if not kind.context:
                return
        if kind.context and not 0 < self.conditional <= kind.context:
            raise self.fail(f'invalid context of SSI command: "{name}"')
        if len(command.params) > MAX_PARAMS:
            raise self.fail(f'too many SSI command parameters: "{name}"')
        kind.run(self, self._params(name, kind.params, command.params))

    def _params(self, command: str, known: dict[str, bool], given: list[tuple[bytes, bytes]]) -> dict[str, bytes]:
        out: dict[str, bytes] = {}
        for key, value in given:
            name = key.decode("utf-8", "surrogateescape")
            if name not in known:
                raise self.fail(f'invalid parameter name: "{name}" in "{command}" SSI command')
            if name in out:
                raise self.fail(f'duplicate "{name}" parameter in "{command}" SSI command')
            out[name] = value
        for name, mandatory in known.items():
            if mandatory and name not in out:
                raise self.fail(f'mandatory "{name}" parameter is absent in "{command}" SSI command')
        return out


def _text(command: Command) -> bytes:
    """A command written anew, for a block."""
    params = b"".join(b' %b="%b"' % param for param in command.params)
    return b"<!--#" + command.name + params + b" -->"


# -- variables -----------------------------------------------------------------------------------


def _date(local: bool) -> Getter:
    def get(r: "Request") -> bytes | None:
        page = r.kept(SsiFilter)
        fmt = TIME_FORMAT if page is None else page.time_format
        now = time.time()
        if fmt == "%s":
            return b"%d" % now
        return time.strftime(fmt, time.localtime(now) if local else time.gmtime(now)).encode("utf-8", "surrogateescape")

    return get


VARIABLES = [Variable("date_local", _date(True)), Variable("date_gmt", _date(False))]
