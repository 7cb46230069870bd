"""Adds up how devices' values are distributed over bins, and finds where in them a quantile is. Pure."""

import math
from collections.abc import Sequence
from itertools import accumulate

from broker_coordinator.aggregation.analytics.reports import ReportFacts
from fleet_protocol.analytics import randomised_response
from fleet_protocol.kinds import Query

ROUNDING = 1e-12
"""By which a sum of float64 may be less than it should, as a share."""


def pooled(query: Query, reports: Sequence[ReportFacts]) -> list[float]:
    """What is in each bin, in samples that count; with noise in the mean right, and maybe below 0."""
    bins = len(query.edges) + 1
    if not query.epsilon:
        return [math.fsum(column) for column in zip(*(each.numbers for each in reports), strict=True)] or [0.0] * bins
    told = [0] * (bins + 1)
    for each in reports:
        told[int(each.numbers[0])] += 1
    return randomised_response.unbiased(told, query.epsilon_of_round)[1:]


def standard_errors(query: Query, counts: Sequence[float], devices: int) -> list[float]:
    """Of what is in each bin, by what was found there: 0 without noise."""
    if not query.epsilon:
        return [0.0] * len(counts)
    likely = (min(max(count, 0.0), devices) for count in counts)
    answers, epsilon = len(counts) + 1, query.epsilon_of_round
    return [randomised_response.standard_error(true, devices, answers, epsilon) for true in likely]


def one_device_moves(query: Query) -> float:
    """By how much one device changes what is in a bin at most, whatever it says."""
    if not query.epsilon:
        return float(query.samples_per_device)
    return randomised_response.largest_move(len(query.edges) + 2, query.epsilon_of_round)


def bin_of(probability: float, counts: Sequence[float]) -> int | None:
    """The bin that holds the quantile with this probability; None where the bins hold nothing."""
    filled = [max(count, 0.0) for count in counts]
    total = math.fsum(filled)
    if total <= 0:
        return None
    reached = enumerate(accumulate(filled))
    enough = probability * total * (1 - ROUNDING)
    return next(place for place, so_far in reached if so_far >= enough and filled[place])


def bounds_of(bin_number: int, edges: Sequence[float]) -> tuple[float | None, float | None]:
    """The lower and upper edge of a bin; None where it has none."""
    lower = edges[bin_number - 1] if bin_number > 0 else None
    upper = edges[bin_number] if bin_number < len(edges) else None
    return lower, upper


def evenly_spaced(lower: float, upper: float, bins: int) -> list[float]:
    """The edges of so many bins of one width."""
    return [lower + (upper - lower) * number / bins for number in range(bins)] + [upper]


def in_order(edges: Sequence[float]) -> tuple[float, ...]:
    """Each once, ascending."""
    return tuple(sorted(set(edges)))
