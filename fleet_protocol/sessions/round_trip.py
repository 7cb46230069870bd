"""How long an answer takes: when a request without one is repeated. Pure.

The estimate of RFC 6298 (Jacobson and Karels, "Congestion Avoidance and Control", 1988), with Karn's rule: what was
sent twice tells nothing of the round trip, as nobody knows which of them was answered.
"""

from dataclasses import dataclass
from typing import Final

FIRST_TIMEOUT_SECONDS: Final = 3.0
SHORTEST_TIMEOUT_SECONDS: Final = 0.5
"""A helper that computes a larger mini-batch for once shall not look like a lost message."""
LONGEST_TIMEOUT_SECONDS: Final = 30.0
_GAIN: Final = 1 / 8
_DEVIATION_GAIN: Final = 1 / 4
_DEVIATIONS: Final = 4


@dataclass(slots=True)
class RoundTrip:
    """Smoothed seconds from a request to its answer, their mean deviation, and the time-out that follows."""

    seconds: float | None = None
    deviation: float = 0.0
    timeout: float = FIRST_TIMEOUT_SECONDS

    def measured(self, seconds: float) -> None:
        """Take in how long an answer took to a request that was sent once."""
        if self.seconds is None:
            self.seconds, self.deviation = seconds, seconds / 2
        else:
            self.deviation += _DEVIATION_GAIN * (abs(self.seconds - seconds) - self.deviation)
            self.seconds += _GAIN * (seconds - self.seconds)
        wanted = self.seconds + _DEVIATIONS * self.deviation
        self.timeout = min(LONGEST_TIMEOUT_SECONDS, max(SHORTEST_TIMEOUT_SECONDS, wanted))

    def timed_out(self) -> None:
        """Wait twice as long from now on, until an answer is measured."""
        self.timeout = min(LONGEST_TIMEOUT_SECONDS, 2 * self.timeout)
