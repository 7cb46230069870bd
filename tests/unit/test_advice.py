"""What `tasks show` says in words."""

import pytest

from broker_coordinator.commands.advice import advice
from broker_coordinator.storage.records import VersionSummary
from fleet_protocol.errors import Reason


def versions(*losses: float | None) -> list[VersionSummary]:
    return [VersionSummary(number, "", None, True, 1.0, 5, loss, 0.0, None) for number, loss in enumerate(losses)]


@pytest.mark.parametrize(
    "losses",
    [(), (None,), (2.3, 1.1, 0.4), (0.4, 0.9, 3.9), (-2.0, 5.0), (0.0, 3.0), (0.5, 50.0, 0.6), (0.004, 0.005, 0.06)],
)
def test_nothing_is_said_of_losses_that_fall_or_only_jump(losses):
    assert advice(versions(*losses), 50, {Reason.TOO_STALE: 3}) == []


def test_divergence_is_said_with_what_to_look_at():
    (said,) = advice(versions(0.7, 12.0, 2.7e11), 5, {})
    assert "training diverges: the mean loss has grown from 0.7 to 2.7e+11" in said
    assert "scale of the inputs" in said
    assert "learning_rate" in said


def test_refusals_of_most_updates_are_said_by_their_reason():
    (said,) = advice([], 2, {Reason.OUT_OF_BOUNDS: 20, Reason.TOO_STALE: 4})
    assert said.startswith("24 of the last 26 updates were refused, most as out_of_bounds; look at the scale")
    (said,) = advice([], 2, {Reason.TOO_STALE: 20})
    assert "devices show NAME" in said
    assert advice([], 2, {Reason.OUT_OF_BOUNDS: 3}) == [], "too few to say"
