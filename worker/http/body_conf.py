"""`client_body_temp_path`, `client_body_in_file_only`, `client_body_in_single_buffer`: where request bodies are kept.

A body in memory is joined only where somebody wants it joined ($request_body), so a single buffer needs nothing more.
"""

from typing import TYPE_CHECKING

from headgate.conf import slots
from headgate.conf.directive import HSL, Conf, Ctx, directive
from headgate.worker.http.tempfile import TempPath, temp_path

if TYPE_CHECKING:
    from headgate.conf.build import Scope


class BodyConf(Conf, level=Ctx.LOCATION):
    """Where bodies go that are larger than client_body_buffer_size."""

    temp_path: TempPath = directive("client_body_temp_path", HSL, "1|2|3|4", temp_path)
    in_file_only: str = directive(
        "client_body_in_file_only", HSL, "1", slots.enum_of({"off": "off", "on": "on", "clean": "clean"}), default="off"
    )
    in_single_buffer: bool = directive("client_body_in_single_buffer", HSL, "flag", slots.flag, default=False)

    def finish(self, scope: "Scope") -> None:
        if self.temp_path is None:
            self.temp_path = TempPath.default(scope.config, "client_body_temp")
