"""How MNIST is shared out over devices that see unlike things, each with samples of its own kinds held out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from workbench.data.partition import dirichlet_parts

CLASSES = 10
CLASSES_OF_A_DEVICE = 2
HELD_OUT_OF = 5
"""One sample in so many of each device is held out: nothing trains on it."""
FEWEST = 20
"""Samples of a device."""
DIVISION_STREAM = 7


@dataclass(frozen=True, slots=True)
class Device:
    """What it trains on, and what it is tested on: samples of the same classes, in the same shares. Devices of one
    `kind` call the classes alike.
    """

    training: Samples
    held_out: Samples
    kind: int


def devices_of(division: str, samples: Samples, devices: int, seed: int) -> list[Device]:
    """The fleet of a division's name."""
    generator = np.random.default_rng((seed, DIVISION_STREAM))
    parts, permuted = DIVISIONS[division](samples.labels.astype(np.int64), devices, generator)
    found = []
    for rows, labels_of in zip(parts, permuted, strict=True):
        own = samples.take(generator.permutation(rows))
        own = Samples(own.inputs, labels_of[own.labels], len(own))
        held_out = np.arange(len(own)) % HELD_OUT_OF == 0
        training, tested = own.take(np.flatnonzero(~held_out)), own.take(np.flatnonzero(held_out))
        found.append(Device(training, tested, int(labels_of[0])))
    return found


Labels = NDArray[np.int64]
Divided = tuple[list[Labels], list[Labels]]
"""Rows of each device, and what each device calls the ten classes."""


def _dirichlet(labels: Labels, devices: int, generator: np.random.Generator) -> Divided:
    parts = dirichlet_parts(labels, devices, generator, fewest=FEWEST, concentration=0.1, attempts=20)
    return list(parts), [np.arange(CLASSES)] * devices


def _two_classes(labels: Labels, devices: int, generator: np.random.Generator) -> Divided:
    """Shards of one class each, two to a device (McMahan et al. 2017), no two of one class."""
    shards = [
        shard
        for label in range(CLASSES)
        for shard in np.array_split(
            generator.permutation(np.flatnonzero(labels == label)), CLASSES_OF_A_DEVICE * devices // CLASSES
        )
    ]
    of_a_class = len(shards) // CLASSES
    half = len(shards) // 2
    first, second = generator.permutation(half), half + generator.permutation(half)
    if of_a_class * CLASSES != len(shards):
        raise ValueError(f"{devices} devices: take a multiple of {CLASSES // CLASSES_OF_A_DEVICE}")
    parts = [np.concatenate([shards[one], shards[other]]) for one, other in zip(first, second, strict=True)]
    return parts, [np.arange(CLASSES)] * devices


def _two_groups(labels: Labels, devices: int, generator: np.random.Generator) -> Divided:
    """All devices see all classes; every second one calls each class like the next one: what is right for one half is
    wrong for the other.
    """
    parts = np.array_split(generator.permutation(len(labels)), devices)
    names = [np.arange(CLASSES), np.roll(np.arange(CLASSES), -1)]
    return list(parts), [names[device % 2] for device in range(devices)]


DIVISIONS: Final[Mapping[str, Callable[[Labels, int, np.random.Generator], Divided]]] = {
    "dirichlet-0.1": _dirichlet,
    "two-classes": _two_classes,
    "two-groups": _two_groups,
}
