"""Waiting for a condition, with a deadline: no test sleeps and hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

DEADLINE_SECONDS = 60.0
"""Long enough for a machine that does other things too: only a test that fails waits for it."""


def until(condition: Callable[[], Value], what: str, seconds: float = DEADLINE_SECONDS) -> Value:
    """Poll `condition` until it returns something true, and return that. Fails, naming `what`, at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.03)
    return value
