"""The parts of a noised step: who is in a batch, what one sample adds to the sum, and the noise."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime.gaussian_integers import gaussian_integers
from edge_agent.training.engine import Rates
from edge_agent.training.private.clipped_sum import UNITS_PER_DEVIATION, clipped_sum
from edge_agent.training.private.optimisers import UPDATES, OptimiserState
from edge_agent.training.private.randomness import sampled_batches
from workbench.export.graphs import optimisers as in_graphs

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
ROWS = st.lists(st.lists(FLOATS, min_size=5, max_size=5), min_size=1, max_size=8)


def seeded(seed: int):
    return np.random.default_rng(seed).bytes


@given(ROWS, st.floats(1e-6, 1e6), st.floats(0.3, 1000))
def test_no_row_moves_the_sum_by_more_than_the_clip_in_whatever_company_and_order(rows, clip, noise):
    gradients = np.array(rows, np.float32)
    unit = noise * clip / UNITS_PER_DEVIATION
    whole = clipped_sum(gradients, clip, unit)
    assert (whole == np.rint(whole)).all()
    assert (clipped_sum(gradients[::-1], clip, unit) == whole).all()
    for row in range(len(gradients)):
        others = clipped_sum(np.delete(gradients, row, axis=0), clip, unit)
        moved = whole - others
        assert float(np.sqrt((moved * moved).sum())) * unit <= clip
        assert (others + clipped_sum(gradients[row : row + 1], clip, unit) == whole).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_that_is_not_finite_adds_nothing_and_one_of_zeros_adds_zeros(value):
    gradients = np.array([[3.0, 4.0], [value, 0.0], [0.0, 0.0]], np.float32)
    assert clipped_sum(gradients, 1.0, 2.0**-20) * 2.0**-20 == pytest.approx([0.6, 0.8], rel=1e-5)
    assert not clipped_sum(gradients[1:], 1.0, 2.0**-20).any()


def test_short_gradient_is_added_as_it_is():
    assert clipped_sum(np.array([[0.25, -0.5]], np.float32), 1.0, 2.0**-20) * 2.0**-20 == pytest.approx(
        [0.25, -0.5], abs=2.0**-19
    )


def test_largest_gradients_do_not_overflow():
    assert np.isfinite(clipped_sum(np.full((4, 3), 3.4e38, np.float32), 1e6, 1e6 * 0.3 * 2.0**-20)).all()


@pytest.mark.parametrize("rate", [0.0001, 0.05, 0.5, 1.0])
def test_each_sample_is_in_each_batch_with_the_given_probability_by_itself(rate):
    count, steps = 400, 200
    plan = sampled_batches(count, steps, rate, seeded(1), seed=7)
    chosen = np.zeros((steps, count))
    for step, (rows, mask) in enumerate(zip(plan.rows, plan.mask, strict=True)):
        real = rows[mask > 0]
        assert len(set(real)) == len(real)
        chosen[step, real] = 1
    deviation = np.sqrt(rate * (1 - rate) / (count * steps))
    assert abs(chosen.mean() - rate) <= 5 * deviation
    if rate == 0.5:  # no two samples, and no two steps, go together
        assert abs(np.corrcoef(chosen[:, 0], chosen[:, 1])[0, 1]) < 0.3
        assert 0.5 < chosen.sum(axis=1).var() / (count * 0.25) < 1.5


def test_batches_differ_from_round_to_round_though_the_seed_is_the_same():
    one, other = (sampled_batches(50, 5, 0.5, os.urandom, seed=3) for _ in range(2))
    assert one.rows.shape != other.rows.shape or (one.rows != other.rows).any() or (one.mask != other.mask).any()


def test_noise_is_gaussian_in_whole_numbers():
    values = gaussian_integers(200_001, UNITS_PER_DEVIATION, seeded(2))
    assert values.shape == (200_001,)
    assert (values == np.rint(values)).all()
    scaled = np.sort(values / UNITS_PER_DEVIATION)
    expected = torch.special.ndtr(torch.from_numpy(scaled)).numpy()
    found = (np.arange(scaled.size) + 0.5) / scaled.size
    assert np.abs(expected - found).max() < 1.63 / np.sqrt(scaled.size)  # Kolmogorov-Smirnov at 1 %


def test_noise_of_the_extreme_words_is_finite():
    for word in (b"\x00", b"\xff"):
        assert np.isfinite(gaussian_integers(3, UNITS_PER_DEVIATION, lambda count, word=word: word * count)).all()


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_optimisers_are_those_of_the_graphs(name):
    generator = np.random.default_rng(4)
    weights = generator.normal(size=6).astype(np.float32)
    rates = Rates(0.1, weight_decay=0.01)
    state, moved = OptimiserState.of(weights), weights
    optimiser = in_graphs.OPTIMISERS[name]
    carried = [torch.zeros(6) for _ in range(optimiser.vectors)] + [torch.zeros(()) for _ in range(optimiser.scalars)]
    expected = torch.from_numpy(weights)
    for _ in range(5):
        gradient = generator.normal(size=6).astype(np.float32)
        moved = UPDATES[name](moved, gradient, state, rates, 0.9)
        torch_rates = in_graphs.Rates(torch.tensor(0.1), torch.tensor(0.01), 0.9)
        expected, *carried = optimiser.update(expected, torch.from_numpy(gradient), carried, torch_rates)
        np.testing.assert_allclose(moved, expected.numpy(), rtol=1e-4, atol=1e-6)
        assert moved.dtype == np.float32
