"""Clusters that are found anew keep the numbers that most of their devices have."""

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.clusters import numbered
from broker_coordinator.serving.cluster_finder import is_again_due, is_look_due
from fleet_protocol.cluster_plan import ClusterPlan

NAMES = st.sampled_from("abcdefghij")
FOUND = st.dictionaries(NAMES, st.integers(0, 5))
NOW = st.dictionaries(NAMES, st.integers(0, 4))
MOST = st.integers(2, 4)


def test_a_cluster_keeps_its_number_when_a_device_leaves_it_and_labels_are_others():
    now = {"a": 2, "b": 2, "c": 2, "d": 1, "e": 1}
    found = {"a": 0, "b": 0, "c": 1, "d": 1, "e": 1}
    assert numbered(found, now, 4) == {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1}


def test_a_new_kind_gets_the_lowest_free_number():
    now = {"a": 2, "b": 2}
    found = {"a": 1, "b": 1, "c": 0, "d": 0}
    assert numbered(found, now, 2) == {"a": 2, "b": 2, "c": 1, "d": 1}


def test_one_kind_of_devices_that_have_no_cluster_gets_none_and_one_that_has_keeps_it():
    assert numbered({"a": 0, "b": 0}, {}, 4) == {"a": 0, "b": 0}
    assert numbered({"a": 0, "b": 0, "c": 0}, {"a": 3, "b": 3, "c": 1}, 4) == {"a": 3, "b": 3, "c": 3}


def test_of_more_kinds_than_clusters_the_smallest_have_none():
    found = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 2, "f": 2}
    assert numbered(found, {}, 2) == {"a": 0, "b": 2, "c": 2, "d": 1, "e": 1, "f": 1}


def test_clusters_of_an_earlier_bundle_that_had_more_are_given_new_numbers():
    assert numbered({"a": 0, "b": 1}, {"a": 7, "b": 8}, 2) == {"a": 1, "b": 2}


@given(FOUND, NOW, MOST)
def test_devices_stay_together_and_numbers_are_those_that_there_are(found, now, most):
    given_numbers = numbered(found, now, most)
    assert given_numbers.keys() == found.keys()
    of_label: dict[int, set[int]] = {}
    for name, label in found.items():
        of_label.setdefault(label, set()).add(given_numbers[name])
    assert all(len(numbers) == 1 for numbers in of_label.values())
    counted = Counter(number for numbers in of_label.values() for number in numbers)
    assert all(0 <= number <= most for number in counted)
    assert all(counted[number] == 1 for number in counted if number)
    if len(of_label) > 1:
        assert len([number for number in counted if number]) == min(most, len(of_label))


@given(FOUND, NOW, MOST)
def test_what_is_found_again_moves_nobody(found, now, most):
    once = numbered(found, now, most)
    if len(set(found.values())) <= most:
        assert numbered(found, once, most) == once


@given(FOUND, NOW, MOST, st.permutations(range(6)))
def test_what_labels_are_called_does_not_matter_where_no_two_have_as_much_in_common(found, now, most, names):
    common = Counter((label, now.get(name, 0)) for name, label in found.items())
    sizes = Counter(found.values())
    if len(set(common.values())) == len(common) and len(set(sizes.values())) == len(sizes):
        renamed = {name: names[label] for name, label in found.items()}
        assert numbered(renamed, now, most) == numbered(found, now, most)


def test_the_first_two_federations_are_plain_and_then_clusters_are_found_behind_each_so_many():
    every_third = ClusterPlan(activations="x", every=3)
    assert looks(every_third, range(12)) == [2, 5, 8, 11]
    assert looks(ClusterPlan(activations="x"), range(5)) == [2, 3, 4]
    assert not any(is_look_due(plan, 9, None) for plan in (None, ClusterPlan()))


def test_a_look_that_was_missed_is_made_up_for_behind_the_next_version():
    every_third = ClusterPlan(activations="x", every=3)
    assert looks(every_third, [0, 1, 3, 4, 5, 7, 10, 11]) == [3, 5, 10, 11]
    assert [is_look_due(every_third, number, 2) for number in (4, 5, 6, 7)] == [False, True, True, True]


def looks(plan: ClusterPlan, versions: Iterable[int]) -> list[int]:
    """Behind which of these versions everybody is looked at, where none of the looks fails."""
    found: list[int] = []
    for number in versions:
        if is_look_due(plan, number, found[-1] if found else None):
            found.append(number)
    return found


def test_devices_of_one_kind_are_looked_at_again_less_and_less_often():
    assert [number for number in range(40) if is_again_due(number)] == [3, 4, 6, 10, 18, 34]
