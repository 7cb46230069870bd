"""How much one device may weigh among others, whatever it declares. Pure. docs/decisions/weight-of-one-device.md"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.block_weights import Weight
from broker_coordinator.aggregation.contribution import BufferedUpdate
from fleet_protocol.codec import SparseUpdate

SAMPLES_FACTOR = 1.5
"""A device weighs at most as many samples as this many times the median of others."""

NORM_FACTOR = 2.0
"""A longer delta than this many times the usual norm of others is scaled down to it."""

SEVERAL = 0.1
"""Share of the devices, two of them at least, whose deltas are as long as the usual norm: where few devices see a
class, theirs must be longer than most. One device alone says nothing."""

MOST_OF_MEDIAN = 2.0
"""The usual norm is at most so many times the median, whatever several devices send together."""

FEWEST_FOR_NORMS = 3
"""Of two devices, nobody can say which one's norm is the unusual one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest weight in samples, and the largest norm, of one device among those that are averaged together."""

    samples: float
    norm: float

    @classmethod
    def among(cls, samples: Collection[int], norms: Collection[float]) -> "Bounds":
        """Those by what all devices sent last; the median is the smaller one of two in the middle."""
        if not samples:
            return cls(math.inf, math.inf)
        middle = (len(samples) - 1) // 2
        usual = None
        if len(norms) >= FEWEST_FOR_NORMS:
            ascending = sorted(norms)
            usual = usual_norm(ascending[middle], ascending[-several_of(len(norms))])
        return cls(SAMPLES_FACTOR * sorted(samples)[middle], norm_bound(usual, NORM_FACTOR))

    def weight(self, samples: int) -> float:
        """What a device with so many samples weighs."""
        return float(min(samples, self.samples))

    def scale(self, norm: float) -> float:
        """What a delta of this norm is multiplied by."""
        return self.norm / norm if norm > self.norm else 1.0


def several_of(devices: int) -> int:
    """How many of so many devices it takes."""
    return max(2, math.ceil(SEVERAL * devices))


def usual_norm(median: float, of_several: float) -> float:
    """The norm that several devices reach, or the median where that is longer."""
    return min(max(median, of_several), MOST_OF_MEDIAN * median)


def norm_bound(usual: float | None, factor: float) -> float:
    """The largest norm where `usual` is that of others; infinite where they are too few, or send nothing but zeros."""
    return factor * usual if usual else math.inf


def bounded(updates: Iterable[BufferedUpdate], bounds: Bounds) -> list[tuple[Weight, SparseUpdate]]:
    """Weights in samples, and deltas, within the bounds."""
    return [(update.weight_of(_counted(update, bounds)), bounded_delta(update, bounds)) for update in updates]


def bounded_delta(update: BufferedUpdate, bounds: Bounds) -> SparseUpdate:
    """Its delta within the bounds; they are those of devices, and a helper's stands for many of these."""
    return update.delta if update.helper else scaled(update.delta, bounds.scale(update.delta.norm()))


def _counted(update: BufferedUpdate, bounds: Bounds) -> float:
    return float(update.samples) if update.helper else bounds.weight(update.samples)


def scaled(delta: SparseUpdate, factor: float) -> SparseUpdate:
    """`factor` times the delta; itself where that is 1."""
    return delta if factor == 1.0 else SparseUpdate(delta.indices, delta.values * np.float32(factor))
