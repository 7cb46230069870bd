"""How far devices pull into different directions, by the updates that they send. Pure.

    g_k = the mean of the last updates of device k, which stands for its gradient
    B^2 = mean over k of |g_k|^2 / |mean over k of g_k|^2

is the local dissimilarity of FedProx (Li et al. 2020, definition 3), here with equal weights of devices. It grows with
the noise of mini-batches as well, and without end towards an optimum, where nothing is left in common of gradients that
differ by chance. So the mean is taken of each half of a device's updates, a_k and b_k, whose chance differs:

    lasting   = mean over k of <a_k, b_k> / mean over k of |g_k|^2
    in_common = (|mean of g_k|^2 - mean of |g_k|^2 / K) / (1 - 1 / K) / mean over k of <a_k, b_k>

`lasting` is the share of what a device sends that it sends again and again, and `in_common` the share of that which all
K devices send. Each product has the expectation of its noiseless one, as long as chance is independent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import SparseUpdate

FEWEST_DEVICES = 3
"""Of two, one is as unlike as the other."""
FEWEST_UPDATES = 4
"""Of a device: two in each half, as what error feedback holds back of one comes with the next."""


@dataclass(frozen=True, slots=True)
class Dissimilarity:
    """Of `devices`; `b_squared` is 1 where all send the same. `lasting` and `in_common` are from 0 to 1."""

    devices: int
    b_squared: float
    lasting: float
    in_common: float


def dissimilarity(updates_of_devices: Iterable[Sequence[SparseUpdate]], size: int) -> Dissimilarity | None:
    """Of the updates of each device, oldest first, in vectors of `size` entries; one device's are in memory at a time.

    None where fewer than `FEWEST_DEVICES` sent `FEWEST_UPDATES`, or all of what they sent is zero.
    """
    total, squares, products, devices = np.zeros(size), 0.0, 0.0, 0
    for updates in updates_of_devices:
        if len(updates) < FEWEST_UPDATES:
            continue
        middle = len(updates) // 2
        first, second = _sum(updates[:middle], size), _sum(updates[middle:], size)
        mean = (first + second) / len(updates)
        products += float(first @ second) / middle / (len(updates) - middle)
        squares += float(mean @ mean)
        total += mean
        devices += 1
    if devices < FEWEST_DEVICES or not squares:
        return None
    together, each, lasting = float(total @ total) / devices**2, squares / devices, products / devices
    common = (together - each / devices) / (1 - 1 / devices)
    return Dissimilarity(
        devices,
        each / together if together else float("inf"),
        min(1.0, max(0.0, lasting / each)),
        min(1.0, max(0.0, common / lasting)) if lasting > 0 else 0.0,
    )


def _sum(updates: Sequence[SparseUpdate], size: int) -> NDArray[np.float64]:
    vector = np.zeros(size)
    for update in updates:
        vector[update.indices] += update.values.astype(np.float64)
    return vector
