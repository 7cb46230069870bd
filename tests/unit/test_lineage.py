"""What a version goes back to, after rollbacks and departures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.averaging import averaged_numbers
from broker_coordinator.aggregation.lineage import Departure, History, leaves_out


@pytest.mark.parametrize(
    ("rollbacks", "version", "spans"),
    [
        ({}, 5, [(0, 5)]),
        ({4: 1}, 3, [(0, 3)]),
        ({4: 1}, 6, [(4, 6), (0, 1)]),
        ({4: 1, 8: 3}, 9, [(8, 9), (0, 3)]),
        ({4: 1, 8: 5}, 9, [(8, 9), (4, 5), (0, 1)]),
        ({4: 1, 8: 4}, 8, [(8, 8), (4, 4), (0, 1)]),
        ({4: 0}, 4, [(4, 4), (0, 0)]),
    ],
)
def test_version_goes_back_over_rollbacks(rollbacks, version, spans) -> None:
    assert History(rollbacks).spans(version) == spans
    assert History(rollbacks).lineage(version).since_return.spans == spans[:1]


@pytest.mark.parametrize(
    ("rollbacks", "departures", "numbers"),
    [
        ({}, [], [6, 5, 4, 3, 2, 1]),
        ({4: 1}, [], [6, 5, 4]),
        ({5: 3}, [], [6, 5, 2, 1]),
        ({4: 0}, [], [6, 5, 4]),
        ({}, [Departure("evil", 3)], [6, 5, 4, 3, 2, 1]),
        ({}, [Departure("evil", 3, replayed_from=1)], [6, 5, 4]),
        ({}, [Departure("evil", 6, replayed_from=1)], [6, 5, 4, 3, 2, 1]),
    ],
)
def test_only_the_line_of_the_newest_version_is_averaged_and_never_version_0(rollbacks, departures, numbers) -> None:
    assert History(rollbacks, departures).numbers_to_average(6) == numbers


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 40))
def test_spans_never_overlap_and_begin_at_version_0(restored, version) -> None:
    rollbacks = {made: source for made, source in zip(range(3, 40, 5), restored, strict=False) if source < made}
    spans = History(rollbacks).spans(version)
    assert spans[0][1] == version
    assert spans[-1][0] == 0
    flat = [bound for span in spans for bound in reversed(span)]
    assert all(first <= last for first, last in spans)
    assert flat == sorted(flat, reverse=True)


def test_departure_counts_from_its_version_on() -> None:
    history = History({}, [Departure("evil", 3), Departure("evil", 7), Departure("other", 5)])
    assert history.lineage(2).left == {}
    assert history.lineage(3).left == {"evil": 3}
    assert history.lineage(9).left == {"evil": 7, "other": 5}
    assert history.lineage(2, {"evil": [(0, 9)]}).left == {"evil": 9}
    assert history.lineage(9).through(4).spans == [(0, 4)]


@pytest.mark.parametrize(
    ("candidates", "count", "averaged"),
    [
        ([5, 4, 3, 2, 1, 0], 3, [5, 4, 3]),
        ([5, 4, 3, 2, 1], 3, [5, 4]),
        ([5, 4, 3], 3, [5]),
        ([5], 3, [5]),
        ([], 3, [5]),
        ([5, 4, 3, 2], 1, [5]),
    ],
)
def test_no_more_than_the_newer_half_of_the_versions_is_averaged(candidates, count, averaged) -> None:
    assert averaged_numbers(candidates, 5, count) == averaged


def test_device_that_is_left_out_of_a_replay_leaves_before_the_first_version_that_lacks_it() -> None:
    without = {"evil": [(4, 9)]}
    assert History({}).lineage(2, without).left == {}
    assert History({}).lineage(3, without).left == {"evil": 9}
    assert [leaves_out(without, "evil", number) for number in (3, 4, 9, 10)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("rollbacks", "departures", "marked"),
    [
        ({}, [Departure("evil", 7)], []),
        ({}, [Departure("evil", 7, replayed_from=1)], [2, 3, 4, 5, 6, 7]),
        ({}, [Departure("evil", 7, replayed_from=4, since=5)], [5, 6, 7]),
        ({}, [Departure("evil", 7, replayed_from=3)], [2, 3, 4, 5, 6, 7, 8, 9]),
        ({}, [Departure("evil", 7, replayed_from=3), Departure("other", 8, replayed_from=1)], [2, 3, 4, 5, 6, 7, 8]),
        ({9: 6}, [Departure("evil", 7, replayed_from=1)], [2, 3, 4, 5, 6, 7, 9]),
        ({6: 1}, [Departure("evil", 7, replayed_from=1)], [2, 3, 4, 5]),
        ({}, [Departure("evil", 6, replayed_from=1), Departure("other", 8, replayed_from=3)], [2, 3, 4, 5, 6, 9]),
        ({}, [Departure("evil", 6, replayed_from=1), Departure("other", 8, replayed_from=7)], [2, 3, 4, 5, 6]),
        ({7: 3}, [Departure("evil", 7, replayed_from=4)], [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_versions_made_with_what_was_forgotten_are_known(rollbacks, departures, marked) -> None:
    """Versions 2 and 5 hold an update of the device."""
    history = History(rollbacks, departures)
    assert [number for number in range(10) if history.still_held(number, {"evil": [2, 5]})] == marked
