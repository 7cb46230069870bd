"""When the link tries again what has failed: the broker, or the database."""

import random
import time
from dataclasses import dataclass

from fleet_host.backoff import delay_seconds

FIRST_CEILING_SECONDS = 0.25
LAST_CEILING_SECONDS = 15.0
"""Longest waits before the first and the last attempt to reach the broker, or the database."""


@dataclass(slots=True)
class Backoff:
    """When to try again. `failures` counts attempts since the last success."""

    failures: int = 0
    retry_at: float = 0.0

    def failed(self) -> None:
        """Note one more failure."""
        uniform = random.random()  # noqa: S311 - jitter, no secret
        delay = delay_seconds(self.failures, uniform, first=FIRST_CEILING_SECONDS, last=LAST_CEILING_SECONDS)
        self.failures += 1
        self.retry_at = time.monotonic() + delay
