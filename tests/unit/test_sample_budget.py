"""How often a device trains on the same samples, and that new ones bring rounds in proportion."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.core.sample_budget import carried_epochs, epochs_of_steps, is_spent, steps_of_round
from fleet_protocol.training_plan import TrainingPlan

PLAN = TrainingPlan(steps=60, batch_size=32, learning_rate=0.1, epochs_per_round=5, maximum_epochs=100)
COUNTS = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("samples", "steps"),
    [
        (1, 5),
        (5, 5),
        (32, 5),
        (33, 6),
        (200, 32),
        (384, 60),
        (5000, 60),
    ],
)
def test_a_round_goes_over_few_samples_no_more_than_the_plan_allows(samples, steps):
    assert steps_of_round(PLAN, samples) == steps


@given(COUNTS)
def test_a_round_has_a_step_at_least_and_its_last_batch_alone_is_more_than_the_plan_allows(samples):
    steps = steps_of_round(PLAN, samples)
    assert 1 <= steps <= PLAN.steps
    assert steps * min(PLAN.batch_size, samples) < PLAN.epochs_per_round * samples + PLAN.batch_size


@given(COUNTS)
def test_without_a_limit_a_round_has_all_its_steps(samples):
    assert steps_of_round(msgspec.structs.replace(PLAN, epochs_per_round=0), samples) == PLAN.steps


def test_a_sample_that_is_stored_many_times_is_gone_over_as_often():
    assert epochs_of_steps(PLAN, steps=10, samples=320, different=320) == 1.0
    assert epochs_of_steps(PLAN, steps=10, samples=320, different=32) == 10.0


@given(st.floats(0, 1000), COUNTS)
def test_samples_that_come_again_leave_the_epochs_as_they_were(epochs, different):
    assert carried_epochs(epochs, different, fresh=0) == pytest.approx(epochs)


@given(st.floats(0, 1000), COUNTS, COUNTS)
def test_new_samples_have_been_gone_over_never_and_the_old_ones_as_often_as_before(epochs, old, fresh):
    carried = carried_epochs(epochs, old + fresh, fresh)
    assert carried * (old + fresh) == pytest.approx(epochs * old)


@example([35, 45, 13, 12, 20, 48, 64, 55])  # what has been drawn is what is owed, and rounding left it a hair below
@given(st.lists(st.integers(0, 64), max_size=30))
def test_however_new_samples_come_each_brings_its_epochs_and_no_more(arrivals):
    different, epochs, drawn = 100, 0.0, 0
    for fresh in arrivals:
        different += fresh
        epochs = carried_epochs(epochs, different, fresh)
        while not is_spent(PLAN, epochs):
            steps = steps_of_round(PLAN, different)
            epochs += epochs_of_steps(PLAN, steps, different, different)
            drawn += steps * min(PLAN.batch_size, different)
    one_round = PLAN.steps * PLAN.batch_size
    if arrivals:
        assert 0 <= drawn - PLAN.maximum_epochs * different < one_round


def test_a_plan_without_a_limit_is_never_spent():
    assert not is_spent(msgspec.structs.replace(PLAN, maximum_epochs=0), 1e9)
    assert [is_spent(PLAN, epochs) for epochs in (0.0, 99.9, 100.0, 1e9)] == [False, False, True, True]
