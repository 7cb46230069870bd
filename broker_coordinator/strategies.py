"""How a full buffer becomes one step of the server: a strategy is a short function and a line in a table. Pure."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation import BufferedUpdate, contribution_of
from fleet_protocol.bundle import AggregationPlan

Step = NDArray[np.float64]
Remembered = Mapping[str, BufferedUpdate]
"""Per device, the newest of its updates that a version holds."""

Strategy = Callable[[Sequence[BufferedUpdate], Remembered, int, AggregationPlan], Step]


def fedbuff(buffer: Sequence[BufferedUpdate], _: Remembered, size: int, plan: AggregationPlan) -> Step:
    """The weighted mean of the buffer (FedBuff: Nguyen et al. 2022, algorithm 1)."""
    weighted = [(update.weight(plan.staleness_exponent), update.delta) for update in buffer]
    return contribution_of(weighted, size).mean_delta()


def ca2fl(buffer: Sequence[BufferedUpdate], remembered: Remembered, size: int, plan: AggregationPlan) -> Step:
    """FedBuff, calibrated by what the absent devices sent last (CA2FL: Wang et al. 2024, algorithm 2).

        step = mean over all h_i + weighted mean over the buffer (delta_i - h_i)

    h_i is what device i sent last, 0 before its first update. Devices that see different classes then pull at every
    version, not only at those whose buffer they happen to be in.
    """
    weighted = [(update.weight(plan.staleness_exponent), update) for update in buffer]
    fresh = contribution_of([(weight, update.delta) for weight, update in weighted], size)
    replaced = contribution_of(
        [(weight, remembered[update.device].delta) for weight, update in weighted if update.device in remembered], size
    )
    everyone = contribution_of([(float(last.samples), last.delta) for _, last in sorted(remembered.items())], size)
    return everyone.mean_delta() + (fresh.total_delta - replaced.total_delta) / fresh.weight


STRATEGIES: dict[str, Strategy] = {"fedbuff": fedbuff, "ca2fl": ca2fl}
REMEMBERING = frozenset({"ca2fl"})
"""Strategies that need `Remembered`; for the others nothing is kept."""
