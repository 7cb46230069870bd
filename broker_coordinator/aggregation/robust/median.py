"""The coordinate-wise median (Yin et al. 2018, algorithm 1, option I), over the updates that sent an entry."""

from broker_coordinator.aggregation.robust.by_entry import middle, of_sent
from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector


def median(compared: Compared) -> Vector:
    """See above."""
    return of_sent(compared.stack, middle)
