"""What a retention rule lets a coordinator forget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.averaging import most_averaged
from broker_coordinator.aggregation.retention import Retention, forgettable
from broker_coordinator.aggregation.strategies import RECENT_VERSIONS, Recall
from fleet_protocol.aggregation_plan import AggregationPlan


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.none() | st.integers(1, 50))
def test_what_devices_and_the_average_need_is_never_forgotten(versions, newest, staleness, averaged) -> None:
    plan = AggregationPlan(buffer_size=1, max_staleness=staleness, averaged_versions=averaged)
    allowed = forgettable(Retention(versions), plan, Recall.NOTHING, newest)
    needed = {newest - staleness, newest - most_averaged(averaged) + 1, newest - versions + 1}
    assert all(number > allowed.weights_through for number in needed if number >= 0)


@pytest.mark.parametrize("recall", list(Recall))
def test_envelopes_that_a_start_reads_again_are_kept(recall) -> None:
    allowed = forgettable(Retention(envelopes=1), AggregationPlan(buffer_size=2), recall, 190)
    through = {Recall.ALL_UPDATES: -1, Recall.LAST_UPDATES: 100, Recall.RECENT_UPDATES: 190 - RECENT_VERSIONS}
    assert allowed.envelopes_through == through.get(recall, 189)
    assert allowed.last_updates_stay == (recall is Recall.LAST_UPDATES)


def test_envelopes_beside_the_last_ones_are_dropped_some_versions_at_a_time() -> None:
    allowed = [
        forgettable(Retention(envelopes=5), AggregationPlan(buffer_size=2), Recall.LAST_UPDATES, newest)
        for newest in (1, 5, 104, 105, 204, 205)
    ]
    assert [each.envelopes_through for each in allowed] == [-1, 0, 0, 100, 100, 200]
