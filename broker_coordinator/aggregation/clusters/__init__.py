"""Devices that are alike: found by an activation (docs/split-gan.md), or by updates (docs/clusters.md). Pure."""

from broker_coordinator.aggregation.clusters.by_direction import ToldApart, clusters_by_direction, heard_from, without
from broker_coordinator.aggregation.clusters.clustering import (
    PLAIN_FEDERATIONS,
    Activation,
    Clusters,
    find_clusters,
    unusable,
)
from broker_coordinator.aggregation.clusters.directions import NO_PULL, Pull, direction_of
from broker_coordinator.aggregation.clusters.nearest import nearest_clusters
from broker_coordinator.aggregation.clusters.numbering import numbered

__all__ = [
    "NO_PULL",
    "PLAIN_FEDERATIONS",
    "Activation",
    "Clusters",
    "Pull",
    "ToldApart",
    "clusters_by_direction",
    "direction_of",
    "find_clusters",
    "heard_from",
    "nearest_clusters",
    "numbered",
    "unusable",
    "without",
]
