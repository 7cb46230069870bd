"""What the synthetic task leaves out of a round changes nothing of what it gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.stored_samples import divide
from tests.support.simulated_fleet import workload
from workbench.simulation.round_job import _division
from workbench.simulation.workload import AlikeSamples, first_sample_batches

WORKLOAD = workload()


@given(st.integers(1, 64), st.integers(1, 60), st.integers(1, 40), st.integers(0, 9))
def test_batches_of_samples_that_are_alike_train_as_any_others(count, steps, batch_size, seed):
    samples = WORKLOAD.samples(seed, np.arange(count))
    weights = np.ones(samples.inputs.shape[1], np.float32)
    plans = plan_batches(count, steps, batch_size, seed), WORKLOAD.plan(count, steps, batch_size, seed)
    assert plans[0].rows.shape == plans[1].rows.shape
    assert np.array_equal(plans[0].mask, plans[1].mask)
    (any_weights, any_losses), (weights_of_first, losses_of_first) = (
        WORKLOAD.engine.train(weights, samples, plan, Rates(0.1)) for plan in plans
    )
    assert np.array_equal(any_weights, weights_of_first)
    assert np.array_equal(any_losses, losses_of_first)
    assert first_sample_batches(count, steps, batch_size) is plans[1]


@pytest.mark.parametrize("rows", [slice(1, 4), np.array([3, 0, 3]), np.array([], np.int64)])
def test_alike_samples_are_taken_as_any_others(rows):
    alike = AlikeSamples(np.broadcast_to(np.float32([1, 2]), (5, 2)), np.arange(5), newest=7)
    taken, expected = alike.take(rows), Samples(alike.inputs, alike.labels, newest=7).take(rows)
    assert np.array_equal(taken.inputs, expected.inputs)
    assert np.array_equal(taken.labels, expected.labels)
    assert (taken.newest, len(taken)) == (7, len(expected))
    assert taken.take(slice(0, 0)).inputs.shape == (0, 2)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.data())
def test_a_kept_division_is_the_one_that_is_made(numbers, data):
    identities = np.array(numbers, np.uint64)
    unseen = np.array(data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))))
    samples = Samples(np.arange(len(numbers), dtype=np.float32)[:, None], np.arange(len(numbers)))
    made = divide(samples, identities, unseen, 0.3)
    for _ in range(2):
        kept = _division(identities.tobytes(), unseen.tobytes(), 0.3).of(samples)
        assert np.array_equal(kept.training.labels, made.training.labels)
        assert np.array_equal(kept.validation.labels, made.validation.labels)
        assert (kept.different, kept.fresh) == (made.different, made.fresh)
