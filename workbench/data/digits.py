"""scikit-learn's handwritten digits, a fifth held out, the rest split over devices that each see the world differently.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0; ships with scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from workbench.data.partition import dirichlet_parts

HELD_OUT_FRACTION = 0.2
LARGEST_PIXEL = 16.0
CLASSES = 10
FEWEST_SAMPLES = 24
"""Splits that leave a device with fewer are drawn again."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """`inputs` float32 [N, 64] in [0, 1]; `labels` int64 [N]."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """The given rows, in that order."""
        return Labelled(self.inputs[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class FleetData:
    """One part per device; `pooled` is all parts together."""

    parts: list[Labelled]
    pooled: Labelled
    held_out: Labelled


def read_digits() -> Labelled:
    """All 1,797 of them, in the order of their source."""
    source = load_digits()
    return Labelled((source.data / LARGEST_PIXEL).astype(np.float32), source.target.astype(np.int64))


def split_digits(devices: int, generator: np.random.Generator) -> FleetData:
    """Shuffle, hold out a fifth, split the rest by a Dirichlet distribution over the devices for each class.

    Raises:
        ConfigurationError: so many devices that no split gives each enough samples.
    """
    digits = read_digits()
    order = generator.permutation(len(digits.labels))
    held_out_count = round(HELD_OUT_FRACTION * len(order))
    pooled = digits.take(order[held_out_count:])
    parts = dirichlet_parts(pooled.labels, devices, generator, fewest=FEWEST_SAMPLES, option="--agents")
    return FleetData([pooled.take(part) for part in parts], pooled, digits.take(order[:held_out_count]))
