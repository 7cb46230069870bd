"""Which edges the bins of a histogram, or of quantiles, have in each round. Pure.

Quantiles are a histogram that is refined over reports: each round divides the bin that a quantile is in. Its width, and
so the error, is known ahead: the range divided by `bins` to the power of the rounds. A sketch as DDSketch takes one
round, and has as many buckets as values ask for; bins are few and their number is fixed, so that one rule bounds what a
device that lies can do, and the same noise serves.
"""

import math
from collections.abc import Sequence
from typing import Final

from broker_coordinator.aggregation.analytics.bins import bin_of, bounds_of, evenly_spaced, in_order
from broker_coordinator.aggregation.analytics.stored_query import StoredQuery

_POWERS: Final = tuple(2.0**exponent for exponent in range(-16, 41))
UNKNOWN_RANGE: Final = (*(-power for power in reversed(_POWERS)), 0.0, *_POWERS)
"""Edges for values of which nothing is known: powers of two up to a million million."""
LEFT_OUT: Final = 0.005
"""A histogram without edges of its own leaves out at least this share of what was found, at either end."""
FEWEST_SHARES: Final = 3
"""Less than so many devices' shares tell no range without the share of each: nothing more is left out."""
ROUNDING: Final = 1e-9
"""By which a share is more than that of one device for certain."""


def next_edges(stored: StoredQuery, counts: Sequence[float]) -> tuple[float, ...] | None:
    """The edges of the next round, after one in which `counts` are in the bins; None where nothing is to be divided."""
    edges, bins = stored.query.edges, stored.aims.bins
    if stored.query.ask == "histogram":
        return _negotiated(edges, counts, bins, stored.query.samples_per_device)
    kept = [edges[0], edges[-1]]
    for probability in stored.aims.probabilities:
        place = bin_of(probability, counts)
        lower, upper = (None, None) if place is None else bounds_of(place, edges)
        if lower is not None and upper is not None:
            kept += evenly_spaced(lower, upper, bins)
    return in_order(kept) if len(kept) > 2 else None


def _negotiated(
    edges: Sequence[float], counts: Sequence[float], bins: int, of_one_device: float
) -> tuple[float, ...] | None:
    """The range that is left without as much as one device counts for at either end, so that none alone widens it."""
    total = math.fsum(counts)
    share = of_one_device / total * (1 + ROUNDING) if total >= FEWEST_SHARES * of_one_device else 0.0
    left_out = max(LEFT_OUT, share)
    first, last = bin_of(left_out, counts), bin_of(1 - left_out, counts)
    if first is None or last is None:
        return None
    lower = edges[max(first - 1, 0)]
    upper = edges[min(last, len(edges) - 1)]
    return in_order(evenly_spaced(lower, upper, bins)) if lower < upper else None
