"""Noise that devices add behind their masks, each its share: the table `[privacy.masks.noise]`, and what it keeps.

Kairouz, Liu & Steinke 2021, "The distributed discrete Gaussian mechanism for federated learning with secure
aggregation". Nobody sees less than a sum, and every sum has the noise of its least number of devices: devices that are
gone are paid for in advance. Lengths are in levels, the whole numbers that devices sum. Pure Python.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken, divergences_of, epsilon_of
from fleet_protocol.privacy.sample_privacy import Delta, Epsilon

MOST_UPDATES: Final = 10_000
MOST_DEVIATION: Final = 2**24
"""Of one device's noise: what its sampler draws exactly in 64 bits."""
HEADROOM: Final = 12
"""Deviations of a sum's noise that its width has room for. A sum of discrete Gaussians is as sub-Gaussian as one of its
variance (Canonne, Kamath & Steinke 2020, section 2.2), so an entry passes that once in exp(72) / 2, some 1e31.
"""


class NoiseShares(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """No coordinator is told more of one device than `epsilon` and `delta` allow, as devices add the noise themselves
    (docs/privacy.md).
    """

    epsilon: Epsilon
    """The most that all updates of a device may tell: whatever is concluded from them would have been at most
    exp(epsilon) times as likely had they all been zeros, but for `delta`."""
    norm: Annotated[float, msgspec.Meta(gt=0, le=2.0**60)]
    """Largest Euclidean norm of one device's update: longer ones are scaled down to it."""
    at_most: Annotated[int, msgspec.Meta(ge=1, le=MOST_UPDATES)]
    """So many updates one device sends in all, those included whose cohort is void. The device counts them."""
    delta: Delta = 1e-5
    """The probability for which `epsilon` does not speak; smaller than one in the fleet's number of devices."""
    dishonest: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Of the devices of each sum, such a share may add no noise, or tell the coordinator theirs: the others add as much
    more."""
    deviation: Annotated[int, msgspec.Meta(ge=0, le=MOST_DEVIATION)] = 0
    """The standard deviation of the noise that each device adds to each entry, in levels. Found at export."""


@dataclass(frozen=True, slots=True)
class NoisedUpdates:
    """What one update of a bundle is, and what noise hides it.

    `norm` is the longest one's before it is rounded, in levels, of so many `entries`. Each device adds noise of
    `deviation` levels, and that of `honest` devices at least is in a sum.
    """

    norm: float
    entries: int
    deviation: int
    honest: int

    @property
    def largest_square(self) -> int:
        """The largest sum of squares of an update's levels; rounding that gives more is done again.

        Theorem 1 there, with beta = exp(-1/2): two roundings in five are within it at least, whatever the update.
        """
        return int(self.norm**2 + self.entries / 4 + self.norm + math.sqrt(self.entries) / 2)

    @property
    def moved(self) -> float:
        """How far one update moves a sum, in deviations of the noise: Rényi divergences of each order are at most those
        of a Gaussian mechanism that is moved as far (proposition 14 there, the last of its bounds).
        """
        gap = _gap(self.deviation, self.honest)
        return math.sqrt(self.largest_square / self.honest) / self.deviation + gap * math.sqrt(self.entries)

    def taken(self, updates: int) -> StepsTaken:
        """So many updates, each with its own noise."""
        return StepsTaken(Mechanism(1 / self.moved, 1.0), updates)


def epsilon_told(taken: Iterable[StepsTaken], delta: float) -> float:
    """What updates, of whatever bundles, have told of a device at most."""
    steps = [each for each in taken if each.steps]
    return epsilon_of(divergences_of(steps), delta) if steps else 0.0


def honest_devices(devices: int, dishonest: float) -> int:
    """How many of so many devices add noise that nobody else knows, at least. `dishonest` counts as it is written: the
    float that stands for 0.29 is less, and of 100 devices 29 are meant.
    """
    return devices - math.floor(Fraction(str(dishonest)) * devices)


def headroom(deviation: int, devices: int) -> int:
    """How far from 0, in levels, the noise of so many devices gets in an entry of their sum, at most."""
    return math.isqrt(HEADROOM**2 * devices * deviation**2) + (deviation > 0)


def with_shared_noise(noise: NoiseShares, updates: NoisedUpdates, name: str) -> NoiseShares:
    """The table as a bundle has it, with the least noise that its `at_most` updates need.

    Raises:
        ConfigurationError: no noise suffices, or the noise is written.
    """
    if noise.deviation:
        raise ConfigurationError(
            f"{name}: privacy.masks.noise.deviation is {noise.deviation}; leave it out, as it follows from epsilon,"
            " delta and the limits"
        )

    def told(deviation: int) -> float:
        return epsilon_told([replace(updates, deviation=deviation).taken(noise.at_most)], noise.delta)

    if told(MOST_DEVIATION) > noise.epsilon:
        raise ConfigurationError(
            f"{name}: privacy.masks.noise.epsilon is {noise.epsilon:g} at delta {noise.delta:g}, which even noise of"
            f" {MOST_DEVIATION} levels on each device exceeds; lower privacy.masks.bits or at_most, or write a larger"
            " epsilon"
        )
    found = bisect_left(range(1, MOST_DEVIATION), True, key=lambda deviation: told(deviation) <= noise.epsilon)
    return msgspec.structs.replace(noise, deviation=1 + found)


def rules_of_noise(noise: NoiseShares, updates: NoisedUpdates) -> list[tuple[bool, str]]:
    """What must hold of a bundle's noise, each with what is said where it does not."""
    if not noise.deviation:
        return [(False, "has noise of deviation 0; export again")]
    told = epsilon_told([updates.taken(noise.at_most)], noise.delta)
    return [
        (
            told <= noise.epsilon,
            f"promises epsilon {noise.epsilon:g}, and noise of {noise.deviation} levels on each of {updates.honest}"
            f" devices keeps {told:.4g}; export again",
        ),
        (
            updates.largest_square <= 2 * updates.norm**2,
            f"has updates of norm {noise.norm:g}, {updates.norm:.3g} levels, of {updates.entries} entries, which"
            " rounding could make half as long again; raise bits or norm, or lower clip or keep_fraction",
        ),
    ]


@lru_cache(maxsize=64)
def _gap(deviation: int, devices: int) -> float:
    """How far the logarithm of a probability of a sum of discrete Gaussians is from that of one discrete Gaussian of
    the sum's variance (tau of proposition 14 there): 5e-4 for two of deviation 1, 7e-17 for two of deviation 2.
    """
    exponents = (-2 * (math.pi * deviation) ** 2 * part / (part + 1) for part in range(1, devices))
    return 10 * math.fsum(math.exp(exponent) for exponent in exponents)
