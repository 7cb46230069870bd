"""The exact sampler of discrete Gaussians, against their formula."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from secure_aggregation.discrete_gaussian import _below, _laplace, _with_probability_exp, discrete_gaussian

UNLIKELY = 1e-4
"""Seeds are fixed: a sampler that is right passes for good."""


def draws(seed):
    return np.random.default_rng(seed).bytes


def surprise(values, probability, reach):
    """Pearson's chi-square of whole numbers, as the probability that it is as large by chance."""
    places = np.arange(-reach, reach + 1)
    expected = values.size * np.array([probability(int(place)) for place in places])
    found = np.array([np.count_nonzero(values == place) for place in places])
    often = expected > 5
    rest = values.size - found[often].sum(), values.size - expected[often].sum()
    statistic = ((found - expected)[often] ** 2 / expected[often]).sum() + (rest[0] - rest[1]) ** 2 / max(rest[1], 1)
    return chi2.sf(statistic, int(often.sum()))


@pytest.mark.parametrize("deviation", [1, 2, 5, 40])
def test_values_have_the_probabilities_of_the_formula(deviation):
    values = discrete_gaussian(200_000, deviation, draws(deviation))
    reach = 8 * deviation
    scale = math.fsum(math.exp(-(at**2) / (2 * deviation**2)) for at in range(-20 * deviation, 20 * deviation + 1))

    def probability(at):
        return math.exp(-(at**2) / (2 * deviation**2)) / scale

    assert surprise(values, probability, reach) > UNLIKELY
    assert surprise(values, lambda at: probability(at + 1), reach) < UNLIKELY  # what a shift by one looks like


@pytest.mark.parametrize("scale", [1, 3])
def test_laplace_values_have_the_probabilities_of_the_formula_and_zero_comes_once(scale):
    values = _laplace(300_000, scale, draws(9))
    ratio = math.exp(-1 / scale)
    assert surprise(values, lambda at: (1 - ratio) / (1 + ratio) * ratio ** abs(at), 8 * scale) > UNLIKELY


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 7), (1, 7), (7, 7), (9, 7), (30, 7), (1, 1)])
def test_yes_comes_with_probability_exp(numerator, denominator):
    count = 200_000
    found = _with_probability_exp(np.full(count, numerator), denominator, draws(3)).sum()
    probability = math.exp(-numerator / denominator)
    assert found == pytest.approx(count * probability, abs=4.5 * math.sqrt(count * probability) + 1e-9)


def test_words_that_would_favour_small_numbers_are_drawn_again():
    told = iter([b"\xff" * 8 + (5).to_bytes(8, "little"), b"\xff" * 8, (7).to_bytes(8, "little")])
    assert _below(3, 2, lambda _: next(told)).tolist() == [7 % 3, 5 % 3]
    assert next(told, None) is None


def test_largest_deviation_is_drawn_in_64_bits_without_an_overflow():
    with np.errstate(all="raise"):
        values = discrete_gaussian(20_000, 2**24, draws(1))
    assert values.dtype == np.int64
    assert np.abs(values).max() < 6 * 2**24
    assert values.std() == pytest.approx(2**24, rel=0.02)
    assert values.mean() == pytest.approx(0, abs=4 * 2**24 / math.sqrt(20_000))
    assert len(set(values % 2)) == 2


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_as_many_come_as_were_asked_for_and_the_same_of_the_same_bytes(count):
    first, again = (discrete_gaussian(count, 3, draws(4)) for _ in range(2))
    assert first.shape == (count,)
    assert np.array_equal(first, again)
