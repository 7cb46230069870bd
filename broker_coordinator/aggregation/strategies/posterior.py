"""Partitioned variational inference (Bui et al. 2018, algorithm 1; Ashman et al. 2022): the prior times every factor.

    factor_i = factor_i + update_i            for the devices in the buffer, both in natural parameters
    precision = prior precision + sum over all devices of precision_i
    mean = (prior precision * prior mean + sum over all devices of (precision * mean)_i) / precision

    weight = weight + weighted mean of update_i        for weights without a Gaussian: FedBuff

Version 0 is the prior. A version is the model, and behind it precisions in units of the prior's deviation
(`fleet_protocol.posterior_plan`), so that weighted means count in precisions of the prior. A factor is a device's EF21
estimate, within the bounds of all of them; it never makes anything less precise. Sums need no weights by samples, and
of staleness none: what a device has not moved since is still its factor. The other weights move by the buffer's updates
alone, each within the bounds of what all devices sent last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from broker_coordinator.aggregation.bounds import Bounds, scaled
from broker_coordinator.aggregation.contribution import BufferedUpdate, contribution_of
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies.ef21 import Estimate, added
from broker_coordinator.aggregation.strategies.strategy import Recall, Step, Strategy, Updates, in_order
from fleet_protocol.aggregation_plan import AggregationPlan, largest_delta_norm_of
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector, IndexVector


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a factor is told in updates, `told` int64[2H]: at the weights that have a Gaussian, and at the precisions
    that a version of `size` values has behind the model.
    """

    told: IndexVector
    size: int

    @classmethod
    def of(cls, state: ServerState) -> "Layout":
        """As version 0 says."""
        return cls(np.flatnonzero(state.moments[1]), state.weights.size)

    def divided(self, update: SparseUpdate) -> tuple[SparseUpdate, SparseUpdate]:
        """What an update says of the factor, by places among `told`, and what of the other weights."""
        places = np.full(self.size, -1, np.int64)
        places[self.told] = np.arange(self.told.size)
        found = places[update.indices]
        of_factor = found >= 0
        return (
            SparseUpdate(found[of_factor], update.values[of_factor]),
            SparseUpdate(update.indices[~of_factor], update.values[~of_factor]),
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one device: its `factor` f64[2H], and the norm of what it sent last of the other weights."""

    factor: Estimate
    moved: float


def first_moments(first: FloatVector, told: IndexVector) -> NDArray[np.float32]:
    """Version 0, and 1 in the places of it that factors are told in."""
    places = np.zeros(first.size, np.float32)
    places[told] = 1
    return np.stack([first, places])


def remember(state: ServerState, buffer: Iterable[BufferedUpdate], _: AggregationPlan) -> Mapping[str, Kept]:
    """What is kept of each device once these updates are added, sorted by name."""
    layout = Layout.of(state)
    kept: dict[str, Kept] = dict(state.remembered)
    for update in buffer:
        of_factor, rest = layout.divided(update.delta)
        before = kept.get(update.device)
        factor = added(before.factor if before else None, replace(update, delta=of_factor), layout.told.size)
        kept[update.device] = Kept(factor, rest.norm())
    return dict(sorted(kept.items()))


def finish(state: ServerState, updates: Updates, plan: AggregationPlan) -> Step:
    """See above."""
    layout, kept = Layout.of(state), remember(state, updates, plan)
    direction = _moved(updates, layout, kept, plan)
    prior_mean, prior = np.split(state.moments[0][layout.told].astype(np.float64), 2)
    weighted_mean, precision = np.split(_product([each.factor for each in kept.values()], layout.told.size), 2)
    times = 1 + precision / prior
    posterior = np.concatenate([(prior_mean + weighted_mean) / times, prior * times])
    direction[layout.told] = posterior - state.weights[layout.told]
    return Step(direction, remembered=kept)


def _product(factors: Sequence[Estimate], size: int) -> NDArray[np.float64]:
    """The sum of their natural parameters, float64 [size], each within the bounds of all."""
    norms = [float(np.linalg.norm(factor.delta)) for factor in factors]
    bounds = Bounds.among([factor.samples for factor in factors], norms)
    total = np.zeros(size)
    for factor, norm in zip(factors, norms, strict=True):
        bounded = bounds.scale(norm) * factor.delta
        bounded[size // 2 :] = np.maximum(bounded[size // 2 :], 0)
        total += bounded
    return total


def _moved(updates: Updates, layout: Layout, kept: Mapping[str, Kept], plan: AggregationPlan) -> NDArray[np.float64]:
    """The weighted mean of what updates say of weights without a Gaussian, float64, as long as a version."""
    bounds = Bounds.among([each.factor.samples for each in kept.values()], [each.moved for each in kept.values()])
    longest = largest_delta_norm_of(layout.size)
    weighted = []
    for update in updates:
        rest = layout.divided(update.delta)[1]
        norm = rest.norm()
        weighted.append((update.weight(plan), scaled(rest, min(bounds.scale(norm), longest / max(norm, longest)))))
    return contribution_of(weighted, layout.size).mean_delta()


POSTERIOR = Strategy(in_order, finish, remember, Recall.ALL_UPDATES, keeps_first=True)
