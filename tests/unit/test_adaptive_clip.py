"""A clip that follows the norms of updates: what one device moves, the formula, where it ends up, and its bounds."""

import hashlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy import clipped_sum
from broker_coordinator.aggregation.device_privacy.version_clip import VersionClip
from broker_coordinator.aggregation.device_privacy.version_noise import UNITS_PER_DEVIATION, NoiseSeries, VersionNoise
from broker_coordinator.aggregation.server_state import ServerState
from edge_agent.training.compression import pack, unpack
from edge_agent.training.feedback import recall
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import HeldBlocks, SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip, count_scale, share_deviation
from tests.support.hidden_devices import hiding_bundle, hiding_plan

AT_MOST = 64.0
ADAPTIVE = AdaptiveClip(at_most=AT_MOST)
LONG = {"epsilon": 8.0, "versions": 400, "at_most": 5, "versions_between": 50}


def update_of(values) -> BufferedUpdate:
    delta = SparseUpdate(np.arange(len(values)), np.array(values, np.float32))
    return BufferedUpdate("pi", delta, 1, 0, 0)


def before(size, clip=None):
    return ServerState(0, np.zeros(size, np.float32), np.zeros((1, size), np.float32), clip=clip)


@given(
    st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=20),
    st.floats(AT_MOST / 2**20, AT_MOST),
    st.integers(1, 1000),
    st.sampled_from([0.1, 1.0, 8.0, 100.0]),
    st.sampled_from(["banded", "tree", "independent"]),
)
def test_no_device_moves_sum_and_count_by_more_than_the_noise_is_for(values, clip, buffer_size, epsilon, noise):
    """With or without it, whatever it sends: norm 1, of which `noise_multiplier` counts the noise."""
    plan = hiding_plan(adaptive_clip=ADAPTIVE, epsilon=epsilon, noise=noise)
    state = before(len(values), clip)
    others = [update_of(np.full(len(values), 0.25)), update_of(np.zeros(len(values)))]
    absent = clipped_sum.partial(state, others, plan, buffer_size).units
    present = clipped_sum.partial(state, [*others, update_of(values)], plan, buffer_size).units
    moved = present - absent
    assert (moved == np.trunc(moved)).all()
    whole = math.sqrt(math.fsum(float(each) ** 2 for each in moved))
    assert whole / UNITS_PER_DEVIATION * plan.noise_multiplier * plan.sensitivity <= 1
    assert moved[-1] != 0


def test_the_noise_and_the_epsilon_are_those_of_a_fixed_clip():
    fixed, adaptive = hiding_plan(), hiding_plan(adaptive_clip=ADAPTIVE)
    assert adaptive.noise_multiplier == fixed.noise_multiplier
    assert [adaptive.epsilon_after(each) for each in range(7)] == [fixed.epsilon_after(each) for each in range(7)]


def test_version_follows_the_formulas_of_sum_and_clip(tmp_path):
    adaptive = AdaptiveClip(at_most=AT_MOST, quantile=0.75, learning_rate=0.5)
    task = hiding_bundle(tmp_path, buffer_size=4, epsilon=100.0, clip=2.0, adaptive_clip=adaptive).description
    plan = task.device_privacy
    size = task.parameter_count
    noise = NoiseSeries().after(b"s" * 32, plan).noise
    deltas = [np.full(size, norm / math.sqrt(size)) for norm in (1.0, 1.9, 8.0)]
    state = before(size)
    total = clipped_sum.partial(state, [update_of(each) for each in deltas] + [noise], plan, 4)
    made = clipped_sum.finish(state, total, task, plan)

    deviation = plan.noise_multiplier * plan.sensitivity
    drawn = noise.units(size + 1) / UNITS_PER_DEVIATION * deviation
    beta = min(20 * deviation / 4, math.sqrt(0.2))
    alpha = math.sqrt(1 - beta**2 / 4)
    sum_of_clipped = (deltas[0] + deltas[1] + deltas[2] / 4) / 2.0
    step = (alpha * sum_of_clipped + drawn[:-1]) * 2.0 / alpha / 4
    np.testing.assert_allclose(made.weights, step, rtol=1e-5, atol=1e-6)
    within = drawn[-1] / beta + (2 - 1) / 2
    expected = 2.0 * math.exp(-0.5 * (within - 0.25 * 3) / 4)
    assert made.clip == pytest.approx(expected, rel=1e-6)
    assert np.float32(made.clip) == made.clip


def test_full_version_without_noise_moves_by_the_papers_formula():
    """Andrew et al. 2021: C * exp(-rate * (share - quantile))."""
    for within in range(11):
        found = AdaptiveClip(at_most=100.0, quantile=0.3).after(2.0, within - 5, 10, 10)
        assert found == pytest.approx(2.0 * math.exp(-0.2 * (within / 10 - 0.3)))


@pytest.mark.parametrize(("noise", "quantile", "true"), [("banded", 0.5, 1.0), ("tree", 0.8, math.exp(0.8416212))])
@pytest.mark.parametrize("first", [0.01, 100.0])
def test_clip_reaches_the_quantile_of_the_norms_from_a_hundred_times_too_far(tmp_path, quantile, true, first, noise):
    """Norms are lognormal, of median 1, so the quantile is known; with the noise of epsilon 8."""
    adaptive = AdaptiveClip(at_most=200.0, quantile=quantile)
    plan = LONG | {"clip": first, "adaptive_clip": adaptive, "noise": noise}
    task = hiding_bundle(tmp_path, buffer_size=100, **plan).description
    generator = np.random.default_rng(4)
    state, series, found = before(3), NoiseSeries(), []
    for version in range(LONG["versions"]):
        series = series.after(hashlib.sha256(bytes([version % 256, version // 256])).digest(), task.device_privacy)
        norms = np.exp(generator.normal(0, 1, 100))
        items = [update_of([norm * 0.6, 0, norm * 0.8]) for norm in norms]
        total = clipped_sum.partial(state, [*items, series.noise], task.device_privacy, 100)
        state = clipped_sum.finish(state, total, task, task.device_privacy)
        found.append(state.clip)
    assert abs(math.log(found[20] / true)) < abs(math.log(first / true)) - 0.5
    assert math.exp(np.mean(np.log(found[200:]))) == pytest.approx(true, rel=0.1)
    assert 0.5 < min(found[200:]) / true < max(found[200:]) / true < 2


@pytest.mark.parametrize("length", [0.0, 3e38, 1e-30])
@pytest.mark.parametrize("updates", [1, 4])
def test_clip_stays_within_its_bounds_whatever_norms_come(tmp_path, length, updates):
    changed = {"epsilon": 100.0, "adaptive_clip": AdaptiveClip(at_most=8.0, learning_rate=1.0), "versions": 300}
    task = hiding_bundle(tmp_path, buffer_size=4, at_most=1, **changed).description
    plan, state, series = task.device_privacy, before(2), NoiseSeries()
    for version in range(300):
        series = series.after(hashlib.sha256(bytes([version % 256, version // 256])).digest(), plan)
        items = [update_of([length, 0]) for _ in range(updates)]
        state = clipped_sum.finish(state, clipped_sum.partial(state, [*items, series.noise], plan, 4), task, plan)
        assert 8.0 / 2**20 <= state.clip <= 8.0
        assert np.isfinite(state.weights).all()
    assert state.clip == pytest.approx(8.0 if length > 1 else 8.0 / 2**20, rel=0.9)


def test_one_absurd_update_moves_the_clip_as_far_as_any_longer_one_does():
    plan = hiding_plan(adaptive_clip=ADAPTIVE, epsilon=100.0)
    clip = VersionClip.of(0.5, plan, 4)
    absurd, longer = np.zeros(3), np.zeros(3)
    clip.add(update_of([3.4e38, -3.4e38]).delta, absurd)
    clip.add(update_of([0.6, 0]).delta, longer)
    assert absurd[-1] == longer[-1] == -clip.half
    assert np.linalg.norm(absurd[:2]) * clip.unit == pytest.approx(0.5)


def test_noise_of_the_share_is_a_twentieth_where_the_count_may_take_what_that_needs():
    assert share_deviation(1.0, 100) == pytest.approx(1 / 20)
    assert count_scale(1.0, 100) == pytest.approx(0.2)
    assert count_scale(50.0, 100) ** 2 / 4 == pytest.approx(0.05)
    assert share_deviation(50.0, 100) > 1 / 20


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20),
    st.floats(1e-6, 1e6),
)
def test_a_fixed_clip_gives_every_bit_that_it_gave_before_clips_could_follow(values, clip):
    plan = hiding_plan(clip=clip)
    total = clipped_sum.partial(before(len(values)), [update_of(values)], plan, 2)
    unit = plan.noise_multiplier * plan.sensitivity * clip / 2.0**24
    norm = update_of(values).delta.norm()
    below = 1 - 2.0**-40
    scale = 1.0 if norm <= clip * below else clip * below / norm
    assert (total.units == np.trunc(np.array(values, np.float64) * (scale / unit))).all()


def test_a_task_with_a_fixed_clip_says_and_keeps_nothing_of_one_that_follows(tmp_path):
    task = hiding_bundle(tmp_path).description
    plan = task.device_privacy
    assert msgspec.json.encode(plan) == (
        b'{"epsilon":4.0,"clip":0.5,"versions":6,"at_most":3,"versions_between":2,"bands":2,'
        b'"noise_multiplier":1.1580493927001954}'
    )
    state = before(task.parameter_count)
    noise = VersionNoise((b"s" * 32,), (1.0,))
    made = clipped_sum.finish(state, clipped_sum.partial(state, [noise], plan, 2), task, plan)
    assert made.clip is None
    unit = plan.noise_multiplier * plan.sensitivity * 0.5 / 2.0**24
    step = noise.units(task.parameter_count) * (unit / 2)
    assert made.weights.tobytes() == step.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clip": 65.0}, r"begins with clip 65, and adaptive_clip.at_most = 64 lets it be from .*write a clip between"),
        ({"clip": 1e-6}, r"begins with clip 1e-06.*1048576 times less"),
        ({"epsilon": 4.0}, r"buffer_size = 2 the share .* deviation 3, at most 0\.5 is taken: .*larger buffer_size"),
    ],
)
def test_settings_that_contradict_are_refused_with_what_to_write(tmp_path, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        hiding_bundle(tmp_path, **({"epsilon": 100.0, "adaptive_clip": ADAPTIVE} | settings))


@pytest.mark.parametrize(("key", "value"), [("quantile", 0.0), ("quantile", 1.0), ("learning_rate", 0), ("at_most", 0)])
def test_settings_out_of_their_range_are_refused(tmp_path, key, value):
    task = hiding_bundle(tmp_path, buffer_size=4, epsilon=100.0, adaptive_clip=ADAPTIVE).description
    document = msgspec.json.decode(msgspec.json.encode(task))
    document["privacy"]["devices"]["adaptive_clip"][key] = value
    with pytest.raises(ConfigurationError, match=f"adaptive_clip.{key}"):
        parse_description(msgspec.json.encode(document))


def test_device_leaves_to_the_coordinator_what_is_longer_than_the_present_clip(tmp_path):
    """It does not know that clip; what `at_most` takes away is forgotten, as with a fixed one."""
    adaptive = AdaptiveClip(at_most=4.0)
    task = hiding_bundle(tmp_path, buffer_size=4, epsilon=100.0, adaptive_clip=adaptive).description
    direction = np.full(task.trained_count, 1 / math.sqrt(task.trained_count), np.float32)
    for norm, sent, forgotten in ((3.0, 3.0, 0.0), (12.0, 4.0, 8.0)):
        memory = recall(task.update, b"", task.trained_count, 1)
        packed = pack(norm * direction, memory, task, seed=5)
        length = unpack(packed.data, HeldBlocks.of(task, [])).norm()
        assert 0.5 * sent < length <= sent
        assert packed.forgotten == pytest.approx(forgotten, abs=0.35 * norm)
        assert (packed.forgotten == 0) == (forgotten == 0)


@pytest.mark.parametrize("adaptive_clip", [None, AdaptiveClip(at_most=1e6)])
def test_device_sends_an_update_of_any_norm_as_that_none_is_sent_would_tell_of_it(tmp_path, adaptive_clip):
    changed = {"epsilon": 100.0, "clip": 1e5, "adaptive_clip": adaptive_clip}
    task = hiding_bundle(tmp_path, buffer_size=4, **changed).description
    most = task.largest_delta_norm
    assert most < 1e5
    memory = recall(task.update, b"", task.trained_count, 1)
    packed = pack(np.full(task.trained_count, most, np.float32), memory, task, seed=5)
    assert 0 < unpack(packed.data, HeldBlocks.of(task, [])).norm() <= most
