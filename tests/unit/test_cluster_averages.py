"""What devices weigh in their cluster, and whose copies of a block are averaged for whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.split_gans.averaging_plan import BlockMean, Member, averaged, averaging_plan
from benchmarks.split_gans.divergence_weights import divergence_weights, divergences
from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS

DIRECTIONS = ["of_device_from_others", "of_others_from_device"]
LATER = PLAIN_FEDERATIONS + 1
BLOCKS = 5
ALL, ENDS = frozenset(range(BLOCKS)), frozenset({0, 4})
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
ACTIVATIONS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(FLOAT32, min_size=4, max_size=4).map(np.array), min_size=1
)


def distribution(*values: float) -> np.ndarray:
    """An activation whose softmax these are."""
    return np.log(np.array(values))


def test_divergence_is_that_of_the_example_worked_by_hand():
    activations = {"a": distribution(0.5, 0.5), "b": distribution(0.25, 0.75), "c": distribution(0.75, 0.25)}
    of_b = divergences(activations, "of_device_from_others")["b"]
    assert np.isclose(of_b, 0.25 * np.log(0.25 / 0.625) + 0.75 * np.log(0.75 / 0.375))
    other_way = divergences(activations, "of_others_from_device")["b"]
    assert np.isclose(other_way, 0.625 * np.log(0.625 / 0.25) + 0.375 * np.log(0.375 / 0.75))
    weights = divergence_weights(activations, dict.fromkeys("abc", 10), scale=2.0)
    assert np.isclose(weights["b"] / weights["a"], np.exp(-2 * of_b))


@given(activations=ACTIVATIONS, direction=st.sampled_from(DIRECTIONS), scale=st.floats(0, 1e6))
def test_weights_are_shares_of_one_whatever_the_activations(activations, direction, scale):
    samples = {name: 10.0**place for place, name in enumerate(activations)}
    weights = divergence_weights(activations, samples, scale, direction)
    assert set(weights) == set(samples)
    assert all(weight >= 0 for weight in weights.values())
    assert np.isclose(sum(weights.values()), 1)


@given(activations=ACTIVATIONS, direction=st.sampled_from(DIRECTIONS))
def test_without_a_scale_weights_are_samples(activations, direction):
    samples = {name: place + 1.0 for place, name in enumerate(activations)}
    weights = divergence_weights(activations, samples, 0.0, direction)
    total = sum(samples.values())
    assert all(np.isclose(weights[name], samples[name] / total) for name in samples)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_device_unlike_the_others_weighs_less(direction):
    activations = {"a": distribution(0.5, 0.5), "b": distribution(0.49, 0.51), "c": distribution(0.95, 0.05)}
    weights = divergence_weights(activations, dict.fromkeys("abc", 100), 1.0, direction)
    assert weights["c"] < min(weights["a"], weights["b"])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_device_with_absurd_activations_takes_nothing_from_the_others(direction):
    usual = {name: np.array([0.1, 0.2, 0.3]) for name in "abc"}
    weights = divergence_weights(usual | {"d": np.array([3e38, -3e38, 0])}, dict.fromkeys("abcd", 1), 10.0, direction)
    assert np.allclose([weights[name] for name in "abc"], weights["a"])
    assert weights["d"] < weights["a"]


def test_samples_and_activations_that_are_missing_weigh_nothing():
    activations = {"a": np.zeros(3), "b": np.full(3, np.nan)}
    assert divergence_weights(activations, {"a": 5, "b": 5, "c": 5, "d": 0}) == {"a": 1, "b": 0, "c": 0, "d": 0}
    assert divergence_weights({}, {"a": 1, "b": 3}) == {"a": 0.25, "b": 0.75}
    assert divergence_weights(activations, {"a": 0, "b": 0}) == {"a": 0, "b": 0}
    assert divergence_weights({}, {}) == {}


@pytest.mark.parametrize("samples", [-1, np.nan, np.inf])
def test_absurd_numbers_of_samples_are_refused_by_name(samples):
    with pytest.raises(ValueError, match=r"attic-pi: .* finite number"):
        divergence_weights({"attic-pi": np.zeros(2)}, {"attic-pi": samples})
    with pytest.raises(ValueError, match=r"attic-pi: .* finite numbers"):
        averaging_plan([Member("attic-pi", ENDS, "cellar", samples, 0, 1.0)], BLOCKS, LATER)


def members(clusters: list[int], holds: list[frozenset[int]] | None = None, helper: str = "cellar") -> list[Member]:
    each = holds or [ENDS] * len(clusters)
    return [
        Member(f"pi-{number}", each[number], helper, 10.0 * (number + 1), cluster, 1.0)
        for number, cluster in enumerate(clusters)
    ]


def means_of(plan: list[BlockMean], block: int) -> dict[tuple[str, ...], dict[str, float]]:
    return {mean.receivers: dict(mean.shares) for mean in plan if mean.block == block}


@given(
    clusters=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    federation=st.integers(1, 5),
    data=st.data(),
)
def test_each_copy_gets_one_mean_at_most_and_shares_are_one_together(clusters, federation, data):
    held = st.sets(st.integers(0, BLOCKS - 1)).map(lambda more: frozenset(more) | ENDS)
    holds = [data.draw(held) for _ in clusters]
    plan = averaging_plan(members(clusters, holds), BLOCKS, federation)
    receivers = [(mean.block, name) for mean in plan for name in mean.receivers]
    assert len(set(receivers)) == len(receivers)
    holders = {(block, name) for block, name in receivers}
    assert all((mean.block, holder) in holders for mean in plan for holder in mean.shares)
    assert all(np.isclose(sum(mean.shares.values()), 1) for mean in plan)
    assert all(share > 0 for mean in plan for share in mean.shares.values())


def test_devices_average_within_their_cluster_and_helpers_over_all():
    plan = averaging_plan(members([0, 0, 1]), BLOCKS, LATER)
    assert means_of(plan, 0) == {("pi-0", "pi-1"): {"pi-0": 0.5, "pi-1": 0.5}, ("pi-2",): {"pi-2": 1.0}}
    assert means_of(plan, 2) == {("cellar",): {"cellar": 1.0}}


def test_block_that_some_leave_to_a_helper_is_averaged_wherever_it_is():
    plan = averaging_plan(members([0, 0, 1, 1], [ALL, ENDS, ALL, ENDS]), BLOCKS, PLAIN_FEDERATIONS)
    mean = {"pi-0": 0.1, "cellar": 0.6, "pi-2": 0.3}
    assert means_of(plan, 1) == {("pi-0", "pi-2"): pytest.approx(mean), ("cellar",): pytest.approx(mean)}
    clustered = averaging_plan(members([0, 0, 1, 1], [ALL, ENDS, ALL, ENDS]), BLOCKS, LATER)
    assert means_of(clustered, 1)[("pi-0",)] == pytest.approx({"pi-0": 0.5, "cellar": 0.5})
    assert means_of(clustered, 1)[("cellar",)] == pytest.approx({"pi-0": 0.15, "cellar": 0.5, "pi-2": 0.35})


def test_copies_of_several_helpers_are_averaged():
    plan = averaging_plan([*members([0, 0]), Member("pi-9", ENDS, "attic", 70, 1, 1.0)], BLOCKS, LATER)
    assert means_of(plan, 2) == {("attic", "cellar"): pytest.approx({"attic": 0.7, "cellar": 0.3})}


def test_first_federations_know_no_clusters_and_weigh_by_samples():
    apart, one = members([0, 1, 2]), members([0, 0, 0])
    assert averaging_plan(apart, BLOCKS, 1) == averaging_plan(one, BLOCKS, 1)
    assert means_of(averaging_plan(apart, BLOCKS, PLAIN_FEDERATIONS), 0) == {
        ("pi-0", "pi-1", "pi-2"): pytest.approx({"pi-0": 1 / 6, "pi-1": 2 / 6, "pi-2": 3 / 6})
    }


def test_cluster_that_is_away_has_no_means_and_changes_no_others():
    there = members([0, 0, 1, 1])[:2]
    plan = averaging_plan(there, BLOCKS, LATER)
    assert means_of(plan, 0) == {("pi-0", "pi-1"): {"pi-0": 0.5, "pi-1": 0.5}}
    assert averaging_plan([], BLOCKS, LATER) == []


def test_device_without_samples_gets_the_mean_and_adds_nothing():
    plan = averaging_plan([*members([0, 0]), Member("pi-9", ENDS, "cellar", 0, 0, 0.0)], BLOCKS, LATER)
    assert means_of(plan, 0) == {("pi-0", "pi-1", "pi-9"): {"pi-0": 0.5, "pi-1": 0.5}}
    alone = averaging_plan([Member("pi-9", ENDS, "cellar", 0, 0, 0.0)], BLOCKS, LATER)
    assert alone == []


@given(weights=st.lists(FLOAT32, min_size=3, max_size=3), absurd=st.sampled_from([3.4e38, -3.4e38]))
def test_mean_lies_between_its_copies_and_is_finite(weights, absurd):
    copies = {"a": np.array(weights, np.float32), "b": np.full(3, absurd, np.float32)}
    mean = averaged(BlockMean(0, ("a", "b"), {"a": 0.5, "b": 0.5}), copies)
    assert np.isfinite(mean).all()
    assert (mean <= np.maximum(copies["a"], copies["b"])).all()
    assert (mean >= np.minimum(copies["a"], copies["b"])).all()


def test_copies_that_are_missing_or_not_finite_are_left_out_of_a_mean():
    mean = BlockMean(0, ("a", "b", "c"), {"a": 0.2, "b": 0.2, "c": 0.6})
    copies = {"a": np.full(2, 1, np.float32), "b": np.full(2, 3, np.float32), "c": np.array([0, np.nan], np.float32)}
    assert averaged(mean, copies).tolist() == [2, 2]
    assert averaged(mean, {"c": copies["c"]}) is None
