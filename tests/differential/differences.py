"""Where headgate answers differently from nginx 1.22 on purpose: which fields, headgate's value, and why.

A test fails when a listed difference is gone, so that this list stays true.
"""

from __future__ import annotations

import re

from tests.differential.compare import Explained

ANSWERS: dict[str, Explained] = {}
LOG_LINES = re.compile(r"$^")
