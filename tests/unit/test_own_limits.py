"""A device's round on the real graphs: what is not sent, and what an honest device always sends."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.training.own_limits import take_part
from edge_agent.worker.contract import TrainingResult, Withheld
from tests.support.digits_rounds import NOTHING, RUNNER, START, digits, learned, planned, stored, take


def test_round_that_makes_validation_samples_worse_is_not_sent():
    """What the device trains on is labelled wrong, and what it validates on is not."""
    samples = stored(digits(np.arange(300) % 10))
    mislabelled = replace(samples.training, labels=(samples.training.labels + 1) % 10)
    withheld = take(replace(samples, training=mislabelled), weights=learned())
    assert isinstance(withheld, Withheld)
    assert (withheld.why, withheld.trained_through) == ("worse", 300)
    assert withheld.epochs == pytest.approx(60 * 32 / samples.different, rel=0.5)
    assert withheld.words.startswith(f"the share of wrong answers on {len(samples.validation)} validation ")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_round_on_unlike_shares_is_sent_from_the_first_version_on(classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, 150)
    assert isinstance(take(stored(digits(labels, seed)), earlier=replace(NOTHING, seed=seed)), TrainingResult)


@pytest.mark.parametrize("only", range(10))
def test_device_of_one_class_is_not_shut_out_when_the_fleet_knows_all_of_them(only):
    assert isinstance(take(stored(digits(np.full(150, only), seed=only)), weights=learned()), TrainingResult)


def test_device_with_five_samples_trains_on_all_of_them_a_few_times():
    result = take(stored(digits(np.arange(5))))
    assert isinstance(result, TrainingResult)
    assert (result.samples, result.steps, result.epochs) == (5, 10, 10.0)


def test_what_is_kept_for_validation_is_not_declared_as_trained_on():
    samples = stored(digits(np.arange(300) % 10))
    result = take(samples)
    assert isinstance(result, TrainingResult)
    assert result.samples == len(samples.training) == 300 - len(samples.validation) < 300


def test_nothing_is_trained_on_samples_that_are_spent():
    class Untouched:
        """Fails where it is used."""

    task = planned(maximum_epochs=50)
    samples = stored(digits(np.arange(40) % 10), task, seen=40)
    earlier = replace(NOTHING, epochs=50.0)
    withheld = take_part(
        Untouched(), START, samples, task, earlier, evaluate=RUNNER.evaluate_features, predict=RUNNER.predict_features
    )
    assert isinstance(withheld, Withheld)
    assert (withheld.why, withheld.trained_through, withheld.epochs) == ("spent", 40, 50.0)
    assert "the 40 different samples here 50 times (maximum_epochs)" in withheld.words


def test_new_samples_bring_rounds_and_the_same_ones_again_bring_none():
    task = planned(maximum_epochs=50)
    spent = replace(NOTHING, epochs=50.0)
    some = digits(np.arange(40) % 10)
    again = some.take(np.array([*range(40), *range(32)]))
    assert isinstance(take(stored(again, task, seen=40), task, spent), Withheld)
    more = digits(np.arange(72) % 10)
    result = take(stored(more, task, seen=40), task, spent)
    assert isinstance(result, TrainingResult)
    assert result.epochs == pytest.approx(50 * 40 / 72 + 10, abs=0.5)
