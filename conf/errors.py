"""The one error type of the configuration: a reason and the place it was found."""

COMMAND_LINE = "command line"  # where -g is read from: a file without lines


class ConfError(Exception):
    """A configuration that cannot be used.

    `str()` gives nginx's text, `reason in FILE:LINE`; without a line only ` in FILE`, without a file
    only the reason (nginx: an error found when the whole file has been read). Logged as [emerg].
    """

    def __init__(self, reason: str, file: str = "", line: int = 0) -> None:
        super().__init__(reason, file, line)
        self.reason = reason
        self.file = file
        self.line = line

    def __str__(self) -> str:
        if not self.file:
            return self.reason
        if not self.line or self.file == COMMAND_LINE:
            return f"{self.reason} in {self.file}"
        return f"{self.reason} in {self.file}:{self.line}"
