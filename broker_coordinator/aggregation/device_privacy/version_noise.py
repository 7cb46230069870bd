"""The noise of a version, from the secret seeds of it and of the versions before it. Pure.

    w_t = sum over s of D_(t, s) * z_s        `fleet_protocol.privacy.banded_noise`, `tree_noise`

A seed is drawn for each version, and committed with it: what is not committed was never told, and is drawn again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import shake_256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.gaussian_integers import gaussian_integers
from fleet_protocol.privacy.device_privacy import DevicePrivacy

SEED_BYTES: Final = 32
UNITS_PER_DEVIATION: Final = 2.0**24
"""Updates and noise are whole numbers of this part of one z's standard deviation."""
VALUES_AT_ONCE: Final = 1 << 18
"""Of a vector of noise: what is drawn takes memory several times over."""


@dataclass(frozen=True, slots=True)
class VersionNoise:
    """The seeds that a version's noise is made of, its own first, and how much what is drawn from each counts."""

    seeds: tuple[bytes, ...]
    coefficients: tuple[float, ...]

    @classmethod
    def of(cls, number: int, seeds: Mapping[int, bytes], plan: DevicePrivacy) -> "VersionNoise":
        """That of the sum `number`, from 1; `seeds` by the number of their sum."""
        row = plan.correlation.coefficients(number)
        return cls(tuple(seeds[each] for each in row), tuple(row.values()))

    def units(self, size: int) -> NDArray[np.float64]:
        """The noise of a sum of `size` values: whole numbers of units, float64."""
        noise = np.zeros(size)
        for coefficient, seed in zip(self.coefficients, self.seeds, strict=True):
            noise += coefficient * _independent(seed, size)
        return np.rint(noise)


@dataclass(frozen=True, slots=True)
class NoiseSeries:
    """The noised sums of a bundle so far: how many were `made`, the `noise` of the last, and by the number of their sum
    the seeds that later noise is made of too.

    `renewed`: an older database has taken the coordinator's place since then, or may have, so sums may have been told
    that are not known here. A version's number is by `sums_after` larger than that of its sum.
    """

    made: int = 0
    seeds: Mapping[int, bytes] = field(default_factory=dict)
    noise: VersionNoise | None = None
    renewed: bool = False
    sums_after: int = 0

    def after(self, seed: bytes, plan: DevicePrivacy) -> "NoiseSeries":
        """Once a version with this seed is made too."""
        made = self.made + 1
        seeds = {**self.seeds, made: seed}
        kept = {number: seeds[number] for number in plan.correlation.kept(made)}
        return replace(self, made=made, seeds=kept, noise=VersionNoise.of(made, seeds, plan))

    @property
    def own_seed(self) -> bytes | None:
        """That of the last sum, which is committed with it."""
        return self.noise.seeds[0] if self.noise else None


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
