"""Running statistics of batch normalisation in a version: a moving mean over devices, whatever is done with weights.

    statistics = statistics + rate * weighted mean over the buffer of tempered * bounded(change)

A change says how far a device's own statistics are from the version's, so neither the server's learning rate nor its
momentum nor what absent devices sent last has a meaning here. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from broker_coordinator.aggregation.block_weights import Weight, at
from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import Partial
from fleet_protocol.aggregation_plan import AggregationPlan

LOWEST_RATE: Final = 0.1
"""Of the moving mean: the first versions count alike, from the tenth on it forgets. Stale changes stay harmless."""
MAX_GROWTH: Final = 3.0
"""A device's change counts at most as so many times the statistic plus one: dB reach their mean within a few versions,
and no device moves it by more than its share of that."""


@dataclass(frozen=True, slots=True)
class WithStatistics:
    """The partial of a task's strategy, and the weighted sum of bounded changes beside it."""

    step: Partial
    changes: Contribution

    def __add__(self, later: "WithStatistics") -> "WithStatistics":
        return WithStatistics(self.step + later.step, self.changes + later.changes)


def with_statistics(
    step: Partial, state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan, count: int
) -> WithStatistics:
    """`step` with the changes of the same updates; `count` statistics stand behind all weights."""
    most = MAX_GROWTH * (np.abs(state.weights[-count:], dtype=np.float64) + 1)
    total = np.zeros(count)
    weight: Weight = 0.0
    places = np.arange(state.weights.size - count, state.weights.size)
    for update in updates:
        total += at(update.weight(plan), places) * update.tempered * np.clip(update.statistics, -most, most)
        weight = weight + update.weight(plan)
    return WithStatistics(step, Contribution(total, weight))


def with_next_statistics(made: ServerState, state: ServerState, changes: Contribution) -> ServerState:
    """The version `made` after `state`, its statistics moved by the mean of `changes` and nothing else."""
    mean = changes.mean_delta()
    rate = max(LOWEST_RATE, 1 / made.version)
    weights = made.weights.copy()
    weights[-mean.size :] = state.weights[-mean.size :] + rate * mean
    return replace(made, weights=weights)
