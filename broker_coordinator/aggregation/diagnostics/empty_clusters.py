"""Which clusters of a task nobody is in, in words, with what to do. Pure."""

from collections.abc import Mapping

from fleet_protocol.cluster_plan import NO_CLUSTER, ClusterPlan


def empty_clusters(plan: ClusterPlan, cluster_of: Mapping[str, int]) -> list[str]:
    """Of devices with the cluster of each; none where every cluster has one."""
    joined = set(cluster_of.values()) - {NO_CLUSTER}
    empty = [cluster for cluster in range(1, plan.most + 1) if cluster not in joined]
    if not joined:
        return [_NOBODY[plan.found_by or ("activations" if plan.activations else "operator")]]
    if not empty:
        return []
    numbers = ", ".join(map(str, empty))
    most = max(2, *joined)  # a smaller one would put those of the last cluster in none
    remedy = f"set clusters.most to {most} and publish again" if most < plan.most else "more devices may come"
    return [f"nobody is in cluster {numbers} of {plan.most}: every version holds a copy that nobody trains; {remedy}"]


_NOBODY = {
    "operator": "no device is in a cluster, and all train copy 0: put them into some with `clusters assign`",
    "activations": "no device is in a cluster yet, and all train copy 0: helpers have told of too few, or all are of"
    " one kind; `clusters find` says of how many",
    "directions": "no device is in a cluster yet, and all train copy 0: they have sent too few updates, or still learn"
    " together, or are of one kind; `clusters find` looks again",
    "devices": "no device has trained a copy of a cluster yet: see that they send updates, and run a release that can"
    " choose",
}
