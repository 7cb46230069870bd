"""HuSCF-GAN (Tawfilis et al. 2025, arXiv 2507.12979): device blocks are averaged within clusters of like devices."""

from dataclasses import replace

from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.method import Method, average_plainly, by_cut, devices, members
from broker_coordinator.aggregation.clusters import (
    PLAIN_FEDERATIONS,
    Direction,
    averaging_plan,
    divergence_weights,
    find_clusters,
)


def clustered(scale: float, direction: Direction = "of_device_from_others") -> Method:
    """With weights by divergence of that scale; 0: by samples alone."""

    def federate(fleet: GanFleet, number: int) -> int:
        activations = fleet.take_activations()
        if number <= PLAIN_FEDERATIONS:
            average_plainly(fleet, by_cut)
            return 0
        found, everybody = find_clusters(activations), members(fleet, by_cut)
        counted = []
        for cluster in range(found.count):
            inside = [each for each in everybody if found.of_device.get(each.device) == cluster]
            weights = divergence_weights(activations, {each.device: each.samples for each in inside}, scale, direction)
            counted += [replace(each, cluster=cluster, weight=weights[each.device]) for each in inside]
        fleet.average(averaging_plan(counted, len(fleet.plan.blocks), number))
        return found.count

    return Method(devices, by_cut, federate)
