"""Splits samples over devices: each with its own class proportions, or evenly."""

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError

DIRICHLET_CONCENTRATION = 0.3
"""How unequal the devices' classes are; 0.3 is the usual hard setting of the literature (Hsu et al. 2019)."""
SPLIT_ATTEMPTS = 1_000


def dirichlet_parts(
    labels: NDArray[np.int64],
    devices: int,
    generator: np.random.Generator,
    *,
    fewest: int,
    option: str = "--devices",
    concentration: float = DIRICHLET_CONCENTRATION,
    attempts: int = SPLIT_ATTEMPTS,
) -> list[NDArray[np.int64]]:
    """Rows per device, shuffled; splits that leave a device with less than `fewest` are drawn again.

    Where none of `attempts` draws would do, devices with the most samples give some to those with too few.

    `option` is what the user set the number of devices with. The smaller `concentration`, the more unequal they are.

    Raises:
        ConfigurationError: so many devices that no split gives each enough samples.
    """
    if devices * fewest > len(labels):
        raise _too_many(len(labels), devices, fewest, option)
    for _ in range(attempts):
        parts = _draw(labels, devices, concentration, generator)
        if min(map(len, parts)) >= fewest:
            return parts
    return _evened_out(parts, fewest)


def even_parts(samples: int, devices: int, *, fewest: int, option: str = "--devices") -> list[NDArray[np.int64]]:
    """Rows per device, in their order, of each about as many.

    Raises:
        ConfigurationError: so many devices that they get less than `fewest`.
    """
    if devices * fewest > samples:
        raise _too_many(samples, devices, fewest, option)
    return np.array_split(np.arange(samples), devices)


def _too_many(samples: int, devices: int, fewest: int, option: str) -> ConfigurationError:
    return ConfigurationError(
        f"{option} {devices}: too many; {samples} samples can't be split so that each gets {fewest}"
    )


def _evened_out(parts: list[NDArray[np.int64]], fewest: int) -> list[NDArray[np.int64]]:
    """The same rows, of each device at least `fewest`."""
    parts = list(parts)
    for device in range(len(parts)):
        while (missing := fewest - len(parts[device])) > 0:
            donor = max(range(len(parts)), key=lambda other: len(parts[other]))
            given = min(missing, len(parts[donor]) - fewest)
            parts[device] = np.concatenate([parts[device], parts[donor][:given]])
            parts[donor] = parts[donor][given:]
    return parts


def _draw(
    labels: NDArray[np.int64], devices: int, concentration: float, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        shares = generator.dirichlet(np.full(devices, concentration))
        cuts = np.round(np.cumsum(shares)[:-1] * rows.size).astype(int)
        for device, chunk in enumerate(np.split(rows, cuts)):
            parts[device].append(chunk)
    return [generator.permutation(np.concatenate(part)) for part in parts]
