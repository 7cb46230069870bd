"""Discrete Gaussians, exactly, many at once: whole numbers alone, of bytes that nobody can foresee. Pure.

    P(z) is proportional to exp(-z^2 / (2 sigma^2)),  z and sigma whole numbers

Canonne, Kamath & Steinke 2020, "The discrete Gaussian for differential privacy", algorithms 1 to 3. No float is
involved: its last bits would tell which sum a noised one can have come from (Mironov 2012).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
RandomBytes = Callable[[int], bytes]
"""So many bytes that nobody can foresee: on a device the operating system's."""

_MOST_STEPS: Final = 128
"""A Laplace value of more deviations is drawn again: it would be taken once in exp(8000)."""
_WORDS: Final = 2**64
_BATCH: Final = 2.3
"""Values drawn for each that is taken, which is a little more than it takes on average."""


def discrete_gaussian(count: int, deviation: int, random_bytes: RandomBytes) -> Whole:
    """So many independent discrete Gaussians, int64[count]; `deviation` is from 1 to `MOST_DEVIATION` (2^24:
    squares of what is drawn fit 64 bits).
    """
    found, missing = [np.empty(0, np.int64)], count
    while missing > 0:
        values = _laplace(int(_BATCH * missing) + 16, deviation, random_bytes)
        distance = np.abs(values) - deviation
        taken = values[_with_probability_exp(distance * distance, 2 * deviation * deviation, random_bytes)]
        found.append(taken[:missing])
        missing -= found[-1].size
    return np.concatenate(found)


def _laplace(tries: int, scale: int, random_bytes: RandomBytes) -> Whole:
    """Discrete Laplace values, P(z) proportional to exp(-|z| / scale): what comes of so many tries, algorithm 2."""
    rest = _below(scale, tries, random_bytes)
    rest = rest[_with_probability_exp(rest, scale, random_bytes)]
    steps = np.zeros(rest.size, np.int64)
    going = np.arange(rest.size)
    while going.size and steps[going[0]] < _MOST_STEPS:
        ones = np.ones(going.size, np.int64)
        going = going[_with_probability_exp(ones, 1, random_bytes)]
        steps[going] += 1
    size = rest + scale * steps
    negative = np.frombuffer(random_bytes(size.size), np.uint8) & np.int64(1)
    usable = (steps < _MOST_STEPS) & ((negative == 0) | (size != 0))  # or 0 would come twice as often
    values: Whole = (size * (1 - 2 * negative))[usable]
    return values


def _with_probability_exp(numerators: Whole, denominator: int, random_bytes: RandomBytes) -> NDArray[np.bool_]:
    """For each numerator, none of which is negative, yes with probability exp(-numerator / denominator)."""
    whole, rest = np.divmod(numerators, denominator)
    yes = _with_probability_exp_below_one(rest, denominator, random_bytes)
    alive = np.flatnonzero(yes & (whole > 0))
    done = 0
    while alive.size:
        done += 1
        lives = _with_probability_exp_below_one(np.ones(alive.size, np.int64), 1, random_bytes)
        yes[alive[~lives]] = False
        alive = alive[lives & (whole[alive] > done)]
    return yes


def _with_probability_exp_below_one(
    numerators: Whole, denominator: int, random_bytes: RandomBytes
) -> NDArray[np.bool_]:
    """The same for fractions from 0 to 1, algorithm 1: whether the first failure among yes with probability
    fraction / 1, fraction / 2, ... has an odd number, as the series of exp has alternating signs.
    """
    yes = np.zeros(numerators.size, bool)
    going, number = np.arange(numerators.size), 1
    while going.size:
        goes_on = _below(denominator * number, going.size, random_bytes) < numerators[going]
        yes[going[~goes_on]] = number % 2 == 1
        going, number = going[goes_on], number + 1
    return yes


def _below(bound: int, count: int, random_bytes: RandomBytes) -> Whole:
    """So many even draws from 0 to bound - 1; words that would favour small ones are drawn again."""
    if bound == 1:
        return np.zeros(count, np.int64)
    fair = _WORDS - _WORDS % bound
    drawn = _words(count, random_bytes)
    while (unfair := np.flatnonzero(drawn > np.uint64(fair - 1))).size:
        drawn[unfair] = _words(unfair.size, random_bytes)
    return (drawn % np.uint64(bound)).astype(np.int64)


def _words(count: int, random_bytes: RandomBytes) -> NDArray[np.uint64]:
    return np.frombuffer(random_bytes(8 * count), "<u8").astype(np.uint64)
