"""Limits how often the same is logged: what an outsider can cause must not fill a disk, or hide everything else."""

import logging
import re
import time
from collections.abc import Callable

from fleet_host.rate_limit import TokenBucket

SAME_LINES = TokenBucket(interval_seconds=10.0, burst=20)
"""Of one event and reason, from WARNING up."""

MAX_EVENTS = 500
"""Kinds of lines counted at a time; all others share one limit."""

_REASON = re.compile(r" reason=([a-z_]+)(?: |$)")


class RepetitionFilter(logging.Filter):
    """Passes `limit` lines of one level, event and reason; the first one after a gap says how many were left out."""

    def __init__(self, limit: TokenBucket = SAME_LINES, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limit = limit
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        now = self._clock()
        kind = self._counted(_kind(record, text), now)
        full_at = self._limit.after(self._full_at.get(kind, now), now)
        if full_at is None:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._full_at[kind] = full_at
        if left_out := self._left_out.pop(kind, 0):
            record.msg, record.args = f"{text} left_out={left_out}", None
        return True

    def _counted(self, kind: str, now: float) -> str:
        """`kind`, or what stands for all others where too many are counted."""
        if kind in self._full_at or len(self._full_at) < MAX_EVENTS:
            return kind
        self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}
        return kind if len(self._full_at) < MAX_EVENTS else "others"


def _kind(record: logging.LogRecord, text: str) -> str:
    if not text.startswith("event="):
        return f"{record.levelname} {record.name}"
    reason = _REASON.search(text)
    return f"{record.levelname} {text.partition(' ')[0]} {reason[1] if reason else ''}"
