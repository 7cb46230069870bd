"""Who is in which cluster, by where devices' updates point: Clustered FL (Sattler, Mueller & Samek 2020), for updates
that are sparse, late and come one after another. Pure.

Devices that train one copy are divided where they pull it apart: where they hardly agree, and what is left of each
direction without the common one is of several kinds. A cluster is looked at again in the same way. Who comes later, and
trains copy 0, goes where those went that pulled it like that.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker_coordinator.aggregation.clusters.clustering import MOST_DEVICES, find_clusters
from broker_coordinator.aggregation.clusters.directions import (
    Pull,
    Sketch,
    agreement,
    directions,
    packed,
    residuals,
    unpacked,
)
from broker_coordinator.aggregation.clusters.numbering import numbered
from fleet_protocol.cluster_plan import NO_CLUSTER

FEWEST_UPDATES: Final = 3
"""Of a device from one copy; the direction of fewer is mostly the noise of mini-batches."""
LEAST_SHARE: Final = 2 / 3
"""Of the devices that train a copy, those that have sent so many: the first ones do not decide for all."""
MOST_AGREEMENT: Final = 0.25
"""Where devices agree more, they still learn together: the mean of their directions is longer than half of one.
Clustered FL waits for that mean to be short beside single updates, by two lengths that depend on the learning rate."""
SMALLEST: Final = 3
"""Devices of a kind: one or two that are unlike all others, broken or hostile, take no cluster."""
CLEAR: Final = 0.3
"""Of cosines, whose error by sketches is 0.06: a newcomer that no kind is nearer to by so much, than chance is and than
any other kind, stays in none, and learns with others like it."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """`moved` are the devices whose cluster is found, or another one than before. `directions` are by cluster the mean
    of those in which its devices pulled copy 0 when they were told apart, as `packed` gives it.
    """

    moved: Mapping[str, int]
    directions: Mapping[int, bytes]


def clusters_by_direction(
    pulls: Mapping[str, Pull], now: Mapping[str, int], known: Mapping[int, bytes], most: int
) -> Kinds:
    """What follows for devices that are in these clusters `now`, 1 to `most`, where `known` are the directions of kinds
    that were told apart before; `pulls` are in the order of their last updates.

    A device that no number is left for stays where it is.
    """
    there = set(now.values())
    known = {cluster: kind for cluster, kind in known.items() if cluster in there}
    by_cluster = {cluster: _compared(pulls, now, cluster) for cluster in sorted(there | {NO_CLUSTER})}
    if len(known) > 1:
        placed = _placed(by_cluster.pop(NO_CLUSTER)[0], known)
        return Kinds(placed | _divided(_enough(by_cluster), now, most), known)
    moved = _divided(_enough(by_cluster), now, most)
    first = by_cluster[NO_CLUSTER][0]
    found = {cluster for name, cluster in moved.items() if name in first}
    means = {
        cluster: np.mean([first[name] for name in first if moved.get(name) == cluster], axis=0) for cluster in found
    }
    return Kinds(moved, known | {cluster: packed(means[cluster]) for cluster in sorted(means)})


def _compared(pulls: Mapping[str, Pull], now: Mapping[str, int], cluster: int) -> tuple[dict[str, Sketch], bool]:
    """The directions of the devices that train a cluster's copy, and whether these are most of them."""
    training = {
        name: pull for name, pull in pulls.items() if pull.cluster == cluster and now.get(name, NO_CLUSTER) == cluster
    }
    found = directions({name: pull.total for name, pull in training.items() if pull.updates >= FEWEST_UPDATES})
    return found, len(found) > LEAST_SHARE * len(training)


def _enough(by_cluster: Mapping[int, tuple[dict[str, Sketch], bool]]) -> dict[int, dict[str, Sketch]]:
    return {cluster: found for cluster, (found, is_enough) in by_cluster.items() if is_enough}


def _placed(newcomers: Mapping[str, Sketch], known: Mapping[int, bytes]) -> dict[str, int]:
    """Those that pull clearly as one kind did, without what all kinds have in common, and not as any other."""
    kinds = {str(cluster): unpacked(kind) for cluster, kind in known.items()}
    common = np.mean(list(kinds.values()), axis=0)
    ways = directions({name: kind - common for name, kind in kinds.items()})
    found = {}
    for name, way in directions({name: each - common for name, each in newcomers.items()}).items():
        (second, _), (best, kind) = sorted([(0.0, ""), *((float(way @ ways[kind]), kind) for kind in ways)])[-2:]
        if best - second >= CLEAR:
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
