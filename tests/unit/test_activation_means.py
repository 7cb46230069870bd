"""What a helper keeps of devices' activations: a mean for each session, of passes that have trained."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bundle_runtime.blocks import BlockRunner
from fleet_protocol.activation_plan import LEAST_ROWS
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sessions.steps import StepRequest
from session_relay.helper.compute_contract import Seen
from session_relay.helper.core.activation_means import ActivationMeans
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked
from session_relay.helper.summary_spool import is_summary
from tests.support.split_session import middle_of, plan_of, shipped, shipped_weights

A, B = b"a" * 16, b"b" * 16
TASK = msgspec.structs.replace(shipped().description, clusters=ClusterPlan(2, activations="4"))
PLAN = plan_of(TASK)
ROWS = 8
BEFORE, AFTER = (tuple(PLAN.blocks[block].output_shape) for block in (0, 1))
WHOLE = 4 * math.prod(AFTER)
"""Bytes of a mean of everything that the block gives."""
SMALL = np.float32(0.01)
"""Of gradients, which change a block by no more than it takes."""
FINITE = st.floats(-(2.0**99), 2.0**99, width=32)


def new_means(call: int | None = None) -> ActivationMeans:
    return ActivationMeans(1, call, 3)


def count(means: ActivationMeans, session: bytes, output: np.ndarray) -> None:
    means.count(session, len(output), means.sums(output))


@given(arrays(np.float32, (12, 3, 2, 2), elements=FINITE), st.integers(1, 11))
def test_passes_add_up_to_the_mean_over_all_rows_and_the_space(output, half):
    means = new_means()
    for rows in (output[:half], output[half:]):
        count(means, A, rows)
    taken = means.take(A, samples=12)
    assert taken.rows == 12
    largest = np.abs(output).max()
    expected = output.astype(np.float64).mean(axis=(0, 2, 3))
    np.testing.assert_allclose(taken.mean, expected, rtol=1e-6, atol=1e-6 * float(largest))
    assert means.take(A) is None, "it is forgotten"


def test_only_the_call_that_is_asked_for_counts():
    means = new_means(call=1)
    output = np.stack([np.full((LEAST_ROWS, 3, 2), -5, np.float32), np.full((LEAST_ROWS, 3, 2), 7, np.float32)], axis=1)
    count(means, A, output)
    np.testing.assert_array_equal(means.take(A).mean, [7, 7, 7])


def test_a_session_of_too_few_rows_has_none_and_one_of_enough_is_of_its_own_rows_alone():
    means = new_means()
    count(means, A, np.ones((LEAST_ROWS - 1, 3), np.float32))
    count(means, B, np.zeros((LEAST_ROWS, 3), np.float32))
    assert means.take(A) is None
    np.testing.assert_array_equal(means.take(B).mean, [0, 0, 0])


def test_few_samples_have_no_mean_however_often_they_are_trained_on():
    means = new_means()
    one = np.ones((1, 3), np.float32)
    for _ in range(100 * LEAST_ROWS):
        count(means, A, one)
        count(means, B, np.ones((LEAST_ROWS - 1, 3), np.float32))
    assert means.take(A) is None
    assert means.take(B) is None, "nobody says how many there are, and no mini-batch has enough different ones"


@pytest.mark.parametrize(("samples", "has_mean"), [(1, False), (LEAST_ROWS - 1, False), (LEAST_ROWS, True)])
def test_small_mini_batches_add_up_where_the_device_says_that_it_has_enough_samples(samples, has_mean):
    means = new_means()
    for _ in range(LEAST_ROWS):
        count(means, A, np.ones((1, 3), np.float32))
    assert (means.take(A, samples) is not None) == has_mean


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_count(strange):
    means = new_means()
    count(means, A, np.ones((LEAST_ROWS, 3), np.float32))
    count(means, A, np.full((LEAST_ROWS, 3), strange, np.float32))
    taken = means.take(A)
    assert (taken.rows, taken.mean.tolist()) == (LEAST_ROWS, [1, 1, 1])


def request(direction: str, step: int, seed: int, shape: tuple[int, ...], *, update: bool = False) -> StepRequest:
    values = np.random.default_rng(seed).random((ROWS, *shape), np.float32)
    packed = pack_activations(values * (SMALL if direction == "backward" else 1), "float32")
    number = 2 * step + 1 + (direction == "backward")
    return StepRequest(number, direction, step, 1, 2, ROWS, 0, update, "float32", packed)


def clustered_middle() -> Middle:
    bundle = type(shipped())(TASK, shipped().files)
    middle = middle_of(bundle, PLAN, shipped_weights())
    middle.open(A, PLAN.cuts[0])
    middle.open(B, PLAN.cuts[0])
    return middle


def test_a_pass_counts_once_it_has_trained_the_block():
    middle, blocks = clustered_middle(), BlockRunner(TASK, shipped().files, helpers_blocks(PLAN))
    expected = blocks.forward(
        1,
        blocks.weights_of(1, shipped_weights()),
        np.random.default_rng(0).random((ROWS, *BEFORE), np.float32),
        seed=0,
    )
    middle.answer([Asked(A, request("forward", step, step, BEFORE)) for step in range(2)])
    middle.answer([Asked(A, request("backward", 0, 9, AFTER, update=True))])
    middle.answer([Asked(A, request("backward", 1, 9, AFTER))])
    middle.answer([Asked(A, request("forward", 2, 2, BEFORE))])
    taken = middle.take_activation(A)
    assert taken.rows == ROWS, "one has only passed its gradient on, one was abandoned"
    np.testing.assert_allclose(taken.mean, expected.mean(axis=0).ravel(), rtol=1e-5, atol=1e-6)


def test_sessions_that_are_computed_together_are_told_apart():
    middle, alone = clustered_middle(), clustered_middle()
    for direction, shape, update in (("forward", BEFORE, False), ("backward", AFTER, True)):
        both = [Asked(each, request(direction, 0, seed, shape, update=update)) for seed, each in enumerate((A, B))]
        middle.answer(both)
        alone.answer(both[1:])
    of_b = middle.take_activation(B)
    np.testing.assert_allclose(of_b.mean, alone.take_activation(B).mean, rtol=1e-5)
    assert not np.allclose(of_b.mean, middle.take_activation(A).mean, rtol=1e-5)


def test_a_session_over_one_picture_leaves_no_mean():
    middle = middle_of(type(shipped())(TASK, shipped().files), PLAN, shipped_weights())
    middle.open(A, PLAN.cuts[0], samples=1)
    for step in range(LEAST_ROWS):
        for direction, shape in (("forward", BEFORE), ("backward", AFTER)):
            middle.answer([Asked(A, request(direction, step, 0, shape, update=direction == "backward"))])
    assert middle.take_activation(A) is None


def test_a_task_that_asks_for_none_has_none():
    middle = middle_of(shipped(), PLAN, shipped_weights())
    middle.open(A, PLAN.cuts[0])
    middle.answer([Asked(A, request("forward", 0, 0, BEFORE))])
    middle.answer([Asked(A, request("backward", 0, 9, AFTER, update=True))])
    assert middle.take_activation(A) is None


@pytest.mark.parametrize(
    ("seen", "sent"),
    [
        (Seen(A, LEAST_ROWS, bytes(WHOLE)), True),
        (Seen(A, LEAST_ROWS - 1, bytes(WHOLE)), False),
        (Seen(A, LEAST_ROWS, bytes(WHOLE - 4)), False),
        (Seen(A, LEAST_ROWS, bytes(10_000)), False),
        (Seen(A), False),
    ],
)
def test_what_a_child_says_is_sent_only_as_the_task_asks_for_it(seen, sent):
    assert is_summary(seen, TASK) == sent
    assert not is_summary(seen, shipped().description)
