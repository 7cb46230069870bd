"""Who is in which cluster, by where devices' updates point: Clustered FL (Sattler, Mueller & Samek 2020), for updates
that are sparse, late and come one after another. Pure.

Devices that train one copy are divided where they pull it apart: where they hardly agree, and what is left of each
direction without the common one is of several kinds. A cluster is looked at again in the same way.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from broker_coordinator.aggregation.clusters.clustering import MOST_DEVICES, find_clusters
from broker_coordinator.aggregation.clusters.directions import Pull, Sketch, agreement, directions, residuals
from broker_coordinator.aggregation.clusters.nearest import nearest_clusters
from broker_coordinator.aggregation.clusters.numbering import numbered
from fleet_protocol.cluster_plan import NO_CLUSTER

FEWEST_UPDATES: Final = 3
"""Of a device from one copy; the direction of fewer is mostly the noise of mini-batches."""
MOST_AGREEMENT: Final = 0.25
"""Where devices agree more, they still learn together: the mean of their directions is longer than half of one. Clustered
FL waits for that mean to be short beside single updates, by two lengths that depend on the learning rate."""
SMALLEST: Final = 3
"""Devices of a kind: one or two that are unlike all others, broken or hostile, take no cluster."""


def clusters_by_direction(
    pulls: Mapping[str, Pull], now: Mapping[str, int], copies: Mapping[int, Sketch], most: int
) -> dict[str, int]:
    """The devices whose cluster is found, or another one than `now`, each with its number, 1 to `most`.

    `pulls` are in the order of their last updates; `copies` are the ways from copy 0 to copies that were trained. While
    fewer than two clusters have devices, those without one are divided; later each goes to the cluster whose copy lies
    where it pulls. Those that no number is left for stay where they are.
    """
    usable = {
        name: pull
        for name, pull in pulls.items()
        if pull.updates >= FEWEST_UPDATES and pull.cluster == now.get(name, NO_CLUSTER)
    }
    there = {cluster for cluster in now.values() if cluster != NO_CLUSTER}
    by_cluster = {
        cluster: directions({name: pull.total for name, pull in usable.items() if pull.cluster == cluster})
        for cluster in sorted(there | {NO_CLUSTER})
    }
    alone = by_cluster.pop(NO_CLUSTER)
    if len(there) < 2:
        by_cluster[NO_CLUSTER], placed = alone, {}
    else:
        placed = _placed(alone, {cluster: way for cluster, way in copies.items() if cluster in there})
    return placed | _divided(by_cluster, now, most)


def _placed(newcomers: Mapping[str, Sketch], copies: Mapping[int, Sketch]) -> dict[str, int]:
    if not copies:
        return {}
    ways = directions({str(cluster): way for cluster, way in copies.items()})
    return nearest_clusters(newcomers, ways, {name: int(name) for name in ways})


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
