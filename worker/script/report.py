"""What the error log says of a failure in a user's Python: one line, innermost frame first."""

import os
import traceback
from typing import TYPE_CHECKING

from headgate.masterd.logfile import Level

if TYPE_CHECKING:
    from headgate.worker.http import request as http

_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep


def failed(r: "http.Request", name: str, error: BaseException) -> None:
    """Log that the function `name` has failed."""
    r.log(Level.ERROR, f'"{name}" failed: {described(error)}')


def described(error: BaseException) -> str:
    """The error, where it comes from without our own frames, those in a group, and the one that it was made of."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(_OWN)]
    where = " < ".join(f'{each.name} in "{each.filename}":{each.lineno}' for each in reversed(frames))
    text = f"{type(error).__name__}: {error}" + (f" at {where}" if where else "")
    if isinstance(error, BaseExceptionGroup):
        text += "".join(f"; in it {described(each)}" for each in error.exceptions)
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text if before is None else f"{text}; after {described(before)}"
