"""What steps with noise tell of a sample: a device's count beside two others, and its ledger by sample."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.privacy_loss import tight_epsilon
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import (
    EVERY_SAMPLE,
    Charge,
    Limit,
    cost_of_sample,
    limits_of,
    spent_through,
    spent_words,
)
from fleet_protocol.privacy.renyi import (
    NO_COST,
    ORDERS,
    Mechanism,
    StepsTaken,
    best_order,
    divergences_of,
    divergences_of_step,
    epsilon_of,
    noise_for,
    steps_within,
)
from fleet_protocol.privacy.sample_privacy import SamplePrivacy

DELTA = 1e-5
KNOWN = [(1.1, 256 / 60_000, 14_000), (1.34, 0.05, 1200), (7.1, 0.05, 1200), (0.8, 0.01, 100), (4.0, 1.0, 10)]
"""Noise multipliers, sampling rates and steps."""


def epsilon(noise: float, rate: float, steps: int) -> float:
    return epsilon_of(divergences_of([StepsTaken(Mechanism(noise, rate), steps)]), DELTA)


def convolved_epsilon(noise: float, rate: float, steps: int) -> float:
    """By the distribution of the privacy loss on a grid, convolved with itself by FFT: Koskela, Jälkö & Honkela 2020.

    Of the two neighbours, the one that has the sample is on top.
    """
    size, most = 2**17, 24.0
    grid = np.linspace(-most, most, size, endpoint=False)
    width = grid[1] - grid[0]
    points = np.linspace(-12 * noise, 1 + 12 * noise, 400_001)
    with_it = rate * np.exp(-((points - 1) ** 2) / (2 * noise**2)) + (1 - rate) * np.exp(-(points**2) / (2 * noise**2))
    loss = np.log1p(rate * np.expm1((2 * points - 1) / (2 * noise**2)))
    masses = with_it / with_it.sum()
    places = (loss + most) / width
    below = places.astype(int)
    above_share = masses * (places - below)  # divided between two points, so that the mean stays
    once = np.bincount(below, masses - above_share, size) + np.bincount(below + 1, above_share, size)
    together = np.fft.irfft(np.fft.rfft(np.roll(once, size // 2)) ** steps, size)
    total = np.roll(np.maximum(together, 0), size // 2)

    def delta_at(value: float) -> float:
        above = grid > value
        return float((total[above] * -np.expm1(value - grid[above])).sum())

    low, high = 0.0, most
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > DELTA else (low, middle)
    return high


@pytest.mark.parametrize(("noise", "rate", "steps"), KNOWN[:3])
def test_tight_count_agrees_with_a_convolution_of_our_own_within_two_percent(noise, rate, steps):
    assert tight_epsilon(Mechanism(noise, rate), steps, DELTA) == pytest.approx(
        convolved_epsilon(noise, rate, steps), rel=0.02
    )


@pytest.mark.parametrize(("noise", "rate", "steps"), KNOWN)
def test_devices_count_is_dp_accountings_of_the_same_kind_and_never_below_the_tight_one(noise, rate, steps):
    from dp_accounting import dp_event, rdp  # noqa: PLC0415 - takes a second

    accountant = rdp.RdpAccountant(list(ORDERS))
    step = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
    accountant.compose(dp_event.SelfComposedDpEvent(step, steps))
    found = epsilon(noise, rate, steps)
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-6)
    tight = tight_epsilon(Mechanism(noise, rate), steps, DELTA)
    assert tight is not None
    assert tight <= found <= 1.55 * tight


@given(st.floats(0.3, 1000), st.floats(0.0001, 1), st.integers(1, 10**6))
def test_more_steps_more_samples_in_a_step_and_less_noise_never_tell_less(noise, rate, steps):
    found = epsilon(noise, rate, steps)
    assert found >= 0
    assert epsilon(noise, rate, 2 * steps) >= found
    assert epsilon(noise, min(1.0, 1.5 * rate), steps) >= found * (1 - 1e-9)
    assert epsilon(1.5 * noise, rate, steps) <= found * (1 + 1e-9)


@pytest.mark.parametrize("rate", [1e-5, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("noise", [0.5, 1.0, 1000.0])
def test_small_rates_cost_what_a_series_in_the_rate_says_and_are_not_rounded_away(noise, rate):
    """Of order 2, the divergence is log(1 + rate^2 (exp(1 / noise^2) - 1)) exactly."""
    expected = math.log1p(rate**2 * math.expm1(1 / noise**2))
    assert divergences_of_step(Mechanism(noise, rate))[ORDERS.index(2)] == pytest.approx(expected, rel=1e-9)


NEWEST = st.lists(st.integers(1, 9))


@given(st.floats(0.3, 50), st.floats(0.001, 1), st.integers(1, 1000), st.floats(0.001, 50), NEWEST)
def test_no_sample_is_in_a_round_that_tells_more_than_its_limit_not_even_in_its_first(
    noise, rate, steps, limit, rounds
):
    mechanism = Mechanism(noise, rate)
    charges = [Charge(newest, StepsTaken(mechanism, steps)) for newest in rounds]
    spent = spent_through(charges, mechanism, steps, [Limit(limit, DELTA)])
    for sample in range(1, 11):
        before = sum(charge.taken.steps for charge in charges if charge.newest >= sample)
        assert (sample <= spent) == (steps_within(mechanism, limit, DELTA) < before + steps)


@given(st.floats(0.3, 1000), st.floats(0, 1, exclude_min=True), st.floats(1e-6, 100), st.floats(1e-15, 0.01))
def test_no_setting_that_is_taken_ends_the_count(noise, rate, limit, delta):
    mechanism = Mechanism(noise, rate)
    assert ORDERS[best_order(mechanism, limit, delta)] in ORDERS
    charges = [Charge(7, StepsTaken(mechanism, 1))]
    assert spent_through(charges, mechanism, 10**6, [Limit(limit, delta)]) in (0, 7, EVERY_SAMPLE)
    assert epsilon_of(divergences_of([StepsTaken(mechanism, 1)]), delta) >= 0


@given(st.floats(0.3, 50), st.floats(0.001, 1), st.floats(0.05, 50))
def test_steps_within_a_limit_are_as_many_as_it_allows(noise, rate, limit):
    most = steps_within(Mechanism(noise, rate), limit, DELTA)
    assert not most or epsilon(noise, rate, most) <= limit * (1 + 1e-9)
    assert epsilon(noise, rate, most + 1) > limit * (1 - 1e-9)


def test_noise_that_is_found_suffices_and_a_percent_less_does_not():
    noise = noise_for(1200, 0.05, 4.0, DELTA, (0.3, 1000))
    assert noise is not None
    assert epsilon(noise, 0.05, 1200) <= 4.0 < epsilon(0.99 * noise, 0.05, 1200)
    assert noise_for(10**9, 1.0, 0.001, 1e-15, (0.3, 1000)) is None


def test_nothing_taken_tells_nothing():
    assert epsilon_of(NO_COST, DELTA) < 0.03  # what the conversion at the largest order leaves
    assert all(value == 0 for value in divergences_of_step(Mechanism(1.0, 0.0)))
    assert math.isinf(epsilon_of((math.inf,) * len(ORDERS), DELTA))


STEP = Mechanism(1.0, 0.05)
LIMITS = [Limit(4.0, DELTA)]
ROUND = 60


def test_sample_pays_only_for_rounds_since_it_came():
    charges = [Charge(10, StepsTaken(STEP, 60)), Charge(30, StepsTaken(STEP, 120))]
    assert cost_of_sample(charges, 10) == pytest.approx(divergences_of([StepsTaken(STEP, 180)]))
    assert cost_of_sample(charges, 11) == pytest.approx(divergences_of([StepsTaken(STEP, 120)]))
    assert cost_of_sample(charges, 31) == NO_COST


CHARGED = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 2000)), max_size=12)


@given(CHARGED)
def test_samples_behind_the_spent_ones_can_bear_a_round_and_the_last_spent_one_can_not(rounds):
    charges = [Charge(newest, StepsTaken(STEP, steps)) for newest, steps in rounds]
    spent = spent_through(charges, STEP, ROUND, LIMITS)
    for sample, can in ((spent + 1, True), (spent, False)):
        if sample:
            left = steps_within(STEP, 4.0, DELTA, cost_of_sample(charges, sample))
            assert (left >= ROUND) == can


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.5, 5), st.integers(1, 2000)), max_size=12))
def test_order_that_decides_is_that_of_a_samples_first_round_whatever_noise_later_ones_had(rounds):
    charges = [Charge(newest, StepsTaken(Mechanism(noise, 0.05), steps)) for newest, noise, steps in rounds]
    spent = spent_through(charges, STEP, ROUND, LIMITS)

    def can_bear(sample: int) -> bool:
        borne = [charge for charge in charges if charge.newest >= sample]
        if not borne:
            return True
        begun = borne[0].taken.mechanism
        order = best_order(begun, 4.0, DELTA)
        at_order = 4.0 - math.log1p(-1 / ORDERS[order]) + (math.log(DELTA * ORDERS[order])) / (ORDERS[order] - 1)
        assert int(at_order / divergences_of_step(begun)[order]) == steps_within(begun, 4.0, DELTA)
        return cost_of_sample(charges, sample)[order] + ROUND * divergences_of_step(STEP)[order] <= at_order + 1e-9

    assert all(can_bear(sample) for sample in range(spent + 1, 52))
    assert spent == 0 or not can_bear(spent)


def test_new_bundle_with_other_noise_does_not_reset_what_was_told():
    most = steps_within(STEP, 4.0, DELTA)
    other = Mechanism(1.5, 0.05)
    assert spent_through([Charge(9, StepsTaken(STEP, most))], other, ROUND, LIMITS) == 9
    assert spent_through([], other, ROUND, LIMITS) == 0


def test_owner_and_task_both_limit_and_words_name_what_was_told_and_what_helps():
    task = SamplePrivacy(epsilon=8.0, noise_multiplier=1.0)
    owner = PrivacySettings(at_least="samples", epsilon=2.0)
    both = limits_of(task, owner)
    assert [limit.epsilon for limit in both] == [8.0, 2.0]
    assert limits_of(task, PrivacySettings()) == [Limit(8.0, DELTA)]
    steps = steps_within(task.mechanism, 2.0, DELTA)
    charges = [Charge(7, StepsTaken(task.mechanism, steps))]
    assert spent_through(charges, task.mechanism, 1, both) == 7
    assert spent_through(charges, task.mechanism, ROUND, both) == EVERY_SAMPLE, "a round is too much by itself"
    assert spent_through(charges, task.mechanism, ROUND, limits_of(task, PrivacySettings())) == 0
    words = spent_words(charges, 7, both)
    assert "of 2 at delta 1e-05" in words
    assert "when new ones come" in words
