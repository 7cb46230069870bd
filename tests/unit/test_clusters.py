"""Which devices are alike, and how many kinds there are, is found from an activation."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.aggregation.clusters import find_clusters
from broker_coordinator.aggregation.clusters.clustering import MOST_DEVICES
from broker_coordinator.aggregation.clusters.k_means import k_means, silhouette

VALUES = 40
SEEDS = st.integers(0, 2**32 - 1)


def fleet(seed: int, sizes: list[int], apart: float) -> dict[str, np.ndarray]:
    """Devices called by their kind and number, whose activations are `apart` times as far from their kind's as from
    other kinds'."""
    generator = np.random.default_rng(seed)
    found = {}
    for kind, size in enumerate(sizes):
        centre = apart * generator.standard_normal(VALUES)
        for number in range(size):
            found[f"{kind}-{number}"] = (centre + generator.standard_normal(VALUES)).astype(np.float32)
    return found


def kinds(activations) -> dict[str, set[int]]:
    """The clusters that the devices of each kind are in."""
    found = find_clusters(activations)
    clusters: dict[str, set[int]] = {}
    for name, cluster in found.of_device.items():
        clusters.setdefault(name.partition("-")[0], set()).add(cluster)
    return clusters


@settings(max_examples=5)
@given(seed=SEEDS, sizes=st.lists(st.integers(4, 7), min_size=2, max_size=4))
def test_kinds_that_are_far_apart_are_never_in_one_cluster(seed, sizes):
    found = kinds(fleet(seed, sizes, apart=6.0))
    assert len(set.union(*found.values())) == sum(len(clusters) for clusters in found.values())


@pytest.mark.parametrize("sizes", [[5, 5], [4, 4, 6]])
def test_kinds_that_are_far_apart_are_the_clusters(sizes):
    exact = [find_clusters(fleet(seed, sizes, apart=6.0)).count == len(sizes) for seed in range(5)]
    assert sum(exact) >= 4


def test_one_kind_of_devices_is_hardly_ever_divided():
    divided = [seed for seed in range(20) if find_clusters(fleet(seed, [10], apart=0.0)).count > 1]
    assert len(divided) <= 3, f"{len(divided)} of 20, where one is expected"


@settings(max_examples=10)
@given(seed=SEEDS)
def test_three_devices_of_a_kind_are_never_told_apart_however_often_one_looks(seed):
    found = kinds(fleet(seed, [3, 3], apart=2.0))
    assert all(len(clusters) == 1 for clusters in found.values())


def test_a_difference_without_substance_divides_nobody_however_many_show_it():
    assert find_clusters(fleet(0, [40, 40], apart=0.3)).count == 1


@settings(max_examples=4)
@given(seed=SEEDS, factor=st.sampled_from([1e-30, 1e-3, 2.0, 1e30]), offset=st.floats(-100, 100))
def test_scale_and_offset_of_activations_change_nothing(seed, factor, offset):
    activations = fleet(seed, [5, 5], apart=2.0)
    scaled = {name: (value.astype(np.float64) + offset) * factor for name, value in activations.items()}
    assert find_clusters(scaled).of_device == find_clusters(activations).of_device


@settings(max_examples=4)
@given(seed=SEEDS, order=st.randoms())
def test_order_in_which_devices_came_changes_nothing(seed, order):
    activations = list(fleet(seed, [4, 5], apart=1.5).items())
    straight = find_clusters(dict(activations), seed)
    order.shuffle(activations)
    assert find_clusters(dict(activations), seed) == straight


@pytest.mark.parametrize("absurd", [1e6, 3e38])
def test_device_with_absurd_values_does_not_hide_how_the_others_differ(absurd):
    activations = fleet(0, [5, 5], apart=6.0)
    found = kinds(activations | {"absurd-0": np.full(VALUES, absurd, np.float32)})
    assert found["absurd"].isdisjoint(found["0"] | found["1"])
    assert found["0"].isdisjoint(found["1"])


@pytest.mark.parametrize("devices", [1, 2, 3, 10])
def test_devices_with_one_activation_are_one_cluster(devices):
    activation = np.full(VALUES, 0.3, np.float32)
    found = find_clusters({str(number): activation for number in range(devices)})
    assert found.count == 1
    assert not found.left_out


@given(seed=SEEDS, devices=st.integers(1, 3))
def test_too_few_devices_are_one_cluster(seed, devices):
    assert set(find_clusters(fleet(seed, [1] * devices, apart=6.0)).of_device.values()) == {0}


@pytest.mark.parametrize(
    ("strange", "reason"),
    [
        (np.full(VALUES, np.nan, np.float32), "40 of the 40 values"),
        (np.full(VALUES, 1e300), "40 of the 40 values"),
        (np.array([*np.zeros(VALUES - 1), np.inf], np.float32), "1 of the 40 values"),
        (np.zeros(3, np.float32), r"has the shape \[3\], where the others have \[40\]"),
        (np.zeros((2, VALUES), np.float32), r"has the shape \[2, 40\]"),
        (np.zeros(0, np.float32), r"has the shape \[0\]"),
    ],
)
def test_activation_that_cannot_be_used_costs_its_device_alone(strange, reason):
    activations = fleet(0, [5, 5], apart=6.0)
    found = find_clusters(activations | {"strange": strange})
    assert found.of_device == find_clusters(activations).of_device
    assert list(found.left_out) == ["strange"]
    assert re.search(reason, found.left_out["strange"])


def test_nobody_has_no_clusters():
    assert find_clusters({}).count == 0
    assert find_clusters({"a": np.zeros(0)}).of_device == {}


def test_more_devices_than_can_be_compared_are_refused():
    activations = {str(number): np.zeros(1) for number in range(MOST_DEVICES + 1)}
    with pytest.raises(ValueError, match=r"257 devices .* MOST_DEVICES \(256\); give a sample"):
        find_clusters(activations)


@given(seed=SEEDS, points=st.integers(1, 12), count=st.integers(1, 15), distinct=st.integers(1, 12))
def test_k_means_finds_at_most_so_many_clusters_and_leaves_none_empty(seed, points, count, distinct):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((distinct, 3))[generator.integers(0, distinct, points)]
    labels = k_means(values, count, generator)
    assert len(labels) == points
    assert set(labels.tolist()) == set(range(len(set(labels.tolist()))))
    assert len(set(labels.tolist())) <= min(count, distinct)


def test_silhouette_is_that_of_the_example_worked_by_hand():
    points = np.array([[0.0], [1.0], [5.0]])
    expected = (1 - 1 / 5 + 1 - 1 / 4 + 0) / 3
    assert np.isclose(silhouette(points, np.array([0, 0, 1])), expected)
    assert silhouette(points, np.zeros(3, np.int64)) == 0
