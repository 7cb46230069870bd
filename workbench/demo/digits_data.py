"""scikit-learn's handwritten digits, a fifth held out, the rest split over devices that each see the world differently.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0; ships with scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fleet_protocol.errors import ConfigurationError

HELD_OUT_FRACTION = 0.2
LARGEST_PIXEL = 16.0
CLASSES = 10
DIRICHLET_CONCENTRATION = 0.3
"""How unequal the devices' classes are; 0.3 is the usual hard setting of the literature (Hsu et al. 2019)."""
FEWEST_SAMPLES = 24
"""Splits that leave a device with fewer are drawn again."""
SPLIT_ATTEMPTS = 10_000


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


def split_digits(devices: int, generator: np.random.Generator) -> FleetData:
    """Shuffle, hold out a fifth, split the rest by a Dirichlet distribution over the devices for each class.

    Raises:
        ConfigurationError: so many devices that no split gives each enough samples.
    """
    source = load_digits()
    digits = Labelled((source.data / LARGEST_PIXEL).astype(np.float32), source.target.astype(np.int64))
    order = generator.permutation(len(digits.labels))
    held_out_count = round(HELD_OUT_FRACTION * len(order))
    pooled = digits.take(order[held_out_count:])
    for _ in range(SPLIT_ATTEMPTS):
        parts = _dirichlet_split(pooled.labels, devices, generator)
        if min(map(len, parts)) >= FEWEST_SAMPLES:
            return FleetData([pooled.take(part) for part in parts], pooled, digits.take(order[:held_out_count]))
    raise ConfigurationError(
        f"--agents {devices}: too many; {len(pooled.labels)} digits can't be split so that each agent"
        f" gets {FEWEST_SAMPLES}"
    )


def _dirichlet_split(
    labels: NDArray[np.int64], devices: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(devices)]
    for label in range(CLASSES):
        rows = np.flatnonzero(labels == label)
        shares = generator.dirichlet(np.full(devices, DIRICHLET_CONCENTRATION))
        cuts = np.round(np.cumsum(shares)[:-1] * rows.size).astype(int)
        for device, chunk in enumerate(np.split(rows, cuts)):
            parts[device].append(chunk)
    return [generator.permutation(np.concatenate(part)) for part in parts]
