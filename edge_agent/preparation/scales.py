"""The scale of a reading's values: by the ranges of their fields, or by what this device has read so far. Pure."""

import math
from collections.abc import Sequence

import msgspec

from fleet_protocol.reading_plan import ReadingField
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, MOST_DEVIATIONS, SMALLEST_DEVIATION

SETTLED_READINGS = 30
"""With `scaling` `device`, readings that a device measures before it makes samples of those that follow."""


class Moments(msgspec.Struct):
    """Mean and spread of the numbers that one input had so far: Welford 1962, numerically steady."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Summed squared distances from the mean."""

    def add(self, value: float) -> None:
        """Count one more."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)

    def standardised(self, value: float) -> float:
        """(value - mean) / deviation, and at most `MOST_DEVIATIONS` either way."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        distance = (value - self.mean) / (deviation if deviation > SMALLEST_DEVIATION else DEVIATION_OF_CONSTANTS)
        return min(max(distance, -MOST_DEVIATIONS), MOST_DEVIATIONS)


def scaled_by_ranges(values: Sequence[float], fields: Sequence[ReadingField]) -> list[float]:
    """Numbers brought to -1 to 1 by their fields' usual ranges, and cut off there; others are 0 or 1 already.

    `fields` has the field of each value.
    """
    each = zip(values, fields, strict=True)
    return [_scaled(value, *field.scale) if field.kind == "number" else value for value, field in each]


def standardised(values: Sequence[float], fields: Sequence[ReadingField], moments: Sequence[Moments]) -> list[float]:
    """Numbers brought to mean 0 and deviation 1 by the `moments` of each value; others as they are."""
    each = zip(values, fields, moments, strict=True)
    return [known.standardised(value) if field.kind == "number" else value for value, field, known in each]


def _scaled(value: float, low: float, high: float) -> float:
    return min(max(2 * (value - low) / (high - low) - 1, -1.0), 1.0)
