"""HTTP dates -> seconds: the three formats of RFC 9110 section 5.6.7, as nginx reads them.

The weekday is not looked at, and a two-digit year means 1970 to 2069.
"""

import re
from calendar import timegm

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMATS = (
    re.compile(rb"[^,]*, *(?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME),  # Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rb"[^,]*, *(?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME),  # Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(
        rb"[^, ]* " + _MONTH + rb" {1,2}(?P<day>\d{1,2}) " + _TIME + rb" (?P<year>\d{4})"
    ),  # Sun Nov  6 08:49:37 1994
)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def parse(text: bytes) -> int | None:
    """Seconds since the epoch, or None for what is no date."""
    for pattern in _FORMATS:
        match = pattern.match(text)
        if match is not None:
            break
    else:
        return None
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTHS.index(match["month"]) + 1
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year >= 70 else 2000
    if not year or hour > 23 or minute > 59 or second > 59 or not 1 <= day <= _DAYS[month - 1]:
        return None
    if month == 2 and day == 29 and (year % 4 or (year % 100 == 0 and year % 400)):
        return None
    return timegm((year, month, day, hour, minute, second))
