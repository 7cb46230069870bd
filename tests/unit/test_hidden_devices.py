"""Versions that hide each device: the sensitivity, the noise, the clip, and what epsilon they keep."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy.clipped_sum import partial
from broker_coordinator.aggregation.device_privacy.version_clip import VersionClip
from broker_coordinator.aggregation.device_privacy.version_noise import UNITS_PER_DEVIATION, NoiseSeries, VersionNoise
from broker_coordinator.aggregation.server_state import ServerState
from edge_agent.core.turns import Turns, why_not_yet
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.banded_noise import (
    best_bands,
    error_of_prefix_sums,
    noise_coefficients,
    sensitivity,
    strategy_coefficients,
)
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.task_description import TaskDescription
from tests.support.hidden_devices import hiding_bundle, hiding_plan


def noise_matrix(versions, bands):
    matrix = np.zeros((versions, versions))
    for row, column in itertools.product(range(versions), repeat=2):
        if 0 <= row - column < bands:
            matrix[row, column] = noise_coefficients(bands)[row - column]
    return matrix


@pytest.mark.parametrize("versions", [1, 3, 6, 9])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 8])
def test_no_pattern_of_participation_moves_more_than_the_sensitivity(versions, bands):
    """All patterns and all signs, by brute force."""
    strategy = np.linalg.inv(noise_matrix(versions, bands))
    for at_most, between in itertools.product((1, 2, 3), (1, 2, 3, 5)):
        worst = max(
            np.linalg.norm(strategy[:, list(pattern)] @ np.array(signs))
            for count in range(1, at_most + 1)
            for pattern in itertools.combinations(range(versions), count)
            if all(later - earlier >= between for earlier, later in itertools.pairwise(pattern))
            for signs in itertools.product((1, -1), repeat=count)
        )
        assert sensitivity(versions, bands, at_most, between) == pytest.approx(worst)


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_coefficients_of_the_strategy_fall_and_are_not_negative(versions, bands):
    """What the sensitivity's formula asks for."""
    found = strategy_coefficients(versions, bands)
    assert all(earlier >= later >= 0 for earlier, later in itertools.pairwise(found))


def test_error_of_prefix_sums_is_that_of_the_matrix():
    prefix = np.tril(np.ones((12, 12))) @ noise_matrix(12, 4)
    assert error_of_prefix_sums(12, 4) == pytest.approx(np.linalg.norm(prefix) / math.sqrt(12))


def test_bands_are_more_where_devices_count_rarely_and_one_where_they_count_in_every_version():
    assert best_bands(100, 100, 1) == 1
    assert best_bands(100, 10, 10) == 8
    assert best_bands(1000, 10, 50) == 32


def test_noise_of_versions_has_the_covariance_of_the_matrix_mechanism():
    size, bands, versions = 100_000, 3, 4
    series, told = NoiseSeries(), []
    plan = hiding_plan(bands=bands)
    for version in range(versions):
        series = series.after(bytes([version]) * 32, plan)
        assert series.noise
        told.append(series.noise.units(size) / UNITS_PER_DEVIATION)
    matrix = noise_matrix(versions, bands)
    np.testing.assert_allclose(np.cov(np.array(told)), matrix @ matrix.T, atol=0.02)


def test_noise_is_whole_numbers_that_follow_from_the_seeds_alone():
    coefficients = noise_coefficients(2)
    noise = VersionNoise((b"a" * 32, b"b" * 32), coefficients)
    values = noise.units(300_001)
    assert (values == np.rint(values)).all()
    assert (noise.units(300_001) == values).all()
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert not (VersionNoise((b"a" * 32, b"c" * 32), coefficients).units(1000) == values[:1000]).any()


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20),
    st.floats(1e-6, 1e6),
)
def test_no_update_moves_a_sum_by_more_than_the_clip(values, clip):
    plan = hiding_plan(clip=clip)
    delta = SparseUpdate(np.arange(len(values)), np.array(values, np.float32))
    units, version = np.zeros(len(values)), VersionClip.of(None, plan, 2)
    version.add(delta, units)
    assert (units == np.trunc(units)).all()
    assert math.sqrt(math.fsum(float(each) ** 2 for each in units)) * version.unit <= clip


def test_samples_and_staleness_weigh_nothing_and_parts_of_a_buffer_add_up():
    plan = hiding_plan()
    state = ServerState(0, np.zeros(3, np.float32), np.zeros((0, 3), np.float32))
    deltas = [SparseUpdate(np.arange(3), np.array(each, np.float32)) for each in ([3, 0, 1], [0, -0.1, 0], [1, 1, 1])]
    one = [BufferedUpdate("pi", delta, 1, 0, 0) for delta in deltas]
    other = [BufferedUpdate("pi", delta, 500, 0, 7) for delta in deltas]
    whole = partial(state, one, plan, 2).units
    assert (partial(state, other, plan, 2).units == whole).all()
    assert ((partial(state, one[:1], plan, 2) + partial(state, one[1:], plan, 2)).units == whole).all()


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_epsilon_is_kept_by_a_second_computation(epsilon):
    """Balle & Wang 2018, theorem 8: the exact delta of a Gaussian mechanism."""
    plan = hiding_plan(epsilon=epsilon)
    noise = plan.mechanism_of(plan.versions).noise_multiplier

    def normal(value):
        return math.erfc(-value / math.sqrt(2)) / 2

    delta = normal(0.5 / noise - epsilon * noise) - math.exp(epsilon) * normal(-0.5 / noise - epsilon * noise)
    assert delta <= plan.delta
    assert epsilon * 0.99 <= plan.epsilon_after(plan.versions) <= epsilon
    told = [plan.epsilon_after(versions) for versions in range(plan.versions + 1)]
    assert told[0] == 0.0
    assert told == sorted(told)


def test_epsilon_that_no_noise_keeps_is_refused():
    with pytest.raises(ConfigurationError, match=r"epsilon is 1e-05 .*write a larger epsilon or delta"):
        hiding_plan(epsilon=1e-5)
    with pytest.raises(ConfigurationError, match=r"noise_multiplier is 3; leave it out"):
        hiding_plan(noise_multiplier=3.0)


def test_device_trains_when_its_update_would_count():
    plan = hiding_plan()
    assert why_not_yet(plan, Turns(), 0, waiting=0) is None
    assert "waits for its receipt" in (why_not_yet(plan, Turns(1, 4), 9, waiting=1) or "")
    assert "behind version 4" in (why_not_yet(plan, Turns(1, 4), 5, waiting=0) or "")
    assert why_not_yet(plan, Turns(1, 4), 6, waiting=0) is None
    assert "takes no more" in (why_not_yet(plan, Turns(3, 4), 9, waiting=0) or "")


def changed(task: TaskDescription, **parts: dict[str, object]) -> TaskDescription:
    new = {name: msgspec.structs.replace(getattr(task, name), **values) for name, values in parts.items()}
    return msgspec.structs.replace(task, **new)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"aggregation": {"strategy": "ca2fl"}}, "looks at single updates"),
        ({"aggregation": {"staleness_weighting": "polynomial"}}, "staleness_weighting = 'constant'"),
        ({"aggregation": {"buffer_size": None}}, "needs aggregation.buffer_size"),
        ({"aggregation": {"norm_quantile_factor": 2.0}}, "a bound by others' norms"),
        ({"training": {"validation_share": 0.1}}, "validation_share = 0"),
        ({"sending": {"rule": "changed", "threshold": 0.5}}, "needs every round sent"),
    ],
)
def test_what_would_tell_of_single_devices_is_refused_with_what_to_write(tmp_path, parts, words):
    task = hiding_bundle(tmp_path).description
    assert parse_description(msgspec.json.encode(task)) == task
    with pytest.raises(ConfigurationError, match=words):
        parse_description(msgspec.json.encode(changed(task, **parts)))


def test_plan_whose_noise_is_too_small_is_refused(tmp_path):
    task = hiding_bundle(tmp_path).description
    less = msgspec.structs.replace(hiding_plan(), noise_multiplier=0.5)
    with pytest.raises(ConfigurationError, match=r"promises epsilon 4, and its noise of 0\.5 keeps .*export again"):
        parse_description(msgspec.json.encode(msgspec.structs.replace(task, privacy=PrivacyPlan(devices=less))))
