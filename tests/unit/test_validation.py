"""Which samples are kept for validation, and when a round has made them worse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from edge_agent.training.stored_samples import divide, identities
from edge_agent.training.validation import MINIMUM_VALIDATION_SAMPLES, kept_for_validation, rise

SHARE = 0.1


def numbered(count: int, first: int = 0) -> Samples:
    """Samples that are all different."""
    numbers = np.arange(first, first + count)
    return Samples(numbers.astype(np.float32).reshape(-1, 1), numbers % 3, first + count)


def all_new(samples: Samples) -> np.ndarray:
    return np.ones(len(samples), np.bool_)


@given(st.permutations(range(200)))
def test_a_sample_is_on_the_same_side_whatever_else_is_stored_and_in_which_order(order):
    samples = numbered(200)
    kept = kept_for_validation(identities(samples), SHARE)
    shuffled = samples.take(np.array(order))
    assert (kept_for_validation(identities(shuffled), SHARE) == kept[order]).all()


def test_about_the_share_is_kept():
    kept = kept_for_validation(identities(numbered(5000)), SHARE)
    assert 0.08 < kept.mean() < 0.12


def test_identity_follows_from_inputs_and_label():
    inputs = np.array([[1.0], [1.0], [1.0], [2.0]], np.float32)
    same, other_label, other_inputs = 1, 2, 3
    found = identities(Samples(inputs, np.array([0, 0, 1, 0])))
    assert found[same] == found[0]
    assert len({found[0], found[other_label], found[other_inputs]}) == 3


@given(st.integers(1, 300), st.floats(0, 0.5))
def test_every_sample_is_trained_on_or_kept_and_never_both(count, share):
    samples = numbered(count)
    stored = divide(samples, identities(samples), all_new(samples), share)
    trained_on, kept = (set(part.inputs.ravel()) for part in (stored.training, stored.validation))
    assert trained_on | kept == set(samples.inputs.ravel())
    assert not trained_on & kept
    assert trained_on
    assert not kept or len(kept) >= MINIMUM_VALIDATION_SAMPLES


def test_a_device_with_five_samples_trains_on_all_of_them():
    samples = numbered(5)
    assert len(divide(samples, identities(samples), all_new(samples), 0.5).training) == 5


def test_a_share_of_none_keeps_none():
    assert not kept_for_validation(identities(numbered(1000)), 0.0).any()


@pytest.mark.parametrize("number", range(20))
def test_a_device_that_has_one_sample_many_times_trains_on_it(number):
    samples = numbered(1, first=number).take(np.zeros(100, np.int64))
    stored = divide(samples, identities(samples), all_new(samples), 0.5)
    assert (len(stored.training), stored.different, stored.fresh) == (100, 1, 1)


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_a_device_that_has_ten_samples_many_times_trains_on_all_ten(first):
    samples = numbered(10, first).take(np.tile(np.arange(10), 30))
    stored = divide(samples, identities(samples), all_new(samples), 0.5)
    assert (len(stored.training), stored.different) == (300, 10)


def test_a_sample_that_comes_again_is_not_new():
    samples = numbered(40).take(np.array([*range(40), *range(10)]))
    unseen = np.arange(50) >= 40
    stored = divide(samples, identities(samples), unseen, SHARE)
    assert (stored.different, stored.fresh) == (40, 0)
    mixed = divide(samples, identities(samples), np.arange(50) >= 30, SHARE)
    assert (mixed.different, mixed.fresh) == (40, 10)


def test_labels_that_are_values_tell_samples_apart_too():
    inputs = np.zeros((2, 3), np.float32)
    assert np.unique(identities(Samples(inputs, np.array([[0.5], [0.25]], np.float32)))).size == 2
    assert np.unique(identities(Samples(inputs, np.zeros((2, 0), np.float32)))).size == 1


def losing(*losses: float) -> Evaluation:
    return Evaluation(np.array(losses, np.float32), None)


def answering(*correct: int) -> Evaluation:
    return Evaluation(np.ones(len(correct), np.float32), np.array(correct, np.float32))


@pytest.mark.parametrize("by", [0.0, -0.1])
def test_losses_that_stay_or_fall_are_not_worse(by):
    before = np.linspace(0.2, 2, 20)
    assert not rise(losing(*before), losing(*before + by)).is_worse


def test_losses_that_all_rise_alike_are_worse_however_little():
    before = np.linspace(0, 2, 20)
    assert rise(losing(*before), losing(*before + 0.01)).is_worse


def test_one_sample_that_gets_much_worse_among_others_that_get_better_is_taken_for_chance():
    assert not rise(losing(*[0.5] * 10), losing(*[0.4] * 9, 5.0)).is_worse


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_longer_finite_is_worse_whatever_the_answers(bad):
    assert rise(losing(*[0.5] * 10), losing(*[0.4] * 9, bad)).is_worse
    right = answering(*[1] * 10)
    assert rise(right, Evaluation(np.full(10, bad, np.float32), right.correct)).is_worse


@pytest.mark.parametrize(("wrong", "worse"), [(0, False), (1, False), (3, False), (4, True), (20, True)])
def test_of_twenty_right_answers_so_many_have_to_become_wrong(wrong, worse):
    after = answering(*[0] * wrong, *[1] * (20 - wrong))
    assert rise(answering(*[1] * 20), after).is_worse == worse


def test_of_classes_answers_count_and_not_the_loss():
    right = answering(*[1] * 10)
    assert not rise(right, Evaluation(right.losses + 1, right.correct)).is_worse


def test_of_rounds_that_change_nothing_but_by_chance_few_are_worse():
    generator = np.random.default_rng(0)
    before = generator.random((2000, 20))
    after = before + generator.normal(0, 0.3, before.shape)
    worse = np.mean([rise(losing(*start), losing(*end)).is_worse for start, end in zip(before, after, strict=True)])
    assert 0.01 < worse < 0.05


def test_words_name_measure_rise_error_and_limit():
    words = str(rise(losing(1, 1, 1, 1), losing(2, 2, 2, 3)))
    assert words.startswith(
        "the loss on 4 validation samples rose by 1.25, with a standard error of 0.25; at most 2 of"
    )


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=60))
def test_mean_and_standard_error_are_those_of_numpy_to_the_last_bit(risen):
    losses = np.array(risen, np.float32)
    found = rise(Evaluation(np.zeros_like(losses), None), Evaluation(losses, None))
    values = losses.astype(np.float64)
    assert found.mean == float(values.mean())
    assert found.standard_error == float(values.std(ddof=1)) / np.sqrt(values.size)
