"""Who is in which cluster, by where devices' updates point: Clustered FL (Sattler, Mueller & Samek 2020), for updates
that are sparse, late and come one after another. Pure.

Devices that train one copy are divided where they pull it apart: where they hardly agree, and what is left of each
direction without the common one is of several kinds. A cluster is looked at again in the same way. Who comes later, and
trains copy 0, goes where those went that pulled it like that.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from broker_coordinator.aggregation.clusters.clustering import MOST_DEVICES, find_clusters
from broker_coordinator.aggregation.clusters.directions import (
    VALUES,
    Pull,
    Sketch,
    agreement,
    directions,
    packed,
    residuals,
    unpacked,
)
from broker_coordinator.aggregation.clusters.numbering import numbered
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import NO_CLUSTER

FEWEST_UPDATES: Final = 3
"""Of a device from one copy; the direction of fewer is mostly the noise of mini-batches."""
LEAST_SHARE: Final = Fraction(2, 3)
"""Of the devices that train a copy and are not quiet, those that have sent so many: the first ones do not decide for
all."""
MOST_AGREEMENT: Final = 0.25
"""Where devices agree more, they still learn together: the mean of their directions is longer than half of one.
Clustered FL waits for that mean to be short beside single updates, by two lengths that depend on the learning rate."""
SMALLEST: Final = 3
"""Devices of a kind: one or two that are unlike all others, broken or hostile, take no cluster."""
CLEAR: Final = 0.3
"""Of cosines, whose error by sketches is 0.06: a newcomer that no kind is nearer to by so much, than chance is and than
any other kind, stays in none, and learns with others like it."""

ToldApart = Mapping[int, Mapping[str, bytes]]
"""By cluster and device, as `Kinds` has it."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """`moved` are the devices whose cluster is found, or another one than before. `directions` are by cluster those in
    which each of its devices pulled copy 0 when they were told apart, as `packed` gives them.
    """

    moved: Mapping[str, int]
    directions: ToldApart


def heard_from(version: int, devices: int, plan: AggregationPlan) -> int:
    """The oldest version that a device may have its newest update in and is not quiet, behind `version`, where so many
    `devices` have sent something: since then no work of it would be too stale, or others have sent three each.
    """
    turns = math.ceil(FEWEST_UPDATES * devices / plan.smallest_buffer)
    return version - max(plan.max_staleness, turns)


def clusters_by_direction(
    pulls: Mapping[str, Pull], now: Mapping[str, int], known: ToldApart, most: int, *, heard: int = 0
) -> Kinds:
    """What follows for devices that are in these clusters `now`, 1 to `most`, where `known` are the directions of kinds
    that were told apart before; `pulls` are in the order of their last updates. Who has none in a version from `heard`
    on is quiet: it divides no copy, and is placed as any newcomer.

    A device that no number is left for stays where it is.
    """
    there = set(now.values())
    known = {cluster: kind for cluster, kind in known.items() if cluster in there and kind}
    training = {cluster: _training(pulls, now, cluster) for cluster in sorted(there | {NO_CLUSTER})}
    first = _comparable(training[NO_CLUSTER])
    placed = _placed(first, known) if known else {}
    if len(known) > 1:
        training[NO_CLUSTER] = {}
    compared = {cluster: _dividing(of_cluster, heard) for cluster, of_cluster in training.items()}
    compared[NO_CLUSTER] = {name: way for name, way in compared[NO_CLUSTER].items() if name not in placed}
    moved = _divided(compared, dict(now) | placed, most)
    found: dict[int, dict[str, bytes]] = {}
    for name in sorted(compared[NO_CLUSTER].keys() & moved.keys()):
        found.setdefault(moved[name], {})[name] = packed(first[name])
    return Kinds(placed | moved, known | found)


def without(kinds: ToldApart, device: str) -> dict[int, dict[str, bytes]]:
    """The same kinds as if they had been told apart without the device; a kind of nobody else is no longer known."""
    left = {cluster: {name: way for name, way in kind.items() if name != device} for cluster, kind in kinds.items()}
    return {cluster: kind for cluster, kind in left.items() if kind}


def _training(pulls: Mapping[str, Pull], now: Mapping[str, int], cluster: int) -> dict[str, Pull]:
    return {
        name: pull for name, pull in pulls.items() if pull.cluster == cluster and now.get(name, NO_CLUSTER) == cluster
    }


def _comparable(training: Mapping[str, Pull]) -> dict[str, Sketch]:
    return directions({name: pull.total for name, pull in training.items() if pull.updates >= FEWEST_UPDATES})


def _dividing(training: Mapping[str, Pull], heard: int) -> dict[str, Sketch]:
    """The directions of the devices that train a copy and are not quiet, once these are most of them."""
    there = {name: pull for name, pull in training.items() if pull.version >= heard}
    found = _comparable(there)
    return found if len(found) >= LEAST_SHARE * len(there) else {}


def _placed(newcomers: Mapping[str, Sketch], known: ToldApart) -> dict[str, int]:
    """Those that pull clearly as one kind did, without what all kinds have in common, and not as any other. Of a single
    kind that is left, nobody can tell what it had in common with others: then the whole direction counts.
    """
    kinds = {str(cluster): np.mean([unpacked(way) for way in kind.values()], axis=0) for cluster, kind in known.items()}
    common = np.mean(list(kinds.values()), axis=0) if len(kinds) > 1 else np.zeros(VALUES)
    ways = directions({name: kind - common for name, kind in kinds.items()})
    found = {}
    for name, way in directions({name: each - common for name, each in newcomers.items()}).items():
        *others, (best, kind) = sorted((float(way @ ways[kind]), kind) for kind in ways)
        second, _ = max(others, default=(0.0, ""))
        if best - max(0.0, second) >= CLEAR:
            found[name] = int(kind)
    return found


def _divided(by_cluster: Mapping[int, Mapping[str, Sketch]], now: Mapping[str, int], most: int) -> dict[str, int]:
    """Those of clusters that fall apart, with their numbers: the largest part keeps the cluster's."""
    kinds = {name: (cluster, 0) for name, cluster in now.items() if cluster != NO_CLUSTER}
    moved: dict[str, tuple[int, int]] = {}
    for cluster, of_cluster in by_cluster.items():
        moved |= {name: (cluster, kind) for name, kind in kinds_of(of_cluster).items()}
    labels = {kind: label for label, kind in enumerate(sorted({*kinds.values(), *moved.values()}))}
    found = numbered({name: labels[kind] for name, kind in (kinds | moved).items()}, now, most)
    return {name: found[name] for name in moved if found[name] not in (NO_CLUSTER, now.get(name, NO_CLUSTER))}


def kinds_of(found: Mapping[str, Sketch]) -> dict[str, int]:
    """The kind of each of the devices with these directions that is of one, numbered from 0, larger ones first; nobody
    where they are all of one kind. Of more than can be compared, those that sent last.
    """
    compared = dict(list(found.items())[-MOST_DEVICES:])
    if agreement(compared) > MOST_AGREEMENT:
        return {}
    kinds = find_clusters(residuals(compared)).of_device
    sizes = Counter(kinds.values())
    large = sorted((kind for kind in sizes if sizes[kind] >= SMALLEST), key=lambda kind: (-sizes[kind], kind))
    if len(large) < 2:
        return {}
    return {name: large.index(kind) for name, kind in kinds.items() if kind in large}
