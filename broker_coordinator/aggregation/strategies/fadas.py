"""FADAS (Wang et al. 2024, algorithm 1): FedBuff's mean under an adaptive optimiser, slower while updates are late.

    rate = 1                                            if the largest staleness in the buffer is at most c
           min(1, 1 / (server_learning_rate * largest)) otherwise

c is `delay_threshold`. The paper's optimiser is "amsgrad"; any other adaptive one goes as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from broker_coordinator.aggregation.contribution import (
    BufferedUpdate,
    Contribution,
    contribution_of,
    weighted_by_samples,
)
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Step, Strategy
from fleet_protocol.aggregation_plan import AggregationPlan


@dataclass(frozen=True, slots=True)
class Delayed:
    """The sum, weighted by samples whatever the staleness, and the largest staleness in it."""

    total: Contribution
    largest: int

    def __add__(self, later: "Delayed") -> "Delayed":
        return Delayed(self.total + later.total, max(self.largest, later.largest))


def partial(state: ServerState, updates: Sequence[BufferedUpdate], _: AggregationPlan) -> Delayed:
    """See above."""
    largest = max((update.staleness for update in updates), default=0)
    return Delayed(contribution_of(weighted_by_samples(updates), state.weights.size), largest)


def finish(_: ServerState, delayed: Delayed, plan: AggregationPlan) -> Step:
    """The mean, with the delay-adaptive rate."""
    largest = delayed.largest
    rate = 1.0 if largest <= plan.delay_threshold else min(1.0, 1 / (plan.server_learning_rate * largest))
    return Step(delayed.total.mean_delta(), rate, stays=delayed.total.nobodys())


FADAS = Strategy(partial, finish)
