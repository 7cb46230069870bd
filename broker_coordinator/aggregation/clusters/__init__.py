"""Devices that are alike: found by an activation, weighed by it, averaged with each other (docs/split-gan.md). Pure."""

from broker_coordinator.aggregation.clusters.averaging_plan import (
    PLAIN_FEDERATIONS,
    BlockMean,
    Member,
    averaged,
    averaging_plan,
)
from broker_coordinator.aggregation.clusters.clustering import Clusters, find_clusters
from broker_coordinator.aggregation.clusters.divergence_weights import Direction, divergence_weights, divergences
from broker_coordinator.aggregation.clusters.numbering import numbered

__all__ = [
    "PLAIN_FEDERATIONS",
    "BlockMean",
    "Clusters",
    "Direction",
    "Member",
    "averaged",
    "averaging_plan",
    "divergence_weights",
    "divergences",
    "find_clusters",
    "numbered",
]
