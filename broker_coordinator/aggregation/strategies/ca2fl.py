"""CA2FL (Wang et al. 2024, algorithm 2): FedBuff, calibrated by what the absent devices sent last.

    direction = mean over all h_i + weighted mean over the buffer (delta_i - h_i)

h_i is what device i sent last, 0 before its first update, within the bounds of what all devices sent last
(`aggregation.bounds`). Devices that see different classes then count in every version, not only in those whose buffer
contains their update.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from broker_coordinator.aggregation.block_weights import divided, nobodys
from broker_coordinator.aggregation.bounds import bounded, bounded_delta
from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.last_updates import LastUpdates, bounds_of, remember_last
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates
from fleet_protocol.aggregation_plan import AggregationPlan


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The weighted sums of the delta_i and, with the same weights, of the h_i; `updates` are the next h_i."""

    fresh: Contribution
    replaced: Contribution
    updates: Updates

    def __add__(self, later: "Calibrated") -> "Calibrated":
        return Calibrated(self.fresh + later.fresh, self.replaced + later.replaced, self.updates + later.updates)


def partial(state: ServerState, updates: Sequence[BufferedUpdate], plan: AggregationPlan) -> Calibrated:
    """The sums, weighted by samples and staleness."""
    last: LastUpdates = state.remembered
    bounds = bounds_of(last)
    weighted = [(update.weight(plan), update) for update in updates]
    fresh = [(weight, update.delta) for weight, update in weighted]
    replaced = [
        (weight, bounded_delta(before, bounds))
        for weight, update in weighted
        if (before := last.get(update.device)) is not None
    ]
    size = state.weights.size
    return Calibrated(contribution_of(fresh, size), contribution_of(replaced, size), tuple(updates))


def finish(state: ServerState, buffer: Calibrated, plan: AggregationPlan) -> Step:
    """See above; the first mean is weighted by samples."""
    last: LastUpdates = state.remembered
    everyone = contribution_of(bounded(last.values(), bounds_of(last)), state.weights.size)
    correction = divided(buffer.fresh.total_delta - buffer.replaced.total_delta, buffer.fresh.weight)
    remembered = remember_last(state, buffer.updates, plan)
    stays = nobodys(everyone.weight + buffer.fresh.weight)
    return Step(everyone.mean_delta() + correction, remembered=remembered, stays=stays)


CA2FL = Strategy(partial, finish, remember_last, Recall.LAST_UPDATES)
