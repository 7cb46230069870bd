"""Which of the clusters that are there a device belongs to that came later: no other device moves for it. Pure."""

from collections.abc import Mapping

import numpy as np

from broker_coordinator.aggregation.clusters.clustering import Activation


def nearest_clusters(
    newcomers: Mapping[str, Activation], known: Mapping[str, Activation], cluster_of: Mapping[str, int]
) -> dict[str, int]:
    """For each newcomer, the cluster of those `known` whose mean squared distance to it is least; all have one length.

    Of clusters that are as near, the one with the smaller number.

    Raises:
        ValueError: nobody is known.
    """
    if not known:
        raise ValueError("no device is known that a newcomer could be compared with; find clusters first")
    names = sorted(known)
    labels = np.array([cluster_of[name] for name in names])
    values = np.array([known[name] for name in names], np.float64)
    found = {}
    for newcomer, activation in newcomers.items():
        distances = np.square(values - np.asarray(activation, np.float64)).mean(axis=1)
        found[newcomer] = min(
            (float(distances[labels == label].mean()), label) for label in sorted(set(labels.tolist()))
        )[1]
    return found
