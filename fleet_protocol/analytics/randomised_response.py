"""Randomised response: one of several answers, given truly with a known probability. Local differential privacy. Pure.

k-ary randomised response (Kairouz, Oh and Viswanath 2014, "Extremal mechanisms for local differential privacy",
equation 14): the true answer has the probability e^epsilon / (e^epsilon + k - 1), each other one
1 / (e^epsilon + k - 1). Their quotient is e^epsilon, so that is what the answer costs, whatever was true.
"""

import math
from collections.abc import Sequence

from fleet_protocol.analytics.draws import Draws


def probabilities(answers: int, epsilon: float) -> tuple[float, float]:
    """Of the true one of so many `answers`, and of each other one."""
    others = 1.0 / (math.exp(epsilon) + answers - 1)
    return math.exp(epsilon) * others, others


def respond(true: int, answers: int, epsilon: float, draws: Draws) -> int:
    """What is told of the `true` one, a number from 0 to `answers` - 1."""
    truly, other = probabilities(answers, epsilon)
    # With the rest of the probability, 1 - (truly - other), any answer is told, the true one too.
    return true if draws.random() < truly - other else draws.randrange(answers)


def unbiased(told: Sequence[int], epsilon: float) -> list[float]:
    """How often each answer was true, in the mean, where `told` says how often it was told."""
    truly, other = probabilities(len(told), epsilon)
    return [(count - sum(told) * other) / (truly - other) for count in told]


def standard_error(true: float, devices: int, answers: int, epsilon: float) -> float:
    """Of one such number, where the answer is true of so many of the `devices`: two binomial distributions."""
    truly, other = probabilities(answers, epsilon)
    variance = true * truly * (1 - truly) + (devices - true) * other * (1 - other)
    return math.sqrt(variance) / (truly - other)


def largest_move(answers: int, epsilon: float) -> float:
    """By how much one device moves one of those numbers at most, whatever it tells: 1 without noise."""
    truly, other = probabilities(answers, epsilon)
    return 1.0 / (truly - other)
