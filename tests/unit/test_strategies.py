"""Every strategy is its paper's equation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state, next_state
from broker_coordinator.aggregation.strategies import STRATEGIES
from fleet_protocol.aggregation_plan import AggregationPlan
from tests.support.updates import SIZE, buffered_updates, dense, update_of

some_updates = st.lists(buffered_updates(), min_size=4, max_size=12)
MOST_OF_THEM = sorted(STRATEGIES.keys() - {"fedasync"})


def state_after(updates: list[BufferedUpdate], plan: AggregationPlan) -> ServerState:
    """Version 20, of which `updates` have already been aggregated."""
    state = replace(initial_state(np.linspace(-1, 1, SIZE, dtype=np.float32), plan), version=20)
    return replace(state, remembered=STRATEGIES[plan.strategy].remember(state, updates, plan))


def direction(state: ServerState, buffer: list[BufferedUpdate], plan: AggregationPlan) -> np.ndarray:
    return STRATEGIES[plan.strategy].step(state, buffer, plan).direction


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
    everyone = weighted_mean([(update.samples, dense(update)) for update in last.values()])
    corrected = weighted_mean(
        [
            (update.weight(plan), dense(update) - (dense(last[update.device]) if update.device in last else 0))
            for update in buffer
        ]
    )
    state = state_after(earlier, plan)
    np.testing.assert_allclose(direction(state, buffer, plan), everyone + corrected, rtol=1e-5, atol=1e-5)
    assert next_state(state, buffer, plan).remembered == last | {update.device: update for update in buffer}


@given(some_updates, st.integers(0, 25))
def test_aced_is_the_mean_of_the_last_updates_that_are_not_too_old(updates, oldest) -> None:
    earlier, buffer = updates[:-1], updates[-1:]
    plan = AggregationPlan(buffer_size=1, strategy="aced", cached_staleness=oldest)
    last = {update.device: update for update in updates}.values()
    engaged = [(update.samples, dense(update)) for update in last if 20 - update.base_version <= oldest]
    np.testing.assert_allclose(direction(state_after(earlier, plan), buffer, plan), weighted_mean(engaged), atol=1e-9)


@given(some_updates)
def test_ef21_is_the_mean_of_every_devices_sum(updates) -> None:
    plan = AggregationPlan(buffer_size=1, strategy="ef21")
    last = {update.device: update for update in updates}
    sums = {device: sum(dense(update) for update in updates if update.device == device) for device in last}
    expected = weighted_mean([(last[device].samples, sums[device]) for device in last])
    found = direction(state_after(updates[:-1], plan), updates[-1:], plan)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "learning_rate", "largest", "rate"),
    [(1, 0.1, 1, 1.0), (1, 0.1, 5, 1.0), (1, 0.1, 20, 0.5), (1, 1.0, 4, 0.25), (4, 1.0, 4, 1.0), (0, 1.0, 0, 1.0)],
)
def test_fadas_slows_down_with_the_largest_staleness(threshold, learning_rate, largest, rate) -> None:
    plan = AggregationPlan(
        buffer_size=2, strategy="fadas", delay_threshold=threshold, server_learning_rate=learning_rate
    )
    buffer = [update_of(1.0, samples=1), update_of(4.0, samples=2, staleness=largest)]
    step = STRATEGIES["fadas"].step(initial_state(np.zeros(1, np.float32), plan), buffer, plan)
    assert (step.direction.tolist(), step.rate) == ([3.0], rate)


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


@pytest.mark.parametrize("strategy", MOST_OF_THEM)
@given(updates=some_updates, data=st.data())
def test_order_within_a_buffer_does_not_matter(strategy, updates, data) -> None:
    """Of different devices: a device's own updates are in the order in which it sent them."""
    plan = AggregationPlan(buffer_size=3, strategy=strategy)
    buffer = list({update.device: update for update in updates}.values())
    state = state_after(updates[:2], plan)
    one = next_state(state, buffer, plan)
    other = next_state(state, data.draw(st.permutations(buffer)), plan)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5, atol=1e-5)
