"""Noise that devices add behind masks: how far an update moves a sum, what that tells, and the room for it."""

import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.privacy.mask_plan import MaskPlan, with_noise_of_shares
from fleet_protocol.privacy.noise_shares import (
    HEADROOM,
    NoisedUpdates,
    NoiseShares,
    epsilon_told,
    headroom,
    honest_devices,
)
from fleet_protocol.privacy.renyi import ORDERS, divergences_of
from secure_aggregation.coordinator import unmasked
from secure_aggregation.field import Field
from secure_aggregation.manifest import check_manifest, field_of
from secure_aggregation.rounding import rounded
from tests.support.masked_cohort import MaskedCohort, manifest_of

DELTA = 1e-5


def draws(seed):
    return np.random.default_rng(seed).bytes


# How far one update moves a sum.


@pytest.mark.parametrize("entries", [1, 2, 3])
@pytest.mark.parametrize("norm", [0.3, 1.0, 2.5])
def test_roundings_within_the_bound_are_two_in_five_at_least_whatever_the_update(entries, norm):
    """All roundings of many updates, by brute force; the bound holds for the accepted ones by construction."""
    updates = NoisedUpdates(norm, entries, 1, 1)
    axes = [np.linspace(-norm, norm, 17)] * entries
    for point in itertools.product(*axes):
        if np.linalg.norm(point) > norm:
            continue
        accepted = 0.0
        for up in itertools.product((0, 1), repeat=entries):
            down = np.floor(point)
            chance = np.prod([part if goes else 1 - part for part, goes in zip(point - down, up, strict=True)])
            accepted += chance * (float(((down + up) ** 2).sum()) <= updates.largest_square)
        assert accepted >= 1 - math.exp(-0.5)


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.integers(2, 16),
    st.floats(0.5, 1e6),
    st.integers(0, 100),
)
def test_no_update_is_longer_than_what_noise_hides(entries, bits, norm, seed):
    updates = NoisedUpdates(norm, entries.size, 3, 2)
    field = Field(1.0, bits, 10, 3)
    found = rounded(field, entries, updates, draws(seed))
    assert int(found.plain @ found.plain) <= updates.largest_square
    assert np.abs(found.plain).max() <= field.most
    length = float(np.linalg.norm(entries.astype(float))) / field.step
    assert found.scale * length <= norm * (1 + 1e-12)
    assert found.scale == 1 or length > norm * (1 - 1e-12)


def test_update_that_is_not_finite_or_has_other_noise_than_its_cohort_is_refused():
    noised, entries = NoisedUpdates(10.0, 2, 3, 2), np.array([0.5, np.nan], np.float32)
    with pytest.raises(ProtocolError, match="entry 1 of the update is nan") as refusal:
        rounded(Field(1.0, 8, 10, 3), entries, noised, draws(1))
    assert refusal.value.reason == Reason.NOT_FINITE
    for deviation, updates in ((2, noised), (3, None), (0, noised), (3, replace(noised, entries=1))):
        with pytest.raises(ProtocolError, match=rf"noise of {deviation} levels on 2 entries, its task"):
            rounded(Field(1.0, 8, 10, deviation), entries, updates, draws(1))


# What that tells, against the distribution itself.


REACH = 100
"""Deviations of one device's noise that sums are looked at within."""


def sum_of_noise(deviation, devices):
    """The logarithm of P of the sum of so many discrete Gaussians, on -REACH deviation .. REACH deviation."""
    most = REACH * deviation
    places = np.arange(-most, most + 1)
    weights = -(places**2) / (2 * deviation**2)
    one = total = weights - np.logaddexp.reduce(weights)
    for _ in range(devices - 1):
        wide = np.pad(total, 2 * most, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(wide, one.size)
        total = np.logaddexp.reduce(windows + one, axis=1)[most : most + one.size]
    return total


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("deviation", [1, 2, 3])
def test_renyi_divergences_of_the_sum_are_within_the_bound_and_near_it(deviation, devices):
    """One entry, moved by whole levels, against the distribution itself."""
    noise = sum_of_noise(deviation, devices)
    updates = NoisedUpdates(1.0, 1, deviation, devices)
    gap = updates.moved - math.sqrt(updates.largest_square / devices) / deviation
    for moved, order in itertools.product((1, 2, 3), (2, 4, 16)):
        logs = order * noise[moved:] + (1 - order) * noise[:-moved]
        exact = float(np.logaddexp.reduce(logs)) / (order - 1)
        counted = order * (moved / (math.sqrt(devices) * deviation) + gap) ** 2 / 2
        assert exact <= counted * (1 + 1e-9)
        assert exact == pytest.approx(counted, rel=1e-6 if deviation > 1 else 0.01)


@pytest.mark.parametrize(("deviation", "devices", "count"), [(2, 3, 1), (2, 3, 2), (4, 2, 3)])
def test_epsilon_holds_for_the_exact_distribution_of_several_updates(deviation, devices, count):
    """The probability for which epsilon does not speak, of that many sums of one entry, all moved as far as may be."""
    updates = NoisedUpdates(1.0, 1, deviation, devices)
    moved = math.isqrt(updates.largest_square)
    epsilon = epsilon_told([updates.taken(count)], DELTA)
    noise = np.exp(sum_of_noise(deviation, devices))
    noise = noise[noise > 1e-17]
    here, there = noise[moved:], noise[:-moved]
    products = here, there
    for _ in range(count - 1):
        products = np.multiply.outer(products[0], here).ravel(), np.multiply.outer(products[1], there).ravel()
    beyond = np.maximum(products[0] - math.exp(epsilon) * products[1], 0).sum()
    assert 0 < beyond <= DELTA


def test_count_is_that_of_dp_accounting():
    first, second = NoisedUpdates(1270.0, 6634, 182, 100), NoisedUpdates(300.0, 6634, 90, 70)
    accountant = rdp.RdpAccountant(list(ORDERS))
    for updates, count in ((first, 5), (second, 3)):
        event = dp_event.GaussianDpEvent(1 / updates.moved)
        accountant.compose(dp_event.SelfComposedDpEvent(event, count))
    told = epsilon_told([first.taken(5), second.taken(3)], DELTA)
    assert told == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-6)


def test_updates_of_several_bundles_add_up_and_none_tell_nothing():
    updates = NoisedUpdates(1270.0, 6634, 182, 100)
    assert epsilon_told([], DELTA) == epsilon_told([updates.taken(0)], DELTA) == 0.0
    twice = divergences_of([updates.taken(1), updates.taken(1)])
    assert twice == pytest.approx(divergences_of([updates.taken(2)]))


# How much noise a bundle has.


def plan_of(**noise):
    keys = {"a": "0" * 64, "b": "1" * 64}
    usual = {"epsilon": 8.0, "norm": 0.5, "at_most": 5}
    asked = msgspec.convert(usual | noise, NoiseShares)
    return MaskPlan(keys, 0.05, bits=8, fewest_devices=70, noise=asked)


@pytest.mark.parametrize("noise", [{}, {"epsilon": 2.0}, {"at_most": 1}, {"dishonest": 0.5}, {"delta": 1e-7}])
def test_noise_is_the_least_that_keeps_epsilon(noise):
    plan = with_noise_of_shares(plan_of(**noise), 6634, "task.toml")
    updates = plan.noised_updates(6634)

    def told(deviation):
        return epsilon_told([replace(updates, deviation=deviation).taken(plan.noise.at_most)], plan.noise.delta)

    assert told(plan.deviation) <= plan.noise.epsilon < told(plan.deviation - 1)


def test_half_of_the_devices_without_noise_make_that_of_each_other_one_larger_by_the_square_root_of_two():
    honest, half = (with_noise_of_shares(plan_of(dishonest=share), 6634, "task.toml") for share in (0.0, 0.5))
    assert half.deviation == pytest.approx(math.sqrt(2) * honest.deviation, abs=1.5)
    assert honest_devices(70, 0.5) == 35
    assert honest_devices(71, 0.5) == 36
    assert honest_devices(2, 0.99) == 1


def test_noise_that_is_written_or_can_not_be_is_refused():
    with pytest.raises(ConfigurationError, match="deviation is 3; leave it out"):
        with_noise_of_shares(plan_of(deviation=3), 6634, "task.toml")
    with pytest.raises(ConfigurationError, match="which even noise of 16777216 levels on each device exceeds"):
        with_noise_of_shares(
            msgspec.structs.replace(plan_of(norm=2.0**20, epsilon=1e-3), clip=2.0**-20), 2**24, "task.toml"
        )


# The sum of a cohort.

NOISED = NoisedUpdates(300.0, 4000, 20, 4)


def cohort_of(devices):
    manifest = manifest_of(entries=4000, weights=(1,), fewest_devices=4, fewest_per_weight=4, deviation=20)
    return MaskedCohort(manifest, devices, noised=NOISED)


@pytest.mark.parametrize("devices", [4, 7])
def test_sum_of_a_cohort_at_its_minimum_has_the_noise_that_is_counted_on_and_a_larger_one_more(devices):
    cohort = cohort_of(devices)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 1))
    total = unmasked(cohort.manifest, cohort_set, cohort.admitted, cohort.answers(cohort_set, (1, 3)))
    plain = sum(np.rint(made.sent.values / field_of(cohort.manifest).step) for made in cohort.rounds.values())
    noise = total.levels - plain
    counted_on = NOISED.deviation**2 * NOISED.honest
    assert noise.var() == pytest.approx(devices / NOISED.honest * counted_on, rel=0.1)
    assert abs(noise.mean()) < 4 * math.sqrt(devices * 400 / 4000)
    assert math.sqrt(NOISED.largest_square / counted_on) == pytest.approx(NOISED.moved)


@given(st.integers(2, 16), st.integers(2, 1024), st.integers(1, 2**16), st.data())
def test_width_has_room_for_levels_and_noise_and_no_bit_more(bits, devices, deviation, data):
    field = Field(1.0, bits, devices, deviation)
    assert headroom(deviation, devices) >= HEADROOM * deviation * math.sqrt(devices) * (1 - 1e-12)
    largest = field.most * devices + headroom(deviation, devices)
    assert field.width == max(8, largest.bit_length() + 1)
    if field.width <= 32:
        total = np.array([-largest, largest, data.draw(st.integers(-largest, largest))])
        np.testing.assert_array_equal(field.signed_sum(field.residues(total), devices), total)


def test_noise_passes_the_room_for_it_in_no_version_that_anybody_will_see():
    """Chernoff's bound, for an update of 2^24 entries."""
    assert 2**24 * 2 * math.exp(-(HEADROOM**2) / 2) < 1e-23
    assert headroom(0, 1000) == 0


def test_cohort_with_noise_has_weights_of_one_alone():
    check_manifest(manifest_of(deviation=5, weights=(1,)))
    with pytest.raises(ProtocolError, match="every weight is 1 there"):
        check_manifest(manifest_of(deviation=5))
