"""How a full buffer becomes one step of the server: a strategy is a short function and a line in a table. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation import BufferedUpdate, contribution_of
from fleet_protocol.bundle import AggregationPlan

Step = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Memory:
    """What a version holds of one device: its `newest` update, and with EF21 the `estimate`, float64, of its `lives`.

    The last of the lives is the one that goes on; an update of an earlier one comes too late to count.
    """

    newest: BufferedUpdate
    estimate: Step | None = None
    lives: tuple[int, ...] = ()


Remembered = Mapping[str, Memory]

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
        [
            (weight, remembered[update.device].newest.delta)
            for weight, update in weighted
            if update.device in remembered
        ],
        size,
    )
    lasts = [memory.newest for _, memory in sorted(remembered.items())]
    everyone = contribution_of([(float(last.samples), last.delta) for last in lasts], size)
    return everyone.mean_delta() + (fresh.total_delta - replaced.total_delta) / fresh.weight


def ef21(buffer: Sequence[BufferedUpdate], remembered: Remembered, size: int, plan: AggregationPlan) -> Step:
    """The mean of all devices' estimates (EF21: Richtarik et al. 2021, algorithm 2; EF21-PP: Fatkhullin et al. 2021).

        estimate_i = estimate_i + update_i        for the devices in the buffer
        step = weighted mean over all estimate_i

    A device weighs as many samples as it last had. Staleness does not weaken an update: both sides must add the same.
    """
    total, weight = np.zeros(size), 0.0
    for _, memory in sorted(remember(remembered, buffer, size, plan).items()):
        if memory.estimate is not None:
            total += memory.newest.samples * memory.estimate
            weight += memory.newest.samples
    return total / weight if weight > 0 else total


def remember(
    remembered: Remembered, updates: Iterable[BufferedUpdate], size: int, plan: AggregationPlan
) -> dict[str, Memory]:
    """What is remembered once a version holds these updates too; nothing for strategies that need nothing."""
    if plan.strategy not in REMEMBERING:
        return {}
    after = dict(remembered)
    for update in updates:
        before = after.get(update.device)
        after[update.device] = _estimate(before, update, size) if plan.strategy == "ef21" else Memory(update)
    return after


def _estimate(before: Memory | None, update: BufferedUpdate, size: int) -> Memory:
    lives = before.lives if before else ()
    if before is not None and before.estimate is not None and update.life in lives:
        if update.life != lives[-1]:
            return before
        estimate = before.estimate.copy()
    else:
        estimate, lives = np.zeros(size), (*lives, update.life)
    estimate[update.delta.indices] += update.delta.values
    return Memory(update, estimate, lives)


STRATEGIES: dict[str, Strategy] = {"fedbuff": fedbuff, "ca2fl": ca2fl, "ef21": ef21}
REMEMBERING: Final = frozenset({"ca2fl", "ef21"})
"""Strategies that need `Remembered`; for the others nothing is kept."""
