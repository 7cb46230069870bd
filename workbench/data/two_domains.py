"""Digits on half of the devices, letters on the others, and on each some classes are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.errors import ConfigurationError
from workbench.data.digits import CLASSES, FleetData, read_digits
from workbench.data.drawn_letters import NAMES, SIDE, drawn_letters

LACKING: Final = 3
"""Classes that a device has no picture of."""
LETTERS: Final = 1800
"""About as many as there are digits."""
HELD_OUT: Final = 400
"""Of each domain."""
MOST_PICTURES: Final = 360
"""Of a device."""
FEWEST_PICTURES: Final = 24
SMALL_SIDE: Final = 8
MARGIN: Final = 2


@dataclass(frozen=True, slots=True)
class Domain:
    """Pictures of one kind: what each class is called, and those that no device has."""

    name: str
    classes: str
    held_out: Samples


@dataclass(frozen=True, slots=True)
class DomainData(FleetData):
    """Inputs are pictures float32 [N, 784], labels their classes int64 [N]. `of_device` has the place in `domains` of
    each device's.
    """

    domains: tuple[Domain, ...]
    of_device: tuple[int, ...]
    input_names: tuple[str, str] = ("picture", "digit")
    """What models/mnist_gan calls a picture and its class."""

    def members(self, domain: int, names: Sequence[str]) -> list[str]:
        """Those of the devices' `names` that have pictures of a domain."""
        return [name for name, own in zip(names, self.of_device, strict=True) if own == domain]


def digits_and_letters(devices: int, generator: np.random.Generator, option: str = "--agents") -> DomainData:
    """Every second device has letters. `option` is what the user set the number of devices with.

    Raises:
        ConfigurationError: so many devices that some would have hardly any pictures, or so few that a class is nowhere.
    """
    domains, of_domain = [], []
    for name, classes, pictures in (
        ("digits", "0123456789", smooth_digits()),
        ("letters", NAMES, drawn_letters(LETTERS, generator)),
    ):
        shuffled = pictures.take(generator.permutation(len(pictures)))
        domains.append(Domain(name, classes, shuffled.take(slice(0, HELD_OUT))))
        of_domain.append(shuffled.take(slice(HELD_OUT, None)))
    of_device = tuple(device % len(domains) for device in range(devices))
    _check(of_device, len(domains), min(map(len, of_domain)), option)
    shares = [_shares(pictures, of_device.count(domain), generator) for domain, pictures in enumerate(of_domain)]
    parts = [shares[domain][device // len(domains)] for device, domain in enumerate(of_device)]
    held_out = _together([domain.held_out for domain in domains])
    return DomainData(parts, _together(parts), held_out, tuple(domains), of_device)


def smooth_digits() -> Samples:
    """scikit-learn's digits at 28 x 28, each value between those of its 8 x 8: float32 [N, 784], bright on dark."""
    digits = read_digits()
    inner = SIDE - 2 * MARGIN
    places = np.clip((np.arange(inner) + 0.5) * SMALL_SIDE / inner - 0.5, 0, SMALL_SIDE - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SMALL_SIDE)))
    larger = weights @ digits.inputs.reshape(-1, SMALL_SIDE, SMALL_SIDE) @ weights.T
    pictures = np.pad(larger, [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)])
    return Samples(pictures.reshape(len(digits), -1).astype(np.float32), digits.labels)


def _check(of_device: Sequence[int], domains: int, pictures: int, option: str) -> None:
    counts = [of_device.count(domain) for domain in range(domains)]
    most = pictures * (CLASSES - LACKING) // CLASSES // FEWEST_PICTURES
    if min(counts) < 2 or max(counts) > most:
        raise ConfigurationError(
            f"{option} {len(of_device)}: digits and letters need {2 * domains} devices at least, two of each, and"
            f" {most * domains} at most, so that each has {FEWEST_PICTURES} pictures"
        )


def _shares(pictures: Samples, devices: int, generator: np.random.Generator) -> list[Samples]:
    """Each picture to one device; device d lacks the classes that follow 3d, so no class is nowhere."""
    classes: NDArray[np.int64] = pictures.labels.astype(np.int64)
    shuffled = generator.permutation(CLASSES)
    lacking = [
        set(shuffled[np.arange(LACKING * device, LACKING * (device + 1)) % CLASSES]) for device in range(devices)
    ]
    owners = np.array(
        [generator.choice([each for each in range(devices) if kind not in lacking[each]]) for kind in classes]
    )
    return [pictures.take(np.flatnonzero(owners == device)[:MOST_PICTURES]) for device in range(devices)]


def _together(parts: Sequence[Samples]) -> Samples:
    inputs = np.concatenate([part.inputs for part in parts])
    return Samples(inputs, np.concatenate([part.labels for part in parts]).astype(np.int64))
