"""Aggregation: sums that add in any order, weights as in the paper."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import (
    BufferedUpdate,
    Contribution,
    contribution_of,
    staleness_weight,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from tests.support.updates import SIZE, buffered_updates, dense

PLAN = AggregationPlan(buffer_size=3)


def dense_mean(updates: list[BufferedUpdate]) -> np.ndarray:
    """FedBuff's equation, written out with dense vectors."""
    weights = [update.samples * (1 + update.staleness) ** -0.5 for update in updates]
    return sum(weight * dense(update) for weight, update in zip(weights, updates, strict=True)) / sum(weights)


def contribution(updates: list[BufferedUpdate]) -> Contribution:
    return contribution_of([(update.weight(PLAN), update.delta) for update in updates], SIZE)


def assert_close(one: Contribution, other: Contribution) -> None:
    assert one.weight == pytest.approx(other.weight, rel=1e-12)
    np.testing.assert_allclose(one.total_delta, other.total_delta, rtol=1e-9, atol=1e-9)


@given(st.lists(buffered_updates(), min_size=1, max_size=8))
def test_mean_is_the_equation(updates) -> None:
    np.testing.assert_allclose(contribution(updates).mean_delta(), dense_mean(updates), atol=1e-9)


@given(st.lists(buffered_updates(), max_size=9), st.data())
def test_order_and_grouping_do_not_matter(updates, data) -> None:
    whole = contribution(updates)
    shuffled = data.draw(st.permutations(updates))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(updates)), max_size=3)))
    shards = [contribution(shuffled[start:end]) for start, end in pairwise([0, *cuts, len(shuffled)])]
    from_left = contribution([])
    for shard in shards:
        from_left = from_left + shard
    from_right = contribution([])
    for shard in reversed(shards):
        from_right = shard + from_right
    assert_close(from_left, whole)
    assert_close(from_right, whole)


@given(
    st.integers(0, 1000),
    st.sampled_from(["constant", "polynomial", "hinge"]),
    st.floats(0, 4),
    st.integers(0, 20),
    st.floats(0.1, 20),
)
def test_staleness_only_ever_takes_weight_away(staleness, weighting, exponent, hinge, slope) -> None:
    plan = AggregationPlan(
        buffer_size=1,
        staleness_weighting=weighting,
        staleness_exponent=exponent,
        staleness_hinge=hinge,
        staleness_slope=slope,
    )
    assert staleness_weight(0, plan) == 1
    assert 0 < staleness_weight(staleness + 1, plan) <= staleness_weight(staleness, plan) <= 1


@pytest.mark.parametrize(
    ("weighting", "staleness", "weight"),
    [("polynomial", 3, 0.5), ("constant", 3, 1.0), ("hinge", 4, 1.0), ("hinge", 5, 1 / 11), ("hinge", 6, 1 / 21)],
)
def test_staleness_weights_of_the_papers(weighting, staleness, weight) -> None:
    assert staleness_weight(staleness, AggregationPlan(buffer_size=1, staleness_weighting=weighting)) == weight


def test_buffer_that_weighs_nothing_changes_nothing() -> None:
    assert contribution_of([], 3).mean_delta().tolist() == [0, 0, 0]


@given(st.integers(1, 40), st.lists(st.floats(0.1, 100), min_size=1, max_size=5), st.integers(0, 9))
def test_whole_updates_are_added_as_others_are_to_the_last_bit(size, weights, seed) -> None:
    generator = np.random.default_rng(seed)
    deltas = [generator.standard_normal(size).astype(np.float32) for _ in weights]
    found = contribution_of([(w, SparseUpdate(np.arange(size), d)) for w, d in zip(weights, deltas, strict=True)], size)
    parted = contribution_of(  # with one entry behind, none of them is whole
        [(w, SparseUpdate(np.arange(size), d)) for w, d in zip(weights, deltas, strict=True)], size + 1
    )
    assert found.total_delta.tobytes() == parted.total_delta[:size].tobytes()
    vector, other = np.ones(size, np.float32), np.ones(size + 1, np.float32)
    for delta in deltas:
        SparseUpdate(np.arange(size), delta).add_to(vector, -0.5)
        SparseUpdate(np.arange(size), delta).add_to(other, -0.5)
    assert vector.tobytes() == other[:size].tobytes()
