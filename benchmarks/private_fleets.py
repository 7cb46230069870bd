"""What the benchmarks of privacy have in common: the recipe, MNIST as devices have it, and what shows the result."""

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mnist import read_mnist
from benchmarks.zoo.samples.pictures import mnist20k
from bundle_runtime.samples import Samples

RECIPE = Path(__file__).parent / "private_digits"
LAST_SCORES = 3
"""Over which accuracy is averaged: versions with noise differ from one another."""
NONE = math.inf
"""The epsilon of a task without privacy."""


@dataclass(frozen=True, slots=True)
class Split:
    """Who learns from what, and what shows it."""

    pooled: Samples
    shown_on: Samples


def mnist_split(data: Path) -> Split:
    """20,000 digits for devices, and t10k."""
    everything, digits = mnist20k(data), read_mnist(data)
    return Split(
        Samples(everything.inputs.reshape(len(everything), -1), everything.labels),
        Samples(digits.images.reshape(len(digits.labels), -1), digits.labels),
    )
