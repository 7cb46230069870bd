"""Samples of a room's readings made by hand, for one task alone: a second opinion of what a plan makes of them."""

from collections import deque
from collections.abc import Sequence

MINUTES = 10
LONGEST_GAP_SECONDS = 150.0
"""After a longer gap the window starts again."""
RANGES = {
    "temperature": (10.0, 35.0),  # degrees Celsius: what people let an indoor room become
    "humidity": (0.0, 100.0),  # per cent, relative
    "light": (0.0, 1000.0),  # lux: a bright office has 500, direct sun is clipped
    "carbon_dioxide": (400.0, 2000.0),  # ppm: outdoor air, and twice the limit of Pettenkofer for indoor air
}
"""Quantity to the physical range that becomes -1 to 1. The order is that of a reading."""


def scaled(reading: Sequence[float]) -> list[float]:
    """A reading (degrees Celsius, per cent, lux, ppm) with each value brought to [-1, 1], and clipped there.

    Raises:
        ValueError: not one value per quantity.
    """
    values = zip(reading, RANGES.values(), strict=True)
    return [min(max(2 * (value - low) / (high - low) - 1, -1.0), 1.0) for value, (low, high) in values]


class SlidingWindow:
    """The last `MINUTES` readings, scaled."""

    def __init__(self) -> None:
        self._readings: deque[list[float]] = deque(maxlen=MINUTES)
        self._last_seconds = 0.0

    def push(self, seconds: float, reading: Sequence[float]) -> list[float] | None:
        """Take a reading in, and give `inputs` of a sample, oldest reading first; None while the window fills.

        `seconds` is any clock that doesn't jump. Only readings up to this one are in the sample.
        """
        if seconds - self._last_seconds > LONGEST_GAP_SECONDS:
            self._readings.clear()
        self._last_seconds = seconds
        self._readings.append(scaled(reading))
        if len(self._readings) < MINUTES:
            return None
        return [value for minute in self._readings for value in minute]
