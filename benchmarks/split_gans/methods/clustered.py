"""HuSCF-GAN (Tawfilis et al. 2025, arXiv 2507.12979): device blocks are averaged within clusters of like devices."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.split_gans.averaging_plan import averaging_plan
from benchmarks.split_gans.divergence_weights import Direction, divergence_weights
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method, average_plainly, by_cut, devices, members
from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS, find_clusters

ClustersOf = Callable[[GanFleet, Mapping[str, NDArray[np.float64]]], Mapping[str, int]]
"""The cluster of each device, from their activations."""


def clustered(scale: float, direction: Direction = "of_device_from_others") -> Method:
    """With clusters that are found, and weights by divergence of that scale; 0: by samples alone."""
    return _method(lambda _, activations: find_clusters(activations).of_device, scale, direction)


def told(scale: float, direction: Direction = "of_device_from_others") -> Method:
    """With a cluster for each domain, whatever devices of it have: what weights do where clusters set nobody apart."""
    return _method(_domains, scale, direction)


def one_cluster(scale: float, direction: Direction = "of_device_from_others") -> Method:
    """With all devices in one cluster: weights by divergence alone."""
    return _method(lambda _, activations: dict.fromkeys(activations, 0), scale, direction)


def _domains(fleet: GanFleet, _: Mapping[str, NDArray[np.float64]]) -> Mapping[str, int]:
    names = sorted({each.domain for each in fleet.participants})
    return {each.name: names.index(each.domain) for each in fleet.participants}


def _method(clusters_of: ClustersOf, scale: float, direction: Direction) -> Method:
    def federate(fleet: GanFleet, number: int) -> int:
        activations = fleet.take_activations()
        if number <= PLAIN_FEDERATIONS:
            average_plainly(fleet, by_cut)
            return 0
        found, everybody = clusters_of(fleet, activations), members(fleet, by_cut)
        count, counted = len(set(found.values())), []
        for cluster in range(count):
            inside = [each for each in everybody if found.get(each.device) == cluster]
            weights = divergence_weights(activations, {each.device: each.samples for each in inside}, scale, direction)
            counted += [replace(each, cluster=cluster, weight=weights[each.device]) for each in inside]
        fleet.average(averaging_plan(counted, len(fleet.plan.blocks), number))
        return count

    return Method(devices, by_cut, federate)
