"""When a reading was taken, as programs write it."""

import math
from datetime import datetime

from edge_agent.preparation.refusal import ReadingRefusedError, shown

FIRST_MILLISECONDS = 1e11
"""Numbers from here on are milliseconds since 1970: in seconds they would be of the year 5138."""

LAST_SECONDS = 253_402_300_799.0
"""The end of the year 9999."""


def seconds_of(time: object) -> float:
    """Seconds since 1970 of a number of seconds or milliseconds, or of a text as in ISO 8601; one without a zone is in
    the machine's.

    Raises:
        ReadingRefusedError: `wrong_time`.
    """
    try:
        seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else _number(time)
    except (ValueError, OverflowError, OSError):
        seconds = math.nan
    if 0 <= seconds <= LAST_SECONDS:
        return seconds
    remedy = "give seconds or milliseconds since 1970, or 2026-01-31T12:00:00+01:00"
    raise ReadingRefusedError("wrong_time", f"time is {shown(time)}; {remedy}")


def _number(time: object) -> float:
    if isinstance(time, bool) or not isinstance(time, int | float):
        return math.nan
    return time / 1000 if time >= FIRST_MILLISECONDS else float(time)
