"""EF21 (Richtarik et al. 2021, algorithm 2; partial participation: Fatkhullin et al. 2021): the mean of estimates.

    estimate_i = estimate_i + update_i        for the devices in the buffer
    direction = weighted mean over all estimate_i

A device weighs as many samples as it last had. Staleness does not weaken an update: both sides must add the same. For
that reason no update is scaled either; the mean takes estimates within the bounds of all of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.bounds import Bounds
from broker_coordinator.aggregation.contribution import BufferedUpdate, Contribution
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates, in_order
from fleet_protocol.aggregation_plan import AggregationPlan

MAX_LIVES = 16
"""A device begins a life where its database was emptied. Updates of one that ended so many lives ago are not on their
way any more."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one device's delta, float64, with the samples that it last had, and the last `MAX_LIVES` of its `lives`.

    The last of the lives is the one that goes on; an update of an earlier one comes too late to count.
    """

    delta: NDArray[np.float64]
    samples: int
    lives: tuple[int, ...]


def finish(state: ServerState, updates: Updates, plan: AggregationPlan) -> Step:
    """See above."""
    estimates = remember(state, updates, plan)
    norms = {device: float(np.linalg.norm(estimate.delta)) for device, estimate in estimates.items()}
    bounds = Bounds.among([estimate.samples for estimate in estimates.values()], norms.values())
    total = np.zeros(state.weights.size)
    weight = 0.0
    for device, estimate in estimates.items():
        counts = bounds.weight(estimate.samples)
        total += counts * bounds.scale(norms[device]) * estimate.delta
        weight += counts
    return Step(Contribution(total, weight).mean_delta(), remembered=estimates)


def remember(state: ServerState, buffer: Iterable[BufferedUpdate], _: AggregationPlan) -> Mapping[str, Estimate]:
    """The estimates once these updates are added, by device, sorted by name."""
    estimates: dict[str, Estimate] = dict(state.remembered)
    for update in buffer:
        estimates[update.device] = added(estimates.get(update.device), update, state.weights.size)
    return dict(sorted(estimates.items()))


def added(before: Estimate | None, update: BufferedUpdate, size: int) -> Estimate:
    """A device's estimate, of so many values, with its next update."""
    lives = before.lives if before else ()
    if before is not None and update.life in lives:
        if update.life != lives[-1]:
            return before
        delta = before.delta.copy()
    else:
        delta = np.zeros(size)
        lives = (*lives, update.life)[-MAX_LIVES:]
    delta[update.delta.indices] += update.delta.values
    return Estimate(delta, update.samples, lives)


EF21 = Strategy(in_order, finish, remember, Recall.ALL_UPDATES)
