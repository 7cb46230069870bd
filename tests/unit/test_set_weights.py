"""Weights of a set: near to what staleness asks for, and never one that few devices have for themselves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import staleness_weight
from fleet_protocol.aggregation_plan import AggregationPlan
from secure_aggregation.weights import shared_weights, whole_weight

WANTED = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 4), min_size=1, max_size=40)


@given(WANTED, st.integers(2, 12))
def test_each_weight_that_occurs_is_shared_by_enough_devices_or_is_everybodys(wanted, fewest):
    found = shared_weights(wanted, fewest)
    groups = Counter(found.values())
    assert found.keys() == wanted.keys()
    assert set(groups) <= set(wanted.values()), "no weight that nobody wanted"
    assert len(groups) == 1 or min(groups.values()) >= fewest


@given(WANTED, st.integers(2, 12))
def test_weights_that_enough_devices_want_are_theirs(wanted, fewest):
    if all(count >= fewest for count in Counter(wanted.values()).values()):
        assert shared_weights(wanted, fewest) == wanted


@given(WANTED, st.integers(2, 12), st.randoms())
def test_groups_depend_on_no_order(wanted, fewest, shuffle):
    names = list(wanted)
    shuffle.shuffle(names)
    assert shared_weights({name: wanted[name] for name in names}, fewest) == shared_weights(wanted, fewest)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("4441", "4444"),
        ("44411", "44411"),
        ("443", "444"),
        ("44223", "44222"),
        ("44422233", "44422233"),
        ("1", "1"),
        ("41", "44"),
    ],
)
def test_group_that_is_too_small_joins_the_nearest_one(wanted, found):
    """With two devices at least. Of two that are as near, that of more devices, else the smaller weight."""
    weights = shared_weights(dict(enumerate(map(int, wanted))), 2)
    assert "".join(str(weights[at]) for at in range(len(wanted))) == found


@pytest.mark.parametrize(
    ("plan", "weights"),
    [
        ({"staleness_weighting": "polynomial"}, [4, 3, 2, 2, 2, 2, 2, 1]),
        ({"staleness_weighting": "polynomial", "staleness_exponent": 2.0}, [4, 1, 1]),
        ({"staleness_weighting": "hinge", "staleness_hinge": 2, "staleness_slope": 1.0}, [4, 4, 4, 2, 1, 1]),
    ],
)
def test_whole_weights_follow_the_tasks_staleness_function(plan, weights):
    rule = AggregationPlan(**plan)
    assert [whole_weight(staleness_weight(s, rule), (1, 2, 3, 4)) for s in range(len(weights))] == weights
    assert whole_weight(staleness_weight(10**6, rule), (1, 2, 3, 4)) == 1


def test_where_all_weigh_the_same_the_weight_is_one():
    rule = AggregationPlan(staleness_weighting="constant")
    assert {whole_weight(staleness_weight(s, rule), (1,)) for s in (0, 5, 10**6)} == {1}
