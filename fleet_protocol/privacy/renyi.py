"""What steps of noised training cost, as Rényi divergences, which add up. Pure Python: a device counts with it too.

A step takes each sample into its batch with probability q, by itself, clips what each adds to norm C, and adds
Gaussian noise of standard deviation sigma * C to the sum. Neighbours are two stores that differ in one sample, which
the other one has replaced by nothing ("zero-out", Kairouz et al. 2021, section 2): how many samples there are is the
same in both.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Divergences = tuple[float, ...]
"""Of each order in `ORDERS`."""

ORDERS: Final = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
"""Integer ones alone have a closed form. Large epsilons are reached at small orders, small ones at large orders."""

NO_COST: Final[Divergences] = (0.0,) * len(ORDERS)

MOST_STEPS: Final = 2**40
"""More than a device has time for; stands for no limit."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One step: its `noise_multiplier` sigma, and the `sampling_rate` q. Without noise its cost is infinite."""

    noise_multiplier: float
    sampling_rate: float


@dataclass(frozen=True, slots=True)
class StepsTaken:
    """So many `steps` of one mechanism."""

    mechanism: Mechanism
    steps: int


@lru_cache(maxsize=256)
def divergences_of_step(mechanism: Mechanism) -> Divergences:
    """The Rényi divergence of one step, at each of `ORDERS`.

    Mironov, Talwar & Zhang 2019, "Rényi differential privacy of the sampled Gaussian mechanism", equation 30 for
    integer orders; of the two directions that is the larger one (their theorem 5).
    """
    return tuple(_divergence(mechanism.noise_multiplier, mechanism.sampling_rate, order) for order in ORDERS)


def divergences_of(taken: Iterable[StepsTaken]) -> Divergences:
    """What steps of several mechanisms cost together."""
    total = NO_COST
    for part in taken:
        each = divergences_of_step(part.mechanism)
        total = together(total, tuple(part.steps * one for one in each))
    return total


def together(one: Divergences, other: Divergences) -> Divergences:
    """What two costs come to."""
    return tuple(sum_ + more for sum_, more in zip(one, other, strict=True))


def epsilon_of(divergences: Divergences, delta: float) -> float:
    """The epsilon, at least 0, that holds at `delta` in 0 to 1; infinite where no order has a finite divergence.

    Canonne, Kamath & Steinke 2020, "The discrete Gaussian for differential privacy", proposition 12.
    """
    bounds = zip(ORDERS, divergences, strict=True)
    return max(0.0, min(cost + _conversion(order, delta) for order, cost in bounds))


def steps_within(mechanism: Mechanism, epsilon: float, delta: float, spent: Divergences = NO_COST) -> int:
    """How many steps a sample that has spent so much can still be part of; 0 where it has spent `epsilon`."""
    step = divergences_of_step(mechanism)
    most = 0
    for order, before, each in zip(ORDERS, spent, step, strict=True):
        room = epsilon - _conversion(order, delta) - before
        if room >= 0:
            most = max(most, MOST_STEPS if each * MOST_STEPS <= room else int(room / each))
    return most


@lru_cache(maxsize=256)
def best_order(mechanism: Mechanism, epsilon: float, delta: float) -> int:
    """The place in `ORDERS` of the order that allows most steps of this mechanism."""
    step = divergences_of_step(mechanism)
    rooms = [epsilon - _conversion(order, delta) for order in ORDERS]
    steps = [room / each if each else math.copysign(math.inf, room) for room, each in zip(rooms, step, strict=True)]
    return max(range(len(ORDERS)), key=steps.__getitem__)


def exceeds_at(place: int, cost: Divergences, epsilon: float, delta: float) -> bool:
    """Whether so much is more than `epsilon` allows at the order in this place of `ORDERS`."""
    return cost[place] > epsilon - _conversion(ORDERS[place], delta)


def noise_for(steps: int, sampling_rate: float, epsilon: float, delta: float, bounds: Sequence[float]) -> float | None:
    """The smallest noise multiplier within `bounds`, to a thousandth, with which so many steps cost at most `epsilon`;
    None where even the largest costs more.
    """
    low, high = bounds

    def suffices(noise: float) -> bool:
        return steps_within(Mechanism(noise, sampling_rate), epsilon, delta) >= steps

    if not suffices(high):
        return None
    while high - low > low / 1000:
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _divergence(noise: float, rate: float, order: int) -> float:
    if rate == 0:
        return 0.0
    if noise == 0:
        return math.inf
    scale = 1 / (2 * noise * noise)
    if rate == 1:
        return order * scale
    # The chances of a binomial draw add up to 1, so they are left out: beside a 1, what small rates cost is lost.
    terms = [
        _log_choose(order, chosen)
        + (order - chosen) * math.log1p(-rate)
        + chosen * math.log(rate)
        + _log_expm1(chosen * (chosen - 1) * scale)
        for chosen in range(2, order + 1)
    ]
    largest = max(terms)
    excess = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    return (excess + math.log1p(math.exp(-excess)) if excess > 0 else math.log1p(math.exp(excess))) / (order - 1)


def _log_expm1(exponent: float) -> float:
    """The logarithm of exp(exponent) - 1, for an exponent above 0."""
    return exponent + math.log(-math.expm1(-exponent))


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _conversion(order: int, delta: float) -> float:
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
