"""Who gets the mean of whose copies of a block, where devices are clustered and helpers run some blocks. Pure.

A block that devices hold is averaged within each cluster, over all of its devices, wherever each has the block: itself,
or at its helper. A block that helpers hold is averaged over the whole fleet. In the first federations the fleet is one
cluster, and devices weigh as many samples as they have (Tawfilis et al. 2025, arXiv 2507.12979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.block_weights import Vector
from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS
from fleet_protocol.codec.sparse import FloatVector


@dataclass(frozen=True, slots=True)
class Member:
    """A device that takes part in a federation: the blocks that it `holds`, and the `helper` that has the others.

    `weight` is what it counts in its cluster, `samples` how many it has. Helpers and devices differ by their names.
    """

    device: str
    holds: frozenset[int]
    helper: str
    samples: float
    cluster: int
    weight: float

    def holder_of(self, block: int) -> str:
        """Who has the copy of the block that was trained for this device."""
        return self.device if block in self.holds else self.helper


@dataclass(frozen=True, slots=True)
class BlockMean:
    """What all of `receivers` have of a block behind the federation: the mean by `shares` of their holders' copies.

    The shares are positive, and 1 together.
    """

    block: int
    receivers: tuple[str, ...]
    shares: Mapping[str, float]


def averaging_plan(members: Sequence[Member], blocks: int, federation: int) -> list[BlockMean]:
    """The means of a federation, counted from 1, of a model of so many blocks.

    A block of a cluster is in none where all who hold it weigh nothing: each then keeps what it has.

    Raises:
        ValueError: a weight or a number of samples is negative or not finite.
    """
    for member in members:
        if not all(np.isfinite(value) and value >= 0 for value in (member.weight, member.samples)):
            raise ValueError(
                f"{member.device}: weighs {member.weight} with {member.samples} samples; both are to be finite"
                " numbers from 0 on"
            )
    plain = federation <= PLAIN_FEDERATIONS
    clusters: dict[int, list[Member]] = {}
    for member in sorted(members, key=lambda member: member.device):
        clusters.setdefault(0 if plain else member.cluster, []).append(member)
    means = []
    for block in range(blocks):
        weights = [_weights(clusters[cluster], block, plain=plain) for cluster in sorted(clusters)]
        for cluster, counted in zip(sorted(clusters), weights, strict=True):
            held = [member.device for member in clusters[cluster] if block in member.holds]
            means.append(BlockMean(block, tuple(held), _shares([counted])))
        helpers = {member.helper for member in members if block not in member.holds}
        means.append(BlockMean(block, tuple(sorted(helpers)), _shares(weights)))
    return [mean for mean in means if mean.receivers and mean.shares]


def averaged(mean: BlockMean, copies: Mapping[str, FloatVector]) -> FloatVector | None:
    """The mean float32[P] of the holders' `copies`; None where no copy can be used.

    Copies that are not there, or not finite, are left out, and the others count for them.
    """
    used = {
        holder: share for holder, share in mean.shares.items() if holder in copies and np.isfinite(copies[holder]).all()
    }
    if not used:
        return None
    whole = sum(used.values())
    total: Vector = np.zeros(len(copies[next(iter(used))]))
    for holder in sorted(used):
        total += used[holder] / whole * copies[holder].astype(np.float64)
    return total.astype(np.float32)


def _weights(members: Sequence[Member], block: int, *, plain: bool) -> dict[str, float]:
    """What each holder's copy of a block counts in a cluster: as many samples as the cluster has, by its weights."""
    whole = sum(member.weight for member in members)
    samples = sum(member.samples for member in members)
    found: dict[str, float] = {}
    for member in members:
        counted = member.samples if plain or not whole else samples * member.weight / whole
        holder = member.holder_of(block)
        found[holder] = found.get(holder, 0.0) + counted
    return found


def _shares(weights: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each holder, over some clusters together."""
    summed: dict[str, float] = {}
    for counted in weights:
        for holder, weight in counted.items():
            summed[holder] = summed.get(holder, 0.0) + weight
    total = sum(summed.values())
    return {holder: weight / total for holder, weight in summed.items() if weight > 0}
