"""Splits samples over devices, each with its own class proportions."""

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError

DIRICHLET_CONCENTRATION = 0.3
"""How unequal the devices' classes are; 0.3 is the usual hard setting of the literature (Hsu et al. 2019)."""
SPLIT_ATTEMPTS = 10_000


def dirichlet_parts(
    labels: NDArray[np.int64], devices: int, generator: np.random.Generator, *, fewest: int, option: str = "--devices"
) -> list[NDArray[np.int64]]:
    """Rows per device, shuffled; splits that leave a device with less than `fewest` are drawn again.

    `option` is what the user set the number of devices with.

    Raises:
        ConfigurationError: so many devices that no split gives each enough samples.
    """
    for _ in range(SPLIT_ATTEMPTS if devices * fewest <= len(labels) else 0):
        parts = _draw(labels, devices, generator)
        if min(map(len, parts)) >= fewest:
            return parts
    raise ConfigurationError(
        f"{option} {devices}: too many; {len(labels)} samples can't be split so that each gets {fewest}"
    )


def _draw(labels: NDArray[np.int64], devices: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(devices)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        shares = generator.dirichlet(np.full(devices, DIRICHLET_CONCENTRATION))
        cuts = np.round(np.cumsum(shares)[:-1] * rows.size).astype(int)
        for device, chunk in enumerate(np.split(rows, cuts)):
            parts[device].append(chunk)
    return [generator.permutation(np.concatenate(part)) for part in parts]
