"""Every strategy is its paper's equation."""

from dataclasses import replace
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.aggregation.chosen_strategy import strategy_of
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.robust import RULES
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.server_step import finish, initial_state, next_state, partial_of
from broker_coordinator.aggregation.strategies import RECENT_VERSIONS, STRATEGIES, Partial, Recall, Step
from broker_coordinator.aggregation.strategies.base_mean import Began
from broker_coordinator.aggregation.strategies.ef21 import Estimate
from broker_coordinator.aggregation.strategies.posterior import Kept
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.robust_plan import TRUSTING_RULES, RobustPlan, RuleName
from tests.support.updates import SIZE, buffered_updates, dense, update_of

DEVIATION = 0.5
"""Of the prior of `posterior`."""
MODEL = 8
DRAWN = [1, 4, 5, 7]
"""Weights of the model that have a Gaussian there; their precisions stand behind the model."""
FACTOR = np.array([*DRAWN, *range(MODEL, SIZE)])
OTHERS = np.array([each for each in range(MODEL) if each not in DRAWN])
some_updates = st.lists(buffered_updates(), min_size=4, max_size=12)
of_each_plan = settings(max_examples=25)  # there are thirty plans


def rule_of(rule: RuleName, bucket_size: int) -> RobustPlan:
    return RobustPlan(rule, bucket_size=bucket_size, trusted_devices=("barn",) if rule in TRUSTING_RULES else ())


MEANS = {name: AggregationPlan(strategy=name) for name in sorted(STRATEGIES)}
WITH_A_RULE = {
    f"{strategy}, {rule}": AggregationPlan(strategy=strategy, robust=rule_of(rule, size))
    for strategy, size, rules in (("aced", 1, sorted(RULES)), ("fedbuff", 2, ["median", *TRUSTING_RULES]))
    for rule in rules
}
EVERY_PLAN = MEANS | WITH_A_RULE
MOST_OF_THEM = sorted(EVERY_PLAN.keys() - {"fedasync"})


def state_after(updates: list[BufferedUpdate], plan: AggregationPlan) -> ServerState:
    """Version 20, of which `updates` have already been aggregated."""
    first = np.linspace(-1, 1, SIZE, dtype=np.float32)
    if plan.strategy == "posterior":
        first[MODEL:] = DEVIATION
    state = replace(initial_state(first, plan, FACTOR), version=20)
    return replace(state, remembered=strategy_of(plan).remember(state, updates, plan))


def direction(state: ServerState, buffer: list[BufferedUpdate], plan: AggregationPlan) -> np.ndarray:
    return step_of(state, [buffer], plan).direction


def step_of(state: ServerState, parts: list[list[BufferedUpdate]], plan: AggregationPlan) -> Step:
    return strategy_of(plan).finish(state, merged(state, parts, plan), plan)


def merged(state: ServerState, parts: list[list[BufferedUpdate]], plan: AggregationPlan) -> Partial:
    return reduce(add, [partial_of(state, part, plan) for part in parts])


def usual(values) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def bounded(last: dict[str, tuple[int, np.ndarray]]) -> dict[str, tuple[float, np.ndarray]]:
    """By device, the samples that count and the vector, as docs/decisions/weight-of-one-device.md has it."""
    if not last:
        return {}
    most = 1.5 * usual([samples for samples, _ in last.values()])
    norms = {device: float(np.linalg.norm(vector)) for device, (_, vector) in last.items()}
    longest = longest_among(list(norms.values()))
    return {
        device: (min(samples, most), vector * min(1, longest / (norms[device] or 1)))
        for device, (samples, vector) in last.items()
    }


def longest_among(norms: list[float]) -> float:
    """What a vector may be as long as, of devices with such ones."""
    several = sorted(norms)[-max(2, -(-len(norms) // 10)) :][0]
    median = usual(norms)
    return (2 * min(max(several, median), 2 * median) if len(norms) >= 3 else 0) or np.inf


def last_of(updates: list[BufferedUpdate]) -> dict[str, tuple[int, np.ndarray]]:
    return {update.device: (update.samples, dense(update)) for update in updates}


def weighted_mean(pairs: list[tuple[float, np.ndarray]]) -> np.ndarray:
    return sum((weight * vector for weight, vector in pairs), np.zeros(SIZE)) / (
        sum(weight for weight, _ in pairs) or 1
    )


@given(some_updates)
def test_fedavg_is_the_mean_by_samples(updates) -> None:
    plan = AggregationPlan(buffer_size=3, strategy="fedavg", max_staleness=0)
    expected = weighted_mean([(update.samples, dense(update)) for update in updates])
    np.testing.assert_allclose(direction(state_after([], plan), updates, plan), expected, atol=1e-9)


@given(some_updates)
def test_ca2fl_is_the_equation(updates) -> None:
    earlier, buffer = updates[:-3], updates[-3:]
    last = {update.device: update for update in earlier}
    plan = AggregationPlan(buffer_size=3, strategy="ca2fl")
    counted = bounded(last_of(earlier))
    corrected = weighted_mean(
        [
            (update.weight(plan), dense(update) - (counted[update.device][1] if update.device in last else 0))
            for update in buffer
        ]
    )
    everyone = weighted_mean(list(counted.values()))
    state = state_after(earlier, plan)
    np.testing.assert_allclose(direction(state, buffer, plan), everyone + corrected, rtol=1e-5, atol=1e-5)
    assert next_state(state, buffer, plan).remembered == last | {update.device: update for update in buffer}


@given(some_updates, st.integers(0, 25))
def test_aced_is_the_mean_of_the_last_updates_that_are_not_too_old(updates, oldest) -> None:
    earlier, buffer = updates[:-1], updates[-1:]
    plan = AggregationPlan(buffer_size=1, strategy="aced", cached_staleness=oldest)
    last = {update.device: update for update in updates}.values()
    counted = bounded(last_of(updates))
    engaged = [counted[update.device] for update in last if 20 - update.base_version <= oldest]
    found = direction(state_after(earlier, plan), buffer, plan)
    np.testing.assert_allclose(found, weighted_mean(engaged), rtol=1e-5, atol=1e-5)


@given(some_updates)
def test_ef21_is_the_mean_of_every_devices_sum(updates) -> None:
    plan = AggregationPlan(buffer_size=1, strategy="ef21")
    last = {update.device: update for update in updates}
    sums = {device: sum(dense(update) for update in updates if update.device == device) for device in last}
    counted = bounded({device: (update.samples, sums[device]) for device, update in last.items()})
    expected = weighted_mean(list(counted.values()))
    found = direction(state_after(updates[:-1], plan), updates[-1:], plan)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@given(some_updates)
def test_posterior_is_the_prior_times_every_factor(updates) -> None:
    """In natural parameters, where that is a sum; precisions are told times the prior's deviation."""
    plan = AggregationPlan(buffer_size=1, strategy="posterior")
    last = {update.device: update for update in updates}
    sums = {each: sum(dense(update)[FACTOR] for update in updates if update.device == each) for each in last}
    factors = [vector for _, vector in bounded({each: (last[each].samples, sums[each]) for each in last}).values()]
    prior = DEVIATION**-2
    precision = prior + sum(np.maximum(each[len(DRAWN) :], 0) * prior / DEVIATION for each in factors)
    prior_mean = np.linspace(-1, 1, SIZE)[DRAWN]
    mean = (prior * prior_mean + sum(each[: len(DRAWN)] * prior for each in factors)) / precision
    made = next_state(state_after(updates[:-1], plan), updates[-1:], plan)
    expected = np.concatenate([mean, DEVIATION * precision / prior])
    np.testing.assert_allclose(made.weights[FACTOR], expected, rtol=1e-4, atol=1e-4)
    assert (made.weights[MODEL:] >= np.float32(DEVIATION)).all()


@given(some_updates)
def test_posterior_moves_what_has_no_gaussian_by_the_buffers_weighted_mean(updates) -> None:
    """Each update within the bounds of what devices sent last."""
    plan = AggregationPlan(buffer_size=2, strategy="posterior")
    last = {update.device: float(np.linalg.norm(dense(update)[OTHERS])) for update in updates}
    longest = longest_among(list(last.values()))
    pairs = []
    for update in updates[-2:]:
        norm = float(np.linalg.norm(dense(update)[OTHERS]))
        within = dense(update) * min(1, longest / (norm or 1))
        pairs.append((update.samples * (1 + update.staleness) ** -0.5, within))
    found = direction(state_after(updates[:-2], plan), updates[-2:], plan)
    np.testing.assert_allclose(found[OTHERS], weighted_mean(pairs)[OTHERS], rtol=1e-4, atol=1e-4)


def test_one_device_alone_moves_what_has_no_gaussian_no_further_than_any_task_takes() -> None:
    """What its factor may be is far more, and nobody else has sent anything to compare it with."""
    plan = AggregationPlan(buffer_size=1, strategy="posterior")
    moved = direction(state_after([], plan), [update_of(1e6)], plan)
    assert moved[0] == pytest.approx(100)


@pytest.mark.parametrize(
    ("threshold", "learning_rate", "largest", "rate"),
    [(1, 0.1, 1, 1.0), (1, 0.1, 5, 1.0), (1, 0.1, 20, 0.5), (1, 1.0, 4, 0.25), (4, 1.0, 4, 1.0), (0, 1.0, 0, 1.0)],
)
def test_fadas_slows_down_with_the_largest_staleness(threshold, learning_rate, largest, rate) -> None:
    plan = AggregationPlan(
        buffer_size=2, strategy="fadas", delay_threshold=threshold, server_learning_rate=learning_rate
    )
    buffer = [update_of(1.0, samples=1), update_of(4.0, samples=2, staleness=largest)]
    step = step_of(initial_state(np.zeros(1, np.float32), plan), [buffer], plan)
    assert (step.direction.tolist(), step.rate) == ([3.0], rate)


@given(some_updates)
def test_base_mean_is_fedbuff_while_no_more_begin_with_one_version_than_a_buffer_takes(updates) -> None:
    state = state_after([], AggregationPlan(strategy="base_mean"))
    fedbuff = step_of(state, [updates], AggregationPlan(strategy="fedbuff"))
    base_mean = step_of(state, [updates], AggregationPlan(strategy="base_mean"))
    np.testing.assert_allclose(base_mean.direction, fedbuff.direction, rtol=0, atol=1e-5 * largest_value(updates))


@given(some_updates, st.integers(1, 3))
def test_base_mean_goes_as_far_as_the_mean_of_all_that_began_with_a_version(updates, size) -> None:
    """In whatever buffers they come."""
    plan = AggregationPlan(strategy="base_mean", staleness_weighting="constant")
    updates = [msgspec.structs.replace(update, base_version=20, staleness=0) for update in updates[:RECENT_VERSIONS]]
    state = state_after([], plan)
    start = state.weights
    for first in range(0, len(updates), size):
        state = next_state(state, updates[first : first + size], plan)
    everybody = next_state(state_after([], plan), updates, plan).weights
    np.testing.assert_allclose(
        state.weights - start, everybody - start, rtol=0, atol=1e-5 * (1 + largest_value(updates))
    )


def test_base_mean_keeps_apart_what_began_with_different_versions() -> None:
    plan = AggregationPlan(strategy="base_mean", staleness_weighting="constant")
    state = state_after([], plan)
    first = next_state(state, [update_of(4.0, base=19), update_of(2.0, base=20)], plan)
    second = next_state(first, [update_of(8.0, base=19, staleness=2), update_of(6.0, base=21)], plan)
    moved = [first.weights[0] - state.weights[0], second.weights[0] - first.weights[0]]
    np.testing.assert_allclose(moved, [3, 7], rtol=1e-6)
    third = next_state(second, [update_of(0.0, base=19, staleness=3), update_of(0.0, base=19, staleness=3)], plan)
    np.testing.assert_allclose(third.weights[0] - second.weights[0], (4 + 8) / 4 - (4 + 8) / 2, rtol=1e-6)


def test_base_mean_forgets_what_began_long_ago() -> None:
    plan = AggregationPlan(strategy="base_mean")
    state = state_after([], plan)
    for number in range(20, 40):
        state = next_state(state, [update_of(1.0, base=number)], plan)
    assert sorted(state.remembered) == list(range(40 - RECENT_VERSIONS, 40))


def test_fedasync_mixes_the_devices_model_in() -> None:
    """weights = (1 - a) weights + a (base + delta), a = 0.5 * (1 + staleness) ** -0.5, by hand."""
    plan = AggregationPlan(buffer_size=1, strategy="fedasync", server_learning_rate=0.5)
    state = initial_state(np.array([0.0, 8.0], np.float32), plan)
    for _ in range(3):
        state = next_state(state, [update_of(2.0, base=state.version)], plan)
    assert state.weights.tolist() == [3.0, 8.0]
    state = next_state(state, [update_of(4.0, -8.0, base=0, staleness=3)], plan)
    assert state.weights.tolist() == [3.0 * 0.75 + 0.25 * 4.0, 8.0 * 0.75 + 0.25 * 0.0]


def test_fedasync_remembers_what_updates_may_be_based_on_and_no_more() -> None:
    plan = AggregationPlan(buffer_size=1, strategy="fedasync", max_staleness=3)
    state = initial_state(np.zeros(2, np.float32), plan)
    for _ in range(9):
        state = next_state(state, [update_of(1.0, base=state.version)], plan)
    assert sorted(state.remembered) == [6, 7, 8]
    fresh_only = AggregationPlan(buffer_size=1, strategy="fedasync", max_staleness=0)
    assert next_state(initial_state(np.zeros(2, np.float32), fresh_only), [update_of(1.0)], fresh_only).remembered == {}


@pytest.mark.parametrize("name", MOST_OF_THEM)
@of_each_plan
@given(updates=some_updates, data=st.data())
def test_order_within_a_buffer_does_not_matter(name, updates, data) -> None:
    """Of different devices: a device's own updates are in the order in which it sent them."""
    plan = EVERY_PLAN[name]
    buffer = list({update.device: update for update in updates}.values())
    state = state_after(updates[:2], plan)
    one = next_state(state, buffer, plan)
    other = next_state(state, data.draw(st.permutations(buffer)), plan)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5, atol=1e-5)


@st.composite
def split_buffers(draw) -> tuple[list[BufferedUpdate], list[list[BufferedUpdate]]]:
    """What has been aggregated before, and a buffer in three consecutive parts, some of which may be empty."""
    updates = draw(st.lists(buffered_updates(), min_size=1, max_size=12))
    begin, first, second = sorted(draw(st.integers(0, len(updates) - 1)) for _ in range(3))
    return updates[:begin], [updates[begin:first], updates[first:second], updates[second:]]


@pytest.mark.parametrize("name", EVERY_PLAN)
@of_each_plan
@given(split_buffers())
def test_partials_of_any_split_of_a_buffer_add_up_to_the_same_step(name, split) -> None:
    """To the last bit update by update, or where updates are kept whole; else within the rounding of another order."""
    plan = EVERY_PLAN[name]
    earlier, parts = split if name != "fedasync" else (split[0], [[], [], split[1][2][:1]])
    buffer = [update for part in parts for update in part]
    state = state_after(earlier, plan)
    whole = next_state(state, buffer, plan)
    assert_same_bits(finish(state, merged(state, [[update] for update in buffer], plan), plan), whole)
    first, second, third = (partial_of(state, part, plan) for part in parts)
    for partial in (first + second + third, first + (second + third)):
        step, expected = strategy_of(plan).finish(state, partial, plan), step_of(state, [buffer], plan)
        assert step.rate == expected.rate
        assert_remembers_the_same(step.remembered, expected.remembered)
        if name in KEEPS_UPDATES_WHOLE:
            assert step.direction.tobytes() == expected.direction.tobytes()
        else:
            bound = len(buffer) * 2.0**-50 * largest_value([*earlier, *buffer])
            np.testing.assert_allclose(step.direction, expected.direction, rtol=0, atol=bound)


@pytest.mark.parametrize("name", EVERY_PLAN)
@of_each_plan
@given(split_buffers())
def test_partial_of_no_updates_adds_nothing(name, split) -> None:
    earlier, (*_, buffer) = split
    buffer = buffer[:1] if name == "fedasync" else buffer
    plan = EVERY_PLAN[name]
    state = state_after(earlier, plan)
    for parts in ([[], buffer], [buffer, []]):
        assert_same_bits(finish(state, merged(state, parts, plan), plan), next_state(state, buffer, plan))


@pytest.mark.parametrize("name", EVERY_PLAN)
@of_each_plan
@given(split_buffers())
def test_step_remembers_what_a_restart_recalls(name, split) -> None:
    earlier, (*_, buffer) = split
    buffer = buffer[:1] if name == "fedasync" else buffer
    plan = EVERY_PLAN[name]
    strategy = strategy_of(plan)
    remembered = next_state(state_after(earlier, plan), buffer, plan).remembered
    if strategy.recall is Recall.WEIGHTS:
        assert sorted(remembered) == [20]
    elif strategy.recall is Recall.RECENT_UPDATES:
        recalled = strategy.remember(state_after(earlier, plan), buffer, plan)
        assert_remembers_the_same(remembered, recalled)
    else:
        assert_remembers_the_same(remembered, state_after([*earlier, *buffer], plan).remembered)


KEEPS_UPDATES_WHOLE = {"aced", "base_mean", "ef21", "fedasync", "posterior", *WITH_A_RULE}


def largest_value(updates: list[BufferedUpdate]) -> float:
    return max(float(np.abs(update.delta.values).max()) for update in updates)


def assert_same_bits(one: ServerState, other: ServerState) -> None:
    assert one.version == other.version
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.moments.tobytes() == other.moments.tobytes()
    assert_remembers_the_same(one.remembered, other.remembered)


def assert_remembers_the_same(one: Remembered, other: Remembered) -> None:
    """To the last bit, and in the same order, in which sums over it run."""
    assert list(one) == list(other)
    for key, value in one.items():
        if isinstance(value, Estimate):
            assert_same_estimate(value, other[key])
        elif isinstance(value, Kept):
            assert value.moved == other[key].moved
            assert_same_estimate(value.factor, other[key].factor)
        elif isinstance(value, Began):
            assert (value.weight, value.divisor) == (other[key].weight, other[key].divisor)
            assert value.total.tobytes() == other[key].total.tobytes()
        else:
            assert value is other[key]


def assert_same_estimate(one: Estimate, other: Estimate) -> None:
    assert (one.samples, one.lives) == (other.samples, other.lives)
    assert one.delta.tobytes() == other.delta.tobytes()
