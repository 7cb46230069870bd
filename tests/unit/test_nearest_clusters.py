"""Devices that come after clusters were found."""

import numpy as np
import pytest

from broker_coordinator.aggregation.clusters import nearest_clusters

KNOWN = {"a": np.array([0.0, 0.0]), "b": np.array([4.0, 0.0]), "c": np.array([10.0, 0.0])}


@pytest.mark.parametrize(
    ("activation", "cluster"),
    [
        ([1.0, 0.0], 3),  # mean squared distance to a and b: (0.5 + 4.5) / 2, to c: 40.5
        ([8.0, 0.0], 1),  # to a and b: (32 + 8) / 2, to c: 2
        ([6.2, 0.0], 1),  # to a and b: (19.22 + 2.42) / 2, to c: 7.22, though b is nearer
    ],
)
def test_the_mean_distance_to_all_of_a_cluster_decides(activation, cluster):
    assert nearest_clusters({"new": np.array(activation)}, KNOWN, {"a": 3, "b": 3, "c": 1}) == {"new": cluster}


def test_of_clusters_as_near_the_smaller_number_wins():
    known = {"a": np.array([0.0]), "b": np.array([2.0])}
    assert nearest_clusters({"new": np.array([1.0])}, known, {"a": 2, "b": 1}) == {"new": 1}


def test_the_largest_float32_is_compared_like_any_other():
    far = {"new": np.full(3, np.finfo(np.float32).max, np.float32)}
    known = {"a": np.zeros(3, np.float32), "b": np.full(3, np.float32(3e38))}
    assert nearest_clusters(far, known, {"a": 1, "b": 2}) == {"new": 2}


def test_nobody_known_is_an_error():
    with pytest.raises(ValueError, match="find clusters first"):
        nearest_clusters({"new": np.zeros(1)}, {}, {})
