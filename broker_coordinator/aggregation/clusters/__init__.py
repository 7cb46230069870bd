"""Devices that are alike: found by an activation (docs/split-gan.md). Pure."""

from broker_coordinator.aggregation.clusters.clustering import (
    PLAIN_FEDERATIONS,
    Activation,
    Clusters,
    find_clusters,
    unusable,
)
from broker_coordinator.aggregation.clusters.nearest import nearest_clusters
from broker_coordinator.aggregation.clusters.numbering import numbered

__all__ = [
    "PLAIN_FEDERATIONS",
    "Activation",
    "Clusters",
    "find_clusters",
    "nearest_clusters",
    "numbered",
    "unusable",
]
