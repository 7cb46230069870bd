"""Aggregation: sums that add in any order, weights as in the paper, versions that replay bit for bit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation import (
    BufferedUpdate,
    Contribution,
    contribution_of,
    staleness_weight,
)
from broker_coordinator.server_state import ServerState, initial_state, next_state, replay
from broker_coordinator.strategies import remember
from fleet_protocol.bundle import AggregationPlan
from fleet_protocol.codec import SparseUpdate

SIZE = 12
EXPONENT = 0.5


@st.composite
def buffered_updates(draw) -> BufferedUpdate:
    indices = sorted(draw(st.sets(st.integers(0, SIZE - 1), min_size=1)))
    finite = st.floats(-10, 10, width=32)
    values = draw(st.lists(finite, min_size=len(indices), max_size=len(indices)))
    delta = SparseUpdate(np.array(indices, np.int64), np.array(values, np.float32))
    return BufferedUpdate(
        draw(st.sampled_from(["attic", "barn", "cellar"])), delta, draw(st.integers(1, 1000)), draw(st.integers(0, 20))
    )


def dense_mean(updates: list[BufferedUpdate]) -> np.ndarray:
    """FedBuff's equation, written out with dense vectors."""
    weights = [update.samples * (1 + update.staleness) ** -EXPONENT for update in updates]
    return sum(weight * dense(update) for weight, update in zip(weights, updates, strict=True)) / sum(weights)


def dense(update: BufferedUpdate) -> np.ndarray:
    vector = np.zeros(SIZE)
    vector[update.delta.indices] = update.delta.values
    return vector


def contribution(updates: list[BufferedUpdate]) -> Contribution:
    return contribution_of([(update.weight(EXPONENT), update.delta) for update in updates], SIZE)


def assert_close(one: Contribution, other: Contribution) -> None:
    assert one.weight == pytest.approx(other.weight, rel=1e-12)
    np.testing.assert_allclose(one.total_delta, other.total_delta, rtol=1e-9, atol=1e-9)


@given(st.lists(buffered_updates(), min_size=1, max_size=8))
def test_mean_is_the_equation(updates) -> None:
    np.testing.assert_allclose(contribution(updates).mean_delta(), dense_mean(updates), atol=1e-9)


@given(st.lists(buffered_updates(), max_size=9), st.data())
def test_order_and_grouping_do_not_matter(updates, data) -> None:
    whole = contribution(updates)
    shuffled = data.draw(st.permutations(updates))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(updates)), max_size=3)))
    shards = [contribution(shuffled[start:end]) for start, end in pairwise([0, *cuts, len(shuffled)])]
    from_left = contribution([])
    for shard in shards:
        from_left = from_left + shard
    from_right = contribution([])
    for shard in reversed(shards):
        from_right = shard + from_right
    assert_close(from_left, whole)
    assert_close(from_right, whole)


@given(st.integers(0, 1000), st.floats(0, 4))
def test_staleness_only_ever_takes_weight_away(staleness, exponent) -> None:
    assert staleness_weight(0, exponent) == 1
    assert 0 < staleness_weight(staleness + 1, exponent) <= staleness_weight(staleness, exponent) <= 1


def test_staleness_weight_of_the_paper() -> None:
    assert staleness_weight(3, 0.5) == 0.5
    assert staleness_weight(7, 0.0) == 1.0


@pytest.mark.parametrize("strategy", ["fedbuff", "ca2fl"])
@given(updates=st.lists(buffered_updates(), min_size=7, max_size=7))
def test_replay_gives_the_same_bits(strategy, updates) -> None:
    plan = AggregationPlan(buffer_size=3, strategy=strategy, server_momentum=0.6, server_learning_rate=0.7)
    start = initial_state(np.linspace(-1, 1, SIZE, dtype=np.float32))
    first, second = list(replay(start, updates, plan)), list(replay(start, list(updates), plan))
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert one.weights.tobytes() == other.weights.tobytes()
        assert one.velocity.tobytes() == other.velocity.tobytes()


def test_momentum_step_by_hand() -> None:
    plan = AggregationPlan(buffer_size=1, server_momentum=0.5, server_learning_rate=2.0)
    buffer = [BufferedUpdate("attic", SparseUpdate(np.array([0]), np.array([1.0], np.float32)), 3, 0)]
    state = next_state(initial_state(np.zeros(2, np.float32)), buffer, plan)
    assert (state.velocity.tolist(), state.weights.tolist()) == ([1.0, 0.0], [2.0, 0.0])
    state = next_state(state, buffer, plan)
    assert (state.velocity.tolist(), state.weights.tolist()) == ([1.5, 0.0], [5.0, 0.0])
    assert state.weights.dtype == state.velocity.dtype == np.float32


def test_buffer_that_weighs_nothing_changes_nothing() -> None:
    assert contribution_of([], 3).mean_delta().tolist() == [0, 0, 0]


@given(st.lists(buffered_updates(), min_size=4, max_size=12))
def test_ca2fl_is_the_equation(updates) -> None:
    """v = mean(h) + weighted mean of the buffer (delta - h), with h the last update of each device before it."""
    earlier, buffer = updates[:-3], updates[-3:]
    last = {update.device: update for update in earlier}
    plan = AggregationPlan(buffer_size=3, strategy="ca2fl", staleness_exponent=EXPONENT)
    start = ServerState(np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32), remember({}, earlier, SIZE, plan))
    everyone = sum(update.samples * dense(update) for update in last.values()) / sum(
        update.samples for update in last.values()
    )
    corrected = sum(
        update.weight(EXPONENT) * (dense(update) - (dense(last[update.device]) if update.device in last else 0))
        for update in buffer
    ) / sum(update.weight(EXPONENT) for update in buffer)
    after = next_state(start, buffer, plan)
    np.testing.assert_allclose(after.velocity, everyone + corrected, rtol=1e-5, atol=1e-5)
    newest = {device: memory.newest for device, memory in after.remembered.items()}
    assert newest == last | {update.device: update for update in buffer}


@given(st.lists(buffered_updates(), min_size=4, max_size=12))
def test_ef21_is_the_equation(updates) -> None:
    """The mean of every device's sum of updates, each device weighing as many samples as it last had."""
    plan = AggregationPlan(buffer_size=1, strategy="ef21")
    state = initial_state(np.zeros(SIZE, np.float32))
    for update in updates:
        state = next_state(state, [update], plan)
    last = {update.device: update for update in updates}
    sums = {device: sum(dense(update) for update in updates if update.device == device) for device in last}
    expected = sum(last[device].samples * sums[device] for device in last) / sum(u.samples for u in last.values())
    np.testing.assert_allclose(state.velocity, expected, rtol=1e-5, atol=1e-5)


def test_fedbuff_remembers_nothing() -> None:
    buffer = [BufferedUpdate("attic", SparseUpdate(np.array([0]), np.array([1.0], np.float32)), 3, 0)]
    assert not next_state(initial_state(np.zeros(2, np.float32)), buffer, AggregationPlan(buffer_size=1)).remembered
