"""Sums of updates that add, so that parts of a buffer, or shards, can be merged. Pure.

weight = samples * staleness_weight
contribution = (sum(weight * delta), sum(weight))
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.block_weights import BlockWeights, Weight, at, divided, nobodys
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector


def staleness_weight(staleness: int, plan: AggregationPlan) -> float:
    """How much an update counts that started `staleness` versions ago, 1 for a fresh one (FedAsync: Xie et al. 2019,
    section 5.2; FedBuff takes the polynomial one).
    """
    match plan.staleness_weighting:
        case "constant":
            return 1.0
        case "polynomial":
            return float((1 + staleness) ** -plan.staleness_exponent)
        case "hinge":
            excess = staleness - plan.staleness_hinge
            return 1.0 if excess <= 0 else 1 / (1 + plan.staleness_slope * excess)


NO_STATISTICS: Final = np.empty(0, np.float32)


class BufferedUpdate(msgspec.Struct, frozen=True, gc=False):
    """A journalled update on its way into a version. `delta` is what the device made of version `base_version`;
    `staleness` is how many versions there were between that and the one that the update is added to; `statistics` are
    the changes of the running statistics, which are in no delta. `held` are the samples of each block, where it does
    not hold all of the model; the update of a `helper` stands for the rounds of many devices. `tempered` is how often
    it counts where it was found suspicious, which is in `delta` already, and not in `statistics`.
    """

    device: str
    delta: SparseUpdate
    samples: int
    base_version: int
    staleness: int
    life: int = 0
    statistics: FloatVector = NO_STATISTICS
    held: BlockWeights | None = None
    helper: bool = False
    tempered: float = 1.0

    def weight(self, plan: AggregationPlan) -> Weight:
        """How much it counts among others."""
        return self.weight_of(self.samples) * staleness_weight(self.staleness, plan)

    def weight_of(self, samples: float) -> Weight:
        """How much it counts if the whole of it counts as so many samples."""
        return samples if self.held is None else self.held * (samples / self.samples)


@dataclass(frozen=True, slots=True)
class Contribution:
    """A weighted sum of deltas. Contributions add, in any order and grouping, up to rounding.

    `total_delta` is the sum of weight times delta, float64, as long as the flat weight vector.
    """

    total_delta: NDArray[np.float64]
    weight: Weight

    def __add__(self, other: "Contribution") -> "Contribution":
        return Contribution(self.total_delta + other.total_delta, self.weight + other.weight)

    def mean_delta(self) -> NDArray[np.float64]:
        """The weighted mean; zero where nothing weighs anything."""
        return divided(self.total_delta, self.weight)

    def nobodys(self) -> NDArray[np.bool_] | None:
        """The entries that nobody has trained, as a mask over the flat weight vector; None where somebody has each."""
        return nobodys(self.weight)


def contribution_of(weighted: Iterable[tuple[Weight, SparseUpdate]], size: int) -> Contribution:
    """The sum of some deltas with their weights, in order, for a flat weight vector of `size` values."""
    total_delta = np.zeros(size)
    total_weight: Weight = 0.0
    for weight, delta in weighted:
        weighed = at(weight, delta.indices) * delta.values.astype(np.float64)
        if delta.is_whole(size):
            total_delta += weighed
        else:  # indices are distinct, so this is `total_delta[indices] += ...`, which takes half as long again
            np.add.at(total_delta, delta.indices, weighed)
        total_weight = total_weight + weight
    return Contribution(total_delta, total_weight)


def weighted_by_samples(updates: Iterable[BufferedUpdate]) -> list[tuple[Weight, SparseUpdate]]:
    """Updates that weigh as many samples as they were trained on, whatever their staleness, and their deltas."""
    return [(update.weight_of(float(update.samples)), update.delta) for update in updates]
