"""Clusters by where updates point: sketches that add, what devices agree on, and who goes where."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.clusters import (
    NO_PULL,
    Pull,
    clusters_by_direction,
    direction_of,
    heard_from,
    without,
)
from broker_coordinator.aggregation.clusters.by_direction import FEWEST_UPDATES
from broker_coordinator.aggregation.clusters.directions import (
    DECAY,
    VALUES,
    agreement,
    directions,
    residuals,
    unpacked,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.parameter import Parameter
from tests.support.clustered_task import WHOLE

SIZE = 5000
TASK = msgspec.structs.replace(
    WHOLE,
    parameters=[Parameter("body", [SIZE - 1000]), Parameter("head", [1000])],
    clusters=ClusterPlan(4, ("head",), found_by="directions"),
)
COPIED = msgspec.structs.replace(TASK, clusters=ClusterPlan(4, found_by="directions"))
SEEDS = st.integers(0, 2**32 - 1)


def sparse(vector: np.ndarray) -> SparseUpdate:
    places = np.flatnonzero(vector)
    return SparseUpdate(places, vector[places].astype(np.float32))


def drawn(seed: int, share: float = 0.1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal(SIZE) * (generator.random(SIZE) < share)


@given(seed=SEEDS)
def test_cosines_of_directions_are_those_of_updates(seed):
    one, other = drawn(seed, 1.0), drawn(seed + 1, 1.0)
    mixed = 0.8 * one + 0.6 * other
    first, second = (unpacked(direction_of(sparse(each), COPIED)) for each in (one, mixed))
    exact = one @ mixed / np.linalg.norm(one) / np.linalg.norm(mixed)
    assert abs(first @ second - exact) < 5 / np.sqrt(VALUES)


def test_parameters_that_all_devices_share_do_not_count():
    update = drawn(0, 1.0)
    head = np.where(np.arange(SIZE) >= SIZE - 1000, update, 0)
    share = np.linalg.norm(head) / np.linalg.norm(update)
    of_head = unpacked(direction_of(sparse(head), TASK))
    np.testing.assert_allclose(unpacked(direction_of(sparse(update), TASK)), share * of_head, atol=1e-3)
    assert direction_of(sparse(update), COPIED) != direction_of(sparse(head), COPIED)
    assert not unpacked(direction_of(sparse(update - head), TASK)).any()


@given(seed=SEEDS, scale=st.sampled_from([1e-30, 1.0, 1e30]))
def test_what_sparse_updates_say_together_is_what_the_whole_change_says(seed, scale):
    """Error feedback sends later what was left out: no two of these have an entry in common."""
    whole = drawn(seed, 1.0)
    turn = np.random.default_rng(seed).integers(0, 4, SIZE)
    pull = NO_PULL
    for number in range(4):
        part = np.where(turn == number, whole, 0)
        length = scale * DECAY**number * float(np.linalg.norm(part))
        pull = pull.after(0, direction_of(sparse(part), COPIED), length, number)
    together, expected = pull.total, unpacked(direction_of(sparse(whole), COPIED))
    found = directions({"sum": together, "whole": expected})
    assert found["sum"] @ found["whole"] > 0.99999


def test_a_pull_is_the_newest_update_and_a_share_of_those_before_from_the_same_copy():
    one, other = (direction_of(sparse(drawn(seed)), COPIED) for seed in (1, 2))
    pull = NO_PULL.after(0, one, 3.0, 1).after(0, other, 2.0, 4)
    np.testing.assert_allclose(pull.total, 2 * unpacked(other) + DECAY * 3 * unpacked(one))
    assert (pull.updates, pull.version) == (2, 4)
    moved = pull.after(3, one, 1.0, 5)
    assert (moved.cluster, moved.updates) == (3, 1)
    np.testing.assert_array_equal(moved.total, unpacked(one))


@given(seed=SEEDS, count=st.integers(2, 9))
def test_agreement_is_the_mean_cosine_of_two_devices(seed, count):
    values = np.random.default_rng(seed).standard_normal((count, VALUES)) + 0.5
    found = directions({str(number): each for number, each in enumerate(values)})
    rows = np.array(list(found.values()))
    cosines = rows @ rows.T
    assert agreement(found) == pytest.approx((cosines.sum() - count) / (count * (count - 1)))


def test_devices_that_go_one_way_agree_wholly_and_leave_nothing():
    same = {name: np.ones(VALUES) / 16 for name in "abc"}
    assert agreement(same) == pytest.approx(1)
    assert agreement({"a": same["a"]}) == 1
    assert not any(each.any() for each in residuals(same).values())
    assert residuals({}) == {}


FIRST, SECOND = 3 * np.random.default_rng(7).standard_normal((2, VALUES))
WAYS = {"a": FIRST, "b": -FIRST, "c": SECOND, "d": -SECOND}
"""What one kind gains, another loses: near the best model for all of them."""


def kinds(
    sizes: dict[str, int], *, common: float = 0.5, updates: int = FEWEST_UPDATES, seed: int = 0, version: int = 0
):
    """Pulls on copy 0, of devices whose names begin with their kind."""
    found = {}
    for kind, size in sizes.items():
        for number in range(size):
            noise = np.random.default_rng((seed, number, *kind.encode())).standard_normal(VALUES)
            found[f"{kind}-{100 * seed + number}"] = Pull(0, updates, 100 * (WAYS[kind] + common + noise), version)
    return found


def by_kind(moved) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name, cluster in moved.items():
        found.setdefault(name.partition("-")[0], set()).add(cluster)
    return found


def test_devices_that_pull_a_copy_apart_are_divided_and_larger_kinds_are_numbered_first():
    found = clusters_by_direction(kinds({"a": 4, "b": 6, "c": 5}), {}, {}, 4)
    assert by_kind(found.moved) == {"b": {1}, "c": {2}, "a": {3}}
    assert set(found.directions) == {1, 2, 3}


@pytest.mark.parametrize("sizes", [{"a": 12}, {"a": 3}, {"a": 4, "b": 2, "c": 2}])
def test_devices_of_one_kind_and_strangers_alone_divide_nobody(sizes):
    found = clusters_by_direction(kinds(sizes), {}, {}, 4)
    assert (found.moved, found.directions) == ({}, {})


def test_devices_that_still_learn_together_are_not_divided():
    assert not clusters_by_direction(kinds({"a": 6, "b": 6}, common=10.0), {}, {}, 4).moved


def test_the_first_devices_do_not_decide_for_all():
    few, slow = kinds({"a": 4, "b": 4}), kinds({"c": 5}, updates=1)
    assert not clusters_by_direction(few | slow, {}, {}, 4).moved
    first = dict(list(slow.items())[:3])
    assert by_kind(clusters_by_direction(few | first, {}, {}, 4).moved) == {"a": {1}, "b": {2}}


def test_two_thirds_exactly_are_enough():
    third = kinds({"c": 4}, updates=1)
    assert by_kind(clusters_by_direction(kinds({"a": 4, "b": 4}) | third, {}, {}, 4).moved) == {"a": {1}, "b": {2}}
    assert not clusters_by_direction(kinds({"a": 4, "b": 3}) | third, {}, {}, 4).moved


def test_devices_that_have_stopped_sending_keep_nobody_from_being_divided():
    living, gone = kinds({"a": 4, "b": 4}, version=30), kinds({"c": 6}, updates=1, version=9)
    assert not clusters_by_direction(living | gone, {}, {}, 4, heard=9).moved
    assert by_kind(clusters_by_direction(living | gone, {}, {}, 4, heard=10).moved) == {"a": {1}, "b": {2}}


def test_a_device_that_has_stopped_sending_is_placed_when_kinds_are_known_and_makes_none():
    first = clusters_by_direction(kinds({"a": 5, "b": 5}), {}, {}, 4)
    gone = kinds({"a": 1, "b": 4}, seed=1, version=1)
    assert by_kind(clusters_by_direction(gone, first.moved, first.directions, 4, heard=2).moved) == {"a": {1}, "b": {2}}
    assert not clusters_by_direction(gone | kinds({"a": 5}, version=5), {}, {}, 4, heard=2).moved


@pytest.mark.parametrize(
    ("devices", "buffer_size", "oldest"),
    [(18, 6, 80), (400, 10, -20), (400, None, -200)],
)
def test_a_device_is_quiet_when_its_work_would_be_too_stale_and_others_have_sent_three(devices, buffer_size, oldest):
    assert heard_from(100, devices, AggregationPlan(buffer_size=buffer_size, max_staleness=20)) == oldest


def test_newcomers_go_where_those_went_that_pulled_alike_and_a_new_kind_stays_in_none():
    known = kinds({"a": 5, "b": 5})
    first = clusters_by_direction(known, {}, {}, 4)
    later = kinds({"a": 2, "b": 1, "c": 2}, seed=1)
    gone_over = {name: Pull(first.moved[name], 1, pull.total) for name, pull in known.items()}
    second = clusters_by_direction(gone_over | later, first.moved, first.directions, 4)
    assert by_kind(second.moved) == {"a": {1}, "b": {2}}
    assert len(second.moved) == 3, "nobody else moves"
    assert second.directions == first.directions


def test_a_cluster_falls_apart_in_its_turn_and_keeps_its_number_for_the_larger_part():
    pulls = {name: Pull(1, pull.updates, pull.total) for name, pull in kinds({"a": 4, "b": 6}).items()}
    now = dict.fromkeys(pulls, 1) | {"away": 2}
    assert by_kind(clusters_by_direction(pulls, now, {}, 4).moved) == {"a": {3}}
    assert not clusters_by_direction(pulls, now, {}, 2).moved, "no number is left"


def test_what_is_pulled_from_a_former_copy_does_not_count():
    pulls = kinds({"a": 4, "b": 6})
    assert not clusters_by_direction(pulls, dict.fromkeys(pulls, 1), {}, 4).moved


def test_newcomers_are_placed_where_one_kind_is_left_and_others_are_divided_among_themselves():
    first = clusters_by_direction(kinds({"a": 5, "b": 5}), {}, {}, 4)
    left = first.directions
    for number in range(5):
        left = without(left, f"b-{number}")
    now = {name: cluster for name, cluster in first.moved.items() if name.startswith("a")}
    assert set(left) == {1}
    later = clusters_by_direction(kinds({"a": 3, "b": 2}, seed=1), now, left, 4)
    assert by_kind(later.moved) == {"a": {1}}, "two of another kind are none"
    assert later.directions == left
    many = clusters_by_direction(kinds({"a": 3, "c": 5, "d": 4}, seed=1), now, left, 4)
    assert by_kind(many.moved) == {"a": {1}, "c": {2}, "d": {3}}
    assert set(many.directions) == {1, 2, 3}


def test_a_kind_is_known_by_the_devices_that_are_left_of_it():
    pulls = kinds({"a": 4, "b": 5})
    found = clusters_by_direction(pulls, {}, {}, 4)
    left = without(found.directions, "a-0")
    assert set(left[2]) == {"a-1", "a-2", "a-3"}
    assert left[1] == found.directions[1]
    alone = {f"a-{number}": found.directions[2][f"a-{number}"] for number in range(1, 4)}
    assert left == {1: found.directions[1], 2: alone}
    assert without({2: {"a-0": b""}}, "a-0") == {}


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e200])
def test_absurd_lengths_change_nothing_for_others(size):
    pulls = kinds({"a": 5, "b": 5})
    absurd = {"z": Pull(0, FEWEST_UPDATES, np.full(VALUES, size))}
    found = clusters_by_direction(pulls | absurd, {}, {}, 4).moved
    assert by_kind({name: each for name, each in found.items() if name != "z"}) == {"a": {1}, "b": {2}}
