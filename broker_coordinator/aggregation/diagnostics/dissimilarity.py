"""How far devices pull into different directions, by the updates that they send. Pure.

    g_k = the mean of the last updates of device k, which stands for its gradient
    B^2 = mean over k of |g_k|^2 / |mean over k of g_k|^2

is the local dissimilarity of FedProx (Li et al. 2020, definition 3), here with equal weights of devices. K devices
that have nothing in common have K, however much that is; so what K devices have in common is given besides, as the
share of their mean |g_k|^2 that would be left of the mean of arbitrarily many of them:

    in_common = (1 / B^2 - 1 / K) / (1 - 1 / K)

which has no bias from K: with independent deviations from a common c, the expected |mean|^2 is |c|^2 + (rest) / K.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fleet_protocol.codec.sparse import SparseUpdate

FEWEST_DEVICES = 3
"""Of two, one is as unlike as the other."""


@dataclass(frozen=True, slots=True)
class Dissimilarity:
    """Of `devices`; `b_squared` is 1 where all send the same, `in_common` from 0, nothing, to 1."""

    devices: int
    b_squared: float
    in_common: float


def dissimilarity(updates_of_devices: Iterable[list[SparseUpdate]], size: int) -> Dissimilarity | None:
    """Of the updates of each device, in vectors of `size` entries; one device's are in memory at a time.

    None where fewer than `FEWEST_DEVICES` sent any, or all of what they sent is zero.
    """
    total, squares, devices = np.zeros(size), 0.0, 0
    for updates in updates_of_devices:
        if not updates:
            continue
        mean = np.zeros(size)
        for update in updates:
            mean[update.indices] += update.values.astype(np.float64) / len(updates)
        squares += float(mean @ mean)
        total += mean
        devices += 1
    if devices < FEWEST_DEVICES or not squares:
        return None
    together, each = float(total @ total) / devices**2, squares / devices
    in_common = (together / each - 1 / devices) / (1 - 1 / devices)
    return Dissimilarity(devices, each / together if together else float("inf"), min(1.0, max(0.0, in_common)))
