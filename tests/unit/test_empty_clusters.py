"""What is said of clusters that nobody is in."""

import pytest

from broker_coordinator.aggregation.diagnostics.empty_clusters import empty_clusters
from fleet_protocol.cluster_plan import ClusterPlan


@pytest.mark.parametrize(
    ("joined", "remedy"),
    [([1, 2], "set clusters.most to 2"), ([1], "set clusters.most to 2"), ([1, 3], "set clusters.most to 3")],
)
def test_what_is_advised_leaves_every_device_in_its_cluster(joined, remedy):
    (words,) = empty_clusters(ClusterPlan(most=4), {f"pi-{number}": number for number in joined})
    assert remedy in words


def test_a_gap_alone_asks_for_nothing():
    (words,) = empty_clusters(ClusterPlan(most=3), {"a": 1, "b": 3})
    assert words.startswith("nobody is in cluster 2 of 3")
    assert "set clusters.most" not in words
