"""Rules that look at each entry by itself: over the updates that sent it. Pure.

    result = (share of the updates that sent it) * estimate(what these sent)

Most updates hold few entries. An entry that was not sent says nothing of where the device wants it, and a 0 that was
sent does: with zeros in the place of both, the median of all entries that less than half of the devices sent would be
0, and nothing would be learned. The share makes the rule the mean where the estimate is the mean. Which is why such a
rule is weak where few send an entry: it withstands as many hostile devices as are less than half of those that sent it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.robust.stack import Matrix, Stack, Vector

Counts = NDArray[np.int64]
Estimate = Callable[[Matrix, Counts], Vector]
"""Of each column of float64 [N, C], whose first `sent` entries, int64 [C], ascend, at least one; NaN is below them."""


def of_sent(stack: Stack, estimate: Estimate) -> Vector:
    """See above; 0 where nobody sent an entry."""
    found = np.zeros(stack.size)
    for place, columns in stack.columns():
        sent = len(stack) - np.isnan(columns).sum(axis=0)
        some = np.flatnonzero(sent)
        ascending = np.sort(columns[:, some], axis=0)
        found[place][some] = estimate(ascending, sent[some]) * sent[some] / len(stack)
    return found


def middle(ascending: Matrix, sent: Counts) -> Vector:
    """The median, the mean of the two in the middle where there are two."""
    lower, upper = ((sent - 1) // 2)[None, :], (sent // 2)[None, :]
    found: Vector = (np.take_along_axis(ascending, lower, 0) + np.take_along_axis(ascending, upper, 0))[0] / 2
    return found


def mean_between(ascending: Matrix, first: Counts, end: Counts) -> Vector:
    """The mean of rows `first` to before `end` of each column, one at least."""
    rows = np.arange(len(ascending))[:, None]
    total: Vector = np.where((rows >= first) & (rows < end), ascending, 0).sum(axis=0)
    return total / (end - first)
