"""What a retention rule lets a coordinator forget."""

from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.retention import Retention, forgettable
from fleet_protocol.aggregation_plan import AggregationPlan


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_what_devices_and_the_average_need_is_never_forgotten(versions, newest, staleness, averaged) -> None:
    plan = AggregationPlan(buffer_size=1, max_staleness=staleness, averaged_versions=averaged)
    allowed = forgettable(Retention(versions), plan, newest)
    needed = {newest - staleness, newest - averaged + 1, newest - versions + 1}
    assert all(number > allowed.weights_through for number in needed if number >= 0)


def test_strategy_that_remembers_devices_keeps_their_envelopes() -> None:
    remembering = AggregationPlan(buffer_size=2, strategy="ca2fl")
    assert forgettable(Retention(envelopes=1), remembering, 90).envelopes_through == -1
    assert forgettable(Retention(envelopes=1), AggregationPlan(buffer_size=2), 90).envelopes_through == 89
