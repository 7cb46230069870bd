"""A round of a task with `[posterior]`: what it takes out of a version, and what it sends."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_agent.training.feedback.factor import FactorFeedback
from edge_agent.training.posterior.natural import Natural, cavity_of
from edge_agent.training.posterior.own_labels import own_labels
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.codec import SparseUpdate, decode_update, factor_places, with_copies
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


FACTOR = factor_places(POSTERIOR, PLAN)
"""In an update."""
OTHERS = np.delete(np.arange(POSTERIOR.trained_count), FACTOR)


def kept(result: TrainingResult) -> np.ndarray:
    return np.frombuffer(result.residual[8:], np.float64)


def told(result: TrainingResult) -> np.ndarray:
    return kept(result)[FACTOR]


def sent(result: TrainingResult) -> np.ndarray:
    vector = np.zeros(POSTERIOR.trained_count)
    decode_update(result.packed, POSTERIOR.trained_shapes).add_to(vector)
    return vector


@pytest.fixture(scope="module")
def first() -> TrainingResult:
    return trained()


def test_a_factor_is_what_was_sent(first) -> None:
    np.testing.assert_array_equal(told(first), sent(first)[FACTOR])
    second = trained(replace(NOTHING, residual=first.residual, seed=1, life=first.life))
    np.testing.assert_allclose(told(second), (sent(first) + sent(second))[FACTOR], rtol=0, atol=1e-12)


def test_of_other_weights_what_is_left_out_of_one_update_is_in_the_next(first) -> None:
    """A round's change does not depend on what earlier ones have left: all of two rounds' is sent or kept."""
    assert OTHERS.size
    second = trained(replace(NOTHING, residual=first.residual, seed=1, life=first.life))
    alone = trained(
        replace(NOTHING, residual=with_others(first, np.zeros(POSTERIOR.trained_count)), seed=1, life=first.life)
    )
    learned = [(sent(each) - kept(each))[OTHERS] for each in (first, alone)]
    np.testing.assert_allclose((sent(first) + sent(second) - kept(second))[OTHERS], sum(learned), atol=1e-6)


def with_others(result: TrainingResult, estimate: np.ndarray) -> bytes:
    """What it keeps, with this of the other weights."""
    state = kept(result).copy()
    state[OTHERS] = estimate[OTHERS]
    return result.residual[:8] + state.tobytes()


def test_a_refused_change_of_other_weights_is_offered_again_and_one_that_was_too_large_is_not() -> None:
    memory = FactorFeedback(POSTERIOR.update, b"", 3, 1, np.array([1, 2]))
    assert memory.offer(np.array([4, 5, 6], np.float32)).tolist() == [4, 5, 6]
    update = SparseUpdate(np.array([0, 1]), np.array([3, 5], np.float32))
    memory.take(update)
    assert memory.offer(np.zeros(3, np.float32)).tolist() == [1, -5, 0]
    memory.give_back(update)
    assert memory.offer(np.zeros(3, np.float32)).tolist() == [4, 0, 0]
    memory.take(update)
    memory.give_up(update)
    assert memory.offer(np.zeros(3, np.float32)).tolist() == [1, 0, 0]
    assert memory.shrink(0.25) == pytest.approx(0.75)
    assert memory.offer(np.zeros(3, np.float32)).tolist() == [0.25, 0, 0]


def test_a_refused_update_is_taken_out_of_the_factor(first) -> None:
    nothing_left = with_others(first, sent(first))
    refused = replace(
        NOTHING, residual=nothing_left, returned=[Returned(first.packed, first.life)], seed=0, life=first.life
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
