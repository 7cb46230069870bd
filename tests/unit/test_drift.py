"""Drift and a worse model are found where they are, and chance is taken for neither."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.triggers import Condition, TriggerSettings, found_by
from edge_agent.training.drift import compare, largest_shift, stability_index

NEWEST = 32
FEW_IN_A_HUNDRED = 5
LOOKS = TriggerSettings(worse_by=0.5, drift=0.5)


def normal(seed: int, count: int, inputs: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, inputs)).astype(np.float32)


def test_index_without_a_shift_is_zero_on_average_and_seldom_called_one():
    found = [stability_index(normal(seed, 200, 1)[:, 0], normal(seed + 1000, NEWEST, 1)[:, 0]) for seed in range(100)]
    assert abs(np.mean(found)) < 0.05
    assert sum(index > LOOKS.drift for index in found) <= FEW_IN_A_HUNDRED


@pytest.mark.parametrize(
    ("shifted", "least"),
    [(lambda x: x + 1.5, 0.5), (lambda x: x - 1.5, 0.5), (lambda x: 0.1 * x, 0.5), (lambda x: 10 * x, 0.25)],
)
def test_one_input_that_moves_narrows_or_widens_is_found_among_those_that_do_not(shifted, least):
    for seed in range(20):
        newest = normal(seed + 1000, NEWEST)
        newest[:, 2] = shifted(newest[:, 2])
        assert largest_shift(normal(seed, 200), newest) > least


@pytest.mark.parametrize(("before", "after", "shifts"), [((0, 1), (0, 1), False), ((0, 1), (1, 1), True)])
def test_inputs_of_few_values_are_compared_by_how_often_each_comes(before, after, shifts):
    earlier, newest = np.tile(before, (100, 1)).T.reshape(-1, 1), np.tile(after, (16, 1)).T.reshape(-1, 1)
    index = largest_shift(earlier.astype(np.float32), newest.astype(np.float32))
    assert (index > LOOKS.drift) == shifts


def test_constant_input_that_stays_has_no_shift_and_one_that_jumps_a_large_one():
    constant = np.full((100, 1), 0.5, np.float32)
    assert largest_shift(constant, constant[:NEWEST]) == 0
    assert largest_shift(constant, constant[:NEWEST] + 0.25) > 1


def test_missing_values_are_left_out():
    earlier, newest = normal(1, 100), normal(2, NEWEST)
    earlier[:50, 0] = newest[:, 1] = np.nan
    assert np.isfinite(largest_shift(earlier, newest))


@given(st.integers(0, 2**32 - 1), st.integers(8, 40), st.integers(1, 3))
def test_comparison_is_finite_whatever_the_samples(seed, newest, inputs):
    generator = np.random.default_rng(seed)
    values = generator.choice([0, 1, -1e30, 1e30, 0.5], size=(3 * newest, inputs)).astype(np.float32)
    look = compare(values, generator.random(3 * newest).astype(np.float32), newest)
    assert np.isfinite([look.earlier_loss, look.newest_loss, look.standard_error, look.shift]).all()
    assert look.earlier == 2 * newest


def test_losses_are_compared_between_the_newest_and_those_before():
    losses = np.array([1.0] * 50 + [3.0] * 10, np.float32)
    look = compare(normal(3, 60), losses, 10)
    assert (look.earlier_loss, look.newest_loss, look.standard_error) == (1.0, 3.0, 0.0)


@pytest.mark.parametrize(
    ("look", "found"),
    [
        ((1.0, 1.5, 0.0, 0.5), ()),
        ((1.0, 1.51, 0.1, 0.0), (Condition.WORSE,)),
        ((1.0, 1.9, 0.5, 0.0), ()),
        ((-1.0, -0.4, 0.1, 0.0), (Condition.WORSE,)),
        ((1.0, 0.1, 0.0, 0.51), (Condition.DRIFTED,)),
        ((1.0, 9.0, 0.1, 9.0), (Condition.WORSE, Condition.DRIFTED)),
        ((float("nan"), 1.0, 1.0, 0.0), ()),
    ],
)
def test_look_meets_a_condition_beyond_its_limit_and_beyond_chance(look, found):
    assert found_by(LOOKS, *look) == found
    assert found_by(TriggerSettings(), *look) == ()
