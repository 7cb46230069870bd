"""Laplace's noise in whole steps, for local differential privacy of sums. Pure.

Dwork, McSherry, Nissim and Smith 2006, "Calibrating noise to sensitivity in private data analysis", in the discrete
form of Ghosh, Roughgarden and Sundararajan 2009, "Universally utility-maximizing privacy mechanisms": to a whole number
of steps a whole number is added, whose probability falls by e^(-epsilon / sensitivity) a step. Floating-point numbers
with Laplace's noise would give themselves away by their last bits (Mironov 2012, "On significance of the least
significant bits for differential privacy").
"""

import math

from fleet_protocol.analytics.draws import Draws

STEPS = 1024
"""In the range of one number: finer than any noise that is worth the name."""
TAIL = 1e-6
"""About the probability that an answer is cut at its bounds, which are the same whatever is true: so that costs no
epsilon. Cutting the noise itself would: an answer beyond the largest noise on 0 would tell that the number is more.
"""


def largest_noise(epsilon: float) -> float:
    """In ranges of the number that it is added to."""
    return math.log(1.0 / TAIL) / epsilon


def noised(share: float, epsilon: float, draws: Draws) -> float:
    """`share`, from 0 to 1, with noise that costs `epsilon`: from -`largest_noise` to 1 + `largest_noise`."""
    bound = math.floor(largest_noise(epsilon) * STEPS)
    noise = _geometric(epsilon, draws) - _geometric(epsilon, draws)
    return max(-bound, min(STEPS + bound, round(share * STEPS) + noise)) / STEPS


def standard_error(devices: int, epsilon: float) -> float:
    """Of the sum of so many numbers, in ranges of one: the square root of twice 1 / epsilon^2 for each."""
    return math.sqrt(2 * devices) / epsilon


def _geometric(epsilon: float, draws: Draws) -> int:
    """A whole number n from 0 with a probability that falls by e^(-epsilon / STEPS) from each to the next."""
    return math.floor(-math.log(1.0 - draws.random()) * STEPS / epsilon)
