"""scikit-learn's handwritten digits, a fifth held out, the rest split over devices with different class proportions.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, CC BY 4.0; ships with scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

from bundle_runtime.samples import Samples
from workbench.data.partition import dirichlet_parts

HELD_OUT_FRACTION = 0.2
LARGEST_PIXEL = 16.0
CLASSES = 10
FEWEST_SAMPLES = 24
"""Splits that leave a device with fewer are drawn again."""


@dataclass(frozen=True, slots=True)
class FleetData:
    """One part per device; `pooled` is all parts together."""

    parts: list[Samples]
    pooled: Samples
    held_out: Samples


def read_digits() -> Samples:
    """All 1,797 of them, in the order of their source: inputs float32 [N, 64] in [0, 1], labels int64 [N]."""
    source = load_digits()
    return Samples((source.data / LARGEST_PIXEL).astype(np.float32), source.target.astype(np.int64))


def drawn_larger(digits: Samples) -> Samples:
    """The same images for a model of pictures f32[N, 1, 28, 28]: each pixel as nine, within a border of two."""
    images = digits.inputs.reshape(-1, 1, 8, 8).repeat(3, axis=2).repeat(3, axis=3)
    return Samples(np.pad(images, [(0, 0), (0, 0), (2, 2), (2, 2)]), digits.labels, digits.newest)


def large_digits(devices: int, generator: np.random.Generator, option: str = "--agents") -> FleetData:
    """What `split_digits` gives, `drawn_larger`."""
    small = split_digits(devices, generator, option)
    return FleetData(
        [drawn_larger(part) for part in small.parts], drawn_larger(small.pooled), drawn_larger(small.held_out)
    )


def split_digits(devices: int, generator: np.random.Generator, option: str = "--agents") -> FleetData:
    """Shuffle, hold out a fifth, split the rest by a Dirichlet distribution over the devices for each class.

    `option` is what the user set the number of devices with.

    Raises:
        ConfigurationError: so many devices that no split gives each enough samples.
    """
    digits = read_digits()
    order = generator.permutation(len(digits))
    held_out_count = round(HELD_OUT_FRACTION * len(order))
    pooled = digits.take(order[held_out_count:])
    classes = pooled.labels.astype(np.int64)
    parts = dirichlet_parts(classes, devices, generator, fewest=FEWEST_SAMPLES, option=option)
    return FleetData([pooled.take(part) for part in parts], pooled, digits.take(order[:held_out_count]))
