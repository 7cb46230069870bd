"""What of a device's error feedback goes into a round of another generation."""

import pytest

from edge_agent.core.generations import carried_over
from edge_agent.core.outbox import OutboxRow

OLD, NEW = (OutboxRow(number, 6, "digits", "0b" * 32, 3, b"", b"payload", generation=number) for number in (1, 2))


@pytest.mark.parametrize("feedback", ["residual", "momentum"])
@pytest.mark.parametrize("generation", [1, 2])
def test_what_compression_left_out_outlives_a_generation(feedback, generation):
    assert carried_over(feedback, generation, b"state", 1, [OLD, NEW]) == (b"state", [OLD, NEW])


def test_estimate_of_ef21_begins_anew_and_takes_back_only_what_was_added_to_it():
    assert carried_over("ef21", 1, b"state", 1, [OLD, NEW]) == (b"state", [OLD])
    assert carried_over("ef21", 2, b"state", 1, [OLD, NEW]) == (b"", [NEW])
