"""The coordinate-wise trimmed mean (Yin et al. 2018, algorithm 1, option II), over the updates that sent an entry.

Of the k that sent it, ceil(k * f / n) are left out at either end, and one or two stay; f of the n updates may be
hostile. Of one or two that sent it, none can be left out.
"""

import numpy as np

from broker_coordinator.aggregation.robust.by_entry import Counts, mean_between, of_sent
from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Matrix, Vector


def trimmed_mean(compared: Compared) -> Vector:
    """See above."""
    count = len(compared.stack)
    hostile = min(compared.hostile, (count - 1) // 2)

    def trimmed(ascending: Matrix, sent: Counts) -> Vector:
        cut = np.minimum(-(-sent * hostile // count), (sent - 1) // 2)
        return mean_between(ascending, cut, sent - cut)

    return of_sent(compared.stack, trimmed)
