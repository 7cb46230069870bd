"""Noise that is correlated over versions, so that later noise takes back a part of earlier noise. Pure Python.

    sums that are told       y_t = x_t + w_t,   w = D z,   z independent Gaussians, one for each version
    which is D (C x + z)     with C the inverse of D: one Gaussian mechanism, of the sensitivity of C x

D is the inverse square root of the matrix of prefix sums, cut off behind `bands` diagonals (Kalinin, McKenna, Upadhyay
& Lampert 2025, "Back to square roots"): the model is a prefix sum, and this is close to the best for it. A version's
noise then follows from `bands` vectors z, so nothing else has to be kept. One band is independent noise.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MOST_BANDS: Final = 32
"""Each version draws so many vectors of noise again."""


@dataclass(frozen=True, slots=True)
class Banded:
    """Noise of so many `bands`, in versions of a bundle that are numbered from 1."""

    bands: int

    def coefficients(self, number: int) -> dict[int, float]:
        """Row `number` of D: by the number of each version, what its z counts in the noise of this one."""
        return {number - back: each for back, each in enumerate(noise_coefficients(min(self.bands, number)))}

    def kept(self, number: int) -> frozenset[int]:
        """The versions up to `number` whose z is in the noise of later ones."""
        return frozenset(range(max(1, number + 2 - self.bands), number + 1))

    def sensitivity(self, versions: int, at_most: int, versions_between: int) -> float:
        """See `sensitivity`."""
        return sensitivity(versions, self.bands, at_most, versions_between)

    def error_of_prefix_sums(self, versions: int) -> float:
        """See `error_of_prefix_sums`."""
        return error_of_prefix_sums(versions, self.bands)


def noise_coefficients(bands: int) -> tuple[float, ...]:
    """The first column of D: those of the power series of the square root of 1 - x."""
    found = [1.0]
    for place in range(1, bands):
        found.append(found[-1] * (place - 1.5) / place)
    return tuple(found)


@lru_cache(maxsize=64)
def strategy_coefficients(versions: int, bands: int) -> tuple[float, ...]:
    """The first column of C, the inverse of D: none is negative, and they fall."""
    taken = [-each for each in noise_coefficients(bands)]
    found = [1.0]
    for version in range(1, versions):
        found.append(math.fsum(taken[back] * found[version - back] for back in range(1, min(bands, version + 1))))
    return tuple(found)


@lru_cache(maxsize=64)
def sensitivity(versions: int, bands: int, at_most: int, versions_between: int) -> float:
    """How far, in Euclidean norm, one device moves C x, whose updates have norm 1 and count in `at_most` of so many
    versions, each `versions_between` behind the one before at least.

    As C's coefficients fall and are not negative, updates that are alike, from the first version on and as close as
    may be, move it most (Kalinin & Lampert 2024, "Banded square root matrix factorization", theorem 2).
    """
    column = strategy_coefficients(versions, bands)
    moved = [0.0] * versions
    for first in range(0, min(versions, at_most * versions_between), versions_between):
        for version in range(first, versions):
            moved[version] += column[version - first]
    return math.sqrt(math.fsum(each * each for each in moved))


def error_of_prefix_sums(versions: int, bands: int) -> float:
    """The root mean square, over versions, of the noise in the sum of all so far; in deviations of one z."""
    total, sums, squares = 0.0, 0.0, []
    coefficients = noise_coefficients(bands)
    for version in range(versions):
        total += coefficients[version] if version < bands else 0.0
        sums += total * total
        squares.append(sums)
    return math.sqrt(math.fsum(squares) / versions)


@lru_cache(maxsize=64)
def best_bands(versions: int, at_most: int, versions_between: int) -> int:
    """The number of bands with which prefix sums have the least noise at the same privacy."""
    powers = (1 << power for power in range(MOST_BANDS.bit_length()))

    def noise(bands: int) -> float:
        return sensitivity(versions, bands, at_most, versions_between) * error_of_prefix_sums(versions, bands)

    return min((bands for bands in powers if bands <= versions), key=noise)
