"""Ten devices of two domains, each without some classes, and what the generators that they train are tested on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.mnist import read_mnist
from benchmarks.zoo.samples.pictures import mnist20k, notmnist
from bundle_runtime.samples import Samples

CLASSES = 10
EVERY_DOMAIN = "every domain"
DEVICES_OF_DOMAIN = 5
FEWEST, MOST = 266, 1313
"""Pictures of a device."""
DEEPEST, SHALLOWEST = "g3ht-d3ht", "g3-d3"
"""The cuts that leave a device least, and most."""
ROWS = 16
"""Of a mini-batch."""
HARD_PRESSED = 5
"""Pictures of a device that has hardly any."""

Pictures = NDArray[np.float32]
Classes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures f32[N, 784] of brightness 0 to 1, and their classes i64[N]."""

    pictures: Pictures
    classes: Classes

    def __len__(self) -> int:
        """How many there are."""
        return len(self.classes)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Some of them, in this order."""
        return Labelled(self.pictures[rows], self.classes[rows])

    def samples(self) -> Samples:
        """As the task takes them: the class behind the picture."""
        inputs = np.concatenate([self.pictures, self.classes[:, None].astype(np.float32)], axis=1)
        return Samples(inputs, np.zeros((len(self), 0), np.float32))


def joined(parts: Sequence[Labelled]) -> Labelled:
    """One behind the other."""
    return Labelled(np.concatenate([each.pictures for each in parts]), np.concatenate([each.classes for each in parts]))


@dataclass(frozen=True, slots=True)
class Domain:
    """Pictures of one kind: to train on, and 2,000 to test on that no device has."""

    name: str
    training: Labelled
    tested: Labelled


@dataclass(frozen=True, slots=True)
class Participant:
    """Who trains: a device, or whoever has the pictures of several, and takes as many `steps` an iteration."""

    name: str
    domain: str
    data: Labelled
    cut: str
    steps: int = 1

    def draws(self, domain: Domain) -> bool:
        """Whether its generator is one for that domain."""
        return self.domain in (domain.name, EVERY_DOMAIN)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The domains, and the devices that have their pictures."""

    name: str
    domains: Sequence[Domain]
    devices: Sequence[Participant]


def read_domains(data: Path, tested: int) -> list[Domain]:
    """MNIST and notMNIST, each with so many pictures to test on."""
    digits, held_out, letters = mnist20k(data), read_mnist(data), notmnist(data)
    order = np.random.default_rng(0).permutation(len(letters))
    return [
        Domain(
            "mnist",
            _labelled(digits.inputs, digits.labels),
            _labelled(held_out.images[:tested], held_out.labels[:tested]),
        ),
        Domain(
            "notmnist",
            _labelled(letters.inputs, letters.labels).take(order[tested:]),
            _labelled(letters.inputs, letters.labels).take(order[:tested]),
        ),
    ]


def unlike_devices(domains: Sequence[Domain], seed: int) -> Scenario:
    """Five devices of each domain with 266 to 1,313 pictures, as far as there are so many, each without two or three
    classes; every second one has the deepest cut.
    """
    generator = np.random.default_rng(seed)
    devices: list[Participant] = []
    for domain in domains:
        parts = np.array_split(generator.permutation(len(domain.training)), DEVICES_OF_DOMAIN)
        for number, (part, lacks) in enumerate(zip(parts, _missing(generator), strict=True)):
            having = part[~np.isin(domain.training.classes[part], lacks)]
            taken = having[: generator.integers(FEWEST, MOST + 1)]
            cut = SHALLOWEST if len(devices) % 2 else DEEPEST
            devices.append(Participant(f"{domain.name}-{number}", domain.name, domain.training.take(taken), cut))
    return Scenario("unlike", domains, devices)


def corrupted(scenario: Scenario, seed: int) -> Scenario:
    """One device of each domain has noise in place of its pictures."""
    generator = np.random.default_rng(seed)
    devices = [
        replace(each, data=Labelled(generator.random(each.data.pictures.shape, np.float32), each.data.classes))
        if each.name.endswith("-0")
        else each
        for each in scenario.devices
    ]
    return replace(scenario, name="corrupted", devices=devices)


def nearly_empty(scenario: Scenario, _: int) -> Scenario:
    """One device of each domain has five pictures."""
    devices = [
        replace(each, data=each.data.take(np.arange(HARD_PRESSED))) if each.name.endswith("-0") else each
        for each in scenario.devices
    ]
    return replace(scenario, name="nearly_empty", devices=devices)


def all_together(devices: Sequence[Participant], data: Labelled) -> Participant:
    """One machine that has what all devices have, and takes as many steps as all of them."""
    return Participant("all", EVERY_DOMAIN, data, SHALLOWEST, sum(each.steps for each in devices))


def _missing(generator: np.random.Generator) -> list[Classes]:
    """Two classes of each device of a domain, every class of one device; and of some devices a third one."""
    order = generator.permutation(CLASSES)
    return [
        np.append(pair, generator.choice(np.setdiff1d(order, pair), generator.integers(0, 2)))
        for pair in np.split(order, DEVICES_OF_DOMAIN)
    ]


def _labelled(pictures: Pictures, classes: NDArray[np.int64] | NDArray[np.float32]) -> Labelled:
    return Labelled(pictures.reshape(len(pictures), -1), classes.astype(np.int64))
