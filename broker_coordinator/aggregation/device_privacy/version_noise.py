"""The noise of a version, from the secret seeds of it and of the versions before it. Pure.

    w_t = sum over i of D_i * z_(t-i)        `fleet_protocol.privacy.banded_noise`

A seed is drawn for each version, and committed with it: what is not committed was never told, and is drawn again.
"""

from dataclasses import dataclass, replace
from functools import partial
from hashlib import shake_256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.gaussian_integers import gaussian_integers
from fleet_protocol.privacy.banded_noise import noise_coefficients

SEED_BYTES: Final = 32
UNITS_PER_DEVIATION: Final = 2.0**24
"""Updates and noise are whole numbers of this part of one z's standard deviation."""
VALUES_AT_ONCE: Final = 1 << 18
"""Of a vector of noise: what is drawn takes memory several times over."""


@dataclass(frozen=True, slots=True)
class VersionNoise:
    """The seeds that a version's noise is made of: its own, and before it those of versions before, newest first."""

    seeds: tuple[bytes, ...]

    def units(self, size: int) -> NDArray[np.float64]:
        """The noise of a sum of `size` values: whole numbers of units, float64."""
        noise = np.zeros(size)
        for coefficient, seed in zip(noise_coefficients(len(self.seeds)), self.seeds, strict=True):
            noise += coefficient * _independent(seed, size)
        return np.rint(noise)


@dataclass(frozen=True, slots=True)
class NoiseSeries:
    """The noised sums of a bundle so far: how many were `made`, and the last seeds, newest first.

    `renewed`: an older database has taken the coordinator's place since then, or may have, so sums may have been told
    that are not known here. A version's number is by `sums_after` larger than that of its sum.
    """

    made: int = 0
    seeds: tuple[bytes, ...] = ()
    renewed: bool = False
    sums_after: int = 0

    def after(self, seed: bytes, bands: int) -> "NoiseSeries":
        """Once a version with this seed is made too; its noise is that of the last `bands` seeds."""
        return replace(self, made=self.made + 1, seeds=(seed, *self.seeds)[:bands])

    @property
    def noise(self) -> VersionNoise:
        """That of the newest version."""
        return VersionNoise(self.seeds)


NO_NOISE: Final = NoiseSeries()
"""Before the first sum."""


def no_seed() -> bytes:
    """Of a task whose versions hide no single device."""
    raise RuntimeError("a version that hides each device needs a secret seed; give ServedTask its draw_seed")


def _independent(seed: bytes, size: int) -> NDArray[np.float64]:
    """One z, in units: float64 [size]. SHAKE-256 (FIPS 202) makes of a seed what nobody can tell from random bytes."""
    return np.concatenate(
        [
            gaussian_integers(min(VALUES_AT_ONCE, size - first), UNITS_PER_DEVIATION, partial(_bytes, seed, first))
            for first in range(0, size, VALUES_AT_ONCE)
        ]
    )


def _bytes(seed: bytes, place: int, count: int) -> bytes:
    return shake_256(seed + place.to_bytes(8, "little")).digest(count)
