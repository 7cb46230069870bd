"""An idle connection wakes when a ping is due, and not each second."""

import pytest

from edge_agent.mqtt.broker_client import SHORTEST_SLEEP_SECONDS, seconds_until_due


@pytest.mark.parametrize(
    ("quiet_since", "expected"),
    [(1000.0, 300.0), (900.0, 200.0), (700.5, SHORTEST_SLEEP_SECONDS), (100.0, SHORTEST_SLEEP_SECONDS)],
)
def test_connection_is_left_alone_until_a_ping_is_due_and_never_spins(quiet_since: float, expected: float) -> None:
    assert seconds_until_due(1000.0, 300, quiet_since) == expected
