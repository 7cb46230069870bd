"""A round of a task with `[posterior]`: what it takes out of a version, and what it sends."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_agent.training.posterior.natural import Natural, cavity_of
from edge_agent.training.posterior.own_labels import own_labels
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.codec import decode_update, with_copies
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.sample_schema import LabelSchema
from tests.support.digits_rounds import NOTHING, START, TASK, digits, stored, take
from tests.support.posterior_task import with_posterior

PLAN = PosteriorPlan(damping=0.5)
POSTERIOR = with_posterior(TASK, PLAN)
VERSION = with_copies(START, POSTERIOR)


def trained(earlier=NOTHING, version=VERSION) -> TrainingResult:
    result = take(stored(digits(np.arange(60) % 10), POSTERIOR), POSTERIOR, earlier, version)
    assert isinstance(result, TrainingResult)
    return result


def told(result: TrainingResult) -> np.ndarray:
    return np.frombuffer(result.residual[8:], np.float64)


def sent(result: TrainingResult) -> np.ndarray:
    vector = np.zeros(POSTERIOR.trained_count)
    decode_update(result.packed, POSTERIOR.trained_shapes).add_to(vector)
    return vector


@pytest.fixture(scope="module")
def first() -> TrainingResult:
    return trained()


def test_a_factor_is_what_was_sent(first) -> None:
    np.testing.assert_array_equal(told(first), sent(first))
    second = trained(replace(NOTHING, residual=first.residual, seed=1, life=first.life))
    np.testing.assert_allclose(told(second), sent(first) + sent(second), rtol=0, atol=1e-12)


def test_a_refused_update_is_taken_out_of_the_factor(first) -> None:
    refused = replace(
        NOTHING, residual=first.residual, returned=[Returned(first.packed, first.life)], seed=0, life=first.life
    )
    assert msgspec.structs.replace(trained(refused), loss=0.0) == msgspec.structs.replace(first, loss=0.0)


def test_the_same_round_gives_the_same_factor_and_another_life_draws_otherwise(first) -> None:
    assert trained() == first
    assert trained(replace(NOTHING, life=NOTHING.life + 1)).packed != first.packed


def test_precisions_only_grow_from_samples(first) -> None:
    assert (np.split(told(first), 2)[1] >= 0).all()
    assert np.split(told(first), 2)[1].any()


def test_a_cavity_is_the_version_without_the_factor() -> None:
    whole = Natural(np.array([6.0, 2.0]), np.array([4.0, 1.5]))
    cavity = cavity_of(whole, Natural(np.array([2.0, 1.0]), np.array([1.0, 0.25])))
    np.testing.assert_allclose(cavity.precision, [3, 1.25])
    np.testing.assert_allclose(cavity.weighted_mean, [4, 1])


def test_of_a_factor_that_the_version_does_not_hold_yet_only_what_it_holds_is_taken_out() -> None:
    """The cavity is never less precise than the prior."""
    whole = Natural(np.array([6.0, 0.5, 0.5]), np.array([3.0, 1.0, 1.0]))
    cavity = cavity_of(whole, Natural(np.array([8.0, 4.0, 4.0]), np.array([4.0, 2.0, 0.0])))
    np.testing.assert_allclose(cavity.precision, [1, 1, 1])
    np.testing.assert_allclose(cavity.weighted_mean[:2], [6 - 8 * 2 / 4, 0.5])


def test_labels_are_drawn_as_often_as_the_model_says() -> None:
    scores = np.tile(np.log([0.2, 0.5, 0.3]).astype(np.float32), (20_000, 1))
    drawn = own_labels(scores, LabelSchema(3), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn) / drawn.size, [0.2, 0.5, 0.3], atol=0.02)
    values = own_labels(
        np.full((20_000, 2), 3.0, np.float32), LabelSchema(kind="regression", values=2), np.random.default_rng(0)
    )
    np.testing.assert_allclose([values.mean(), values.std()], [3, 1], atol=0.02)
