"""Waiting for a condition, with a deadline: no test sleeps and hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

DEADLINE_SECONDS = 60.0
"""Long enough for a machine that does other things too: only a test that fails waits for it."""

SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.03, 0.5
PAUSE_FOR_EACH_SECOND = 4.0
"""That asking took: what is waited for needs the processor more."""


def until(condition: Callable[[], Value], what: str, seconds: float = DEADLINE_SECONDS) -> Value:
    """Poll `condition` until it returns something true, and return that. Fails, naming `what`, at the deadline."""
    deadline = time.monotonic() + seconds
    asked = time.monotonic()
    while not (value := condition()):
        now = time.monotonic()
        assert now < deadline, f"after {seconds:g} s still not: {what}"
        pause = PAUSE_FOR_EACH_SECOND * (now - asked)
        time.sleep(min(max(SHORTEST_PAUSE_SECONDS, pause), LONGEST_PAUSE_SECONDS))
        asked = time.monotonic()
    return value
