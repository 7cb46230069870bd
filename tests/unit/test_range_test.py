"""The range test chooses by the shape of the losses, and says where there is nothing to choose."""

import numpy as np
import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.export.trials.range_test import CAUTION, LEARNING_RATES, STEPS, find_learning_rate


def losses_of(curve, tried=None):
    """A trial of eight steps whose last quarter has the loss that `curve` gives for its rate."""

    def train(rate, _):
        if tried is not None:
            tried.append(rate)
        return np.array([9.0] * 6 + [curve(rate)] * 2, np.float32)

    return train


def test_half_of_the_lowest_rate_that_is_nearly_as_good_as_the_best_is_chosen():
    found = find_learning_rate(losses_of(lambda rate: {2.0**-5: 0.04, 2.0**-4: 0.03, 2.0**-3: 0.0}.get(rate, 1.0)))
    assert (found.chosen, found.best) == (CAUTION * 2.0**-5, 2.0**-3)
    assert (found.first_loss, found.best_loss) == (1.0, 0.0)


def test_a_lucky_best_on_a_plateau_changes_nothing():
    plateau = lambda rate: 1.0 if rate < 2.0**-6 or rate > 0.5 else 0.101  # noqa: E731
    lucky = lambda rate: 0.1 if rate == 0.25 else plateau(rate)  # noqa: E731
    assert find_learning_rate(losses_of(lucky)).chosen == find_learning_rate(losses_of(plateau)).chosen == 2.0**-7


@pytest.mark.parametrize("diverged", [np.nan, np.inf, 1e30])
def test_no_rate_above_one_that_diverges_is_tried(diverged):
    tried = []
    found = find_learning_rate(losses_of(lambda rate: diverged if rate > 2.0**-4 else 1 - rate, tried))
    assert found.chosen == CAUTION * 2.0**-4
    assert max(tried) == 2.0**-3


def test_model_that_no_rate_teaches_is_said_with_the_range_and_the_remedy():
    with pytest.raises(ConfigurationError, match=r"no learning rate from 7\.6e-06 to 2 lowers the loss from 1; scale"):
        find_learning_rate(losses_of(lambda _: 1.0))


def on_a_plateau(until):
    """Trials of a model that begins to learn after so many steps, with rates from 1/8 on."""

    def train(rate, steps):
        plateau = 1.0 if rate == 0 else 0.999
        return np.array([plateau if steps < until or not 2.0**-3 <= rate <= 2.0**-1 else 0.2], np.float32)

    return train


@pytest.mark.parametrize("until", STEPS)
def test_model_that_stands_on_a_plateau_at_first_is_tried_for_longer(until):
    found = find_learning_rate(on_a_plateau(until))
    assert (found.chosen, found.best_loss) == (CAUTION * 2.0**-3, pytest.approx(0.2))
    assert not found.hardly_learns


def test_model_that_hardly_learns_in_the_longest_trial_is_told_from_one_that_does():
    assert find_learning_rate(on_a_plateau(STEPS[-1] + 1)).hardly_learns


def test_trials_of_a_model_that_learns_at_once_are_the_shortest():
    asked = set()
    find_learning_rate(lambda rate, steps: asked.add(steps) or np.array([1.0 - min(rate, 0.5)], np.float32))
    assert asked == {STEPS[0]}


def test_rates_are_powers_of_two():
    assert all(np.frexp(rate)[0] == 0.5 for rate in LEARNING_RATES)
