"""Sum, mean and variance of values within bounds. Pure.

A value becomes u, its place between `lower` and `upper` from 0 to 1, beyond which it is clipped. A device with n
samples, of which w = min(n, `samples_per_device`) count, sends w, w mean(u) and, for a variance, w mean(u^2). With
`epsilon` each of these, divided by `samples_per_device`, gets an equal part of it (`laplace`).
"""

from collections.abc import Sequence
from typing import Final

from fleet_protocol.analytics.draws import Draws
from fleet_protocol.analytics.laplace import STEPS, largest_noise, noised
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, Query

NUMBERS: Final = {"sum": 2, "mean": 2, "variance": 3}
"""How many a device sends, by what is asked."""
ROUNDING = 1e-6
"""By which a mean of float64 may be more than it should."""


def answer(query: Query, values: Sequence[float], draws: Draws) -> tuple[float, ...]:
    """What a device with these values sends."""
    count, most = len(values), query.samples_per_device
    places = [(min(max(value, query.lower), query.upper) - query.lower) for value in values]
    shares = [place / (query.upper - query.lower) for place in places]
    weight = min(count, most)
    powers = [sum(share**power for share in shares) / max(count, 1) for power in range(1, NUMBERS[query.ask])]
    exact = (float(weight), *(weight * mean for mean in powers))
    if not query.epsilon:
        return exact
    epsilon = query.epsilon_of_round / len(exact)
    return tuple(most * noised(number / most, epsilon, draws) for number in exact)


def check(query: Query, report: AnalyticsReport) -> None:
    """Refuse what no device's values can be, with the noise that they may have.

    Raises:
        ProtocolError: with what is wrong.
    """
    numbers, most = report.numbers, query.samples_per_device
    if len(numbers) != NUMBERS[query.ask]:
        raise ProtocolError(Reason.WRONG_SHAPE, f"{len(numbers)} numbers; a {query.ask} takes {NUMBERS[query.ask]}")
    weight, first = numbers[0], numbers[1]
    if query.epsilon:
        slack = most * (largest_noise(query.epsilon_of_round / len(numbers)) + 1 / STEPS)
        bounds, rounding = [(-slack, most + slack)] * len(numbers), ROUNDING * most
    elif not 0 <= weight <= most or weight % 1:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{weight:g} samples count; it is a whole number from 0 to {most}")
    else:
        # Of u from 0 to 1, the mean of squares is at most that of u, and at least its square (Jensen).
        squares = (first * first / weight if weight else 0.0, first)
        bounds, rounding = [(weight, weight), (0.0, weight), squares], ROUNDING * weight
    for number, (least, largest) in zip(numbers, bounds, strict=False):
        if not least - rounding <= number <= largest + rounding:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS, f"{number:g} in an answer for a {query.ask}; it is from {least:g} to {largest:g}"
            )
