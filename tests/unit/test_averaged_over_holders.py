"""Each block of a version is the mean over those who held it, by numbers that were worked out by hand."""

from dataclasses import replace
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.block_weights import BlockLayout, BlockWeights
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import finish, initial_state, next_state, partial_of
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.consumers.update import UPDATE_CONSUMER
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.split_plan import NOT_DIVIDED
from tests.support.split_task import PARAMETERS, TASK

LAYOUT = BlockLayout.of(PARAMETERS)
BLOCKS = np.repeat([parameter.block for parameter in PARAMETERS], [parameter.size for parameter in PARAMETERS])
SIZE, TRAINED = 15, 12
DIVIDED = sorted(STRATEGIES.keys() - NOT_DIVIDED.keys())
DEVICE, HELPER = (1, 0, 0, 1), (0, 1, 1, 0)


def update_of(value: float, *, held=None, samples: int = 10, staleness: int = 0, device="attic", helper=False):
    """An update that changes every trained parameter by `value`, where it holds its block."""
    blocks = np.array(held if held is not None else [1, 1, 1, 1])
    indices = np.flatnonzero(blocks[BLOCKS[:TRAINED]] > 0)
    delta = SparseUpdate(indices, np.full(indices.size, value, np.float32))
    weights = None if held is None else BlockWeights(blocks * float(samples), LAYOUT)
    statistics = np.where(blocks[BLOCKS[TRAINED:]] > 0, value, 0).astype(np.float32)
    return BufferedUpdate(device, delta, samples, 20 - staleness, staleness, 0, statistics, weights, helper)


def state_after(updates: list[BufferedUpdate], plan: AggregationPlan, weights: float = 0.0) -> ServerState:
    state = replace(initial_state(np.full(SIZE, weights, np.float32), plan), version=20)
    return replace(state, remembered=STRATEGIES[plan.strategy].remember(state, updates, plan))


def of_blocks(vector: np.ndarray) -> list[float]:
    """The value of each block's trained parameters, which all have the same."""
    found = [vector[:TRAINED][BLOCKS[:TRAINED] == block] for block in range(4)]
    assert all((values == values[0]).all() for values in found)
    return [float(values[0]) for values in found]


def test_fedbuff_weighs_each_block_by_who_held_it_and_how_late():
    plan = AggregationPlan(buffer_size=3)
    buffer = [
        update_of(1.0, held=DEVICE, samples=10),
        update_of(4.0, samples=30, device="barn"),
        update_of(8.0, held=HELPER, samples=60, staleness=3, device="gateway", helper=True),
    ]
    made = next_state(state_after([], plan), buffer, plan)
    of_device = (10 * 1 + 30 * 4) / 40
    of_helper = (30 * 4 + 60 * 0.5 * 8) / (30 + 60 * 0.5)
    assert of_blocks(made.weights) == [of_device, of_helper, of_helper, of_device]


def test_fedavg_and_fadas_weigh_blocks_by_samples_whatever_the_staleness():
    buffer = [update_of(2.0, held=(1, 0, 0, 1), samples=10, staleness=1), update_of(5.0, samples=20, device="barn")]
    for plan in (
        AggregationPlan(buffer_size=2, strategy="fedavg", max_staleness=0),
        AggregationPlan(buffer_size=2, strategy="fadas"),
    ):
        assert of_blocks(next_state(state_after([], plan), buffer, plan).weights) == [4, 5, 5, 4]


def test_samples_may_differ_from_block_to_block():
    plan = AggregationPlan(buffer_size=2)
    held = BlockWeights(np.array([10.0, 0, 5, 10]), LAYOUT)
    one = msgspec.structs.replace(update_of(3.0, held=(1, 0, 1, 1)), held=held)
    made = next_state(state_after([], plan), [one, update_of(0.0, samples=5, device="barn")], plan)
    assert of_blocks(made.weights) == [2, 0, 1.5, 2]


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "grafted", "adam", "yogi", "amsgrad", "adagrad"])
def test_a_block_that_nobody_held_stays_and_so_do_the_moments_of_it(optimiser):
    plan = AggregationPlan(buffer_size=1, server_optimiser=optimiser, server_momentum=0.9)
    before = next_state(state_after([], plan, weights=7.0), [update_of(1.0)], plan)
    after = next_state(before, [update_of(1.0, held=DEVICE)], plan)
    stays = np.isin(BLOCKS, [1, 2])
    np.testing.assert_array_equal(after.weights[stays], before.weights[stays])
    np.testing.assert_array_equal(after.moments[:, stays], before.moments[:, stays])
    assert (after.weights[~stays][:TRAINED] != before.weights[~stays][:TRAINED])[:4].all()


def test_ca2fl_corrects_each_block_by_what_its_holders_sent_last():
    plan = AggregationPlan(buffer_size=1, strategy="ca2fl")
    earlier = [
        update_of(1.0, held=DEVICE, device="attic"),
        update_of(3.0, device="barn"),
        update_of(9.0, held=HELPER, samples=60, device="gateway", helper=True),
    ]
    made = next_state(state_after(earlier, plan), [update_of(5.0, held=DEVICE, device="attic")], plan)
    everyone_middle = (10 * 3 + 60 * 9) / 70
    everyone_ends = (10 * 1 + 10 * 3) / 20
    expected = [everyone_ends + 5 - 1, everyone_middle, everyone_middle, everyone_ends + 5 - 1]
    assert of_blocks(made.weights) == pytest.approx(expected, rel=1e-6)


def test_aced_averages_each_block_over_the_last_updates_that_hold_it():
    plan = AggregationPlan(buffer_size=1, strategy="aced")
    earlier = [update_of(1.0, device="barn"), update_of(9.0, held=HELPER, device="gateway", helper=True)]
    made = next_state(state_after(earlier, plan), [update_of(5.0, held=DEVICE)], plan)
    assert of_blocks(made.weights) == [3, 5, 5, 3]


def test_what_is_remembered_of_a_helper_is_not_cut_to_the_norm_or_samples_of_devices():
    plan = AggregationPlan(buffer_size=1, strategy="aced")
    devices = [update_of(0.01, held=DEVICE, samples=1, device=name) for name in ("attic", "barn", "cellar")]
    helper = update_of(50.0, held=HELPER, samples=1000, device="gateway", helper=True)
    whole = update_of(0.0, samples=1, device="den")
    made = next_state(state_after([*devices, whole], plan), [helper], plan)
    assert of_blocks(made.weights)[1] == pytest.approx(50 * 1000 / 1001)
    quiet = next_state(state_after(devices, plan), [whole], plan)
    assert of_blocks(made.weights)[0] == of_blocks(quiet.weights)[0], "nor do devices' bounds grow with it"


def test_running_statistics_of_each_block_are_averaged_over_its_holders():
    plan = AggregationPlan(buffer_size=2)
    state = replace(state_after([], plan), version=0)
    buffer = [update_of(1.0, held=DEVICE, samples=10), update_of(2.0, held=HELPER, samples=90, device="gateway")]
    step = UPDATE_CONSUMER.partial(state, buffer, TASK)
    assert UPDATE_CONSUMER.finish(state, step, TASK).weights[TRAINED:].tolist() == [1, 1, 2]


@st.composite
def held_updates(draw) -> BufferedUpdate:
    """Of a device with some cut, of the whole model, or of a helper."""
    held = draw(st.sampled_from([None, DEVICE, HELPER, (1, 0, 1, 1), (1, 1, 1, 1)]))
    device = draw(st.sampled_from(["attic", "barn", "cellar"]))
    value, samples = draw(st.floats(-10, 10, width=32)), draw(st.integers(1, 1000))
    return update_of(
        value, held=held, samples=samples, staleness=draw(st.integers(0, 20)), device=device, helper=held == HELPER
    )


@pytest.mark.parametrize("strategy", DIVIDED)
@given(st.lists(held_updates(), min_size=1, max_size=8), st.data())
def test_partials_of_any_split_of_a_buffer_add_up_and_those_of_single_updates_to_the_last_bit(strategy, updates, data):
    plan = AggregationPlan(buffer_size=len(updates), strategy=strategy)
    state = state_after([], plan, weights=1.0)
    whole = next_state(state, updates, plan)
    one_by_one = reduce(add, [partial_of(state, [update], plan) for update in updates])
    assert finish(state, one_by_one, plan).weights.tobytes() == whole.weights.tobytes()
    cut = data.draw(st.integers(0, len(updates)))
    parts = partial_of(state, updates[:cut], plan) + partial_of(state, updates[cut:], plan)
    np.testing.assert_allclose(finish(state, parts, plan).weights, whole.weights, rtol=1e-5, atol=1e-5)


@given(st.lists(held_updates(), min_size=1, max_size=8), st.data())
def test_order_within_a_buffer_does_not_matter(updates, data):
    plan = AggregationPlan(buffer_size=len(updates))
    state = state_after([], plan)
    one, other = (next_state(state, buffer, plan) for buffer in (updates, data.draw(st.permutations(updates))))
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5, atol=1e-5)


@given(st.lists(held_updates(), min_size=1, max_size=8))
def test_every_block_is_the_mean_over_its_holders(updates):
    plan = AggregationPlan(buffer_size=len(updates))
    made = next_state(state_after([], plan), updates, plan).weights
    for index in range(TRAINED):
        total = weight = 0.0
        for update in updates:
            held = update.samples if update.held is None else update.held.of_blocks[BLOCKS[index]]
            share = held * (1 + update.staleness) ** -0.5
            position = np.flatnonzero(update.delta.indices == index)
            total += share * (float(update.delta.values[position[0]]) if position.size else 0.0)
            weight += share
        assert made[index] == pytest.approx(total / weight if weight else 0.0, rel=1e-5, abs=1e-6)


@given(st.lists(held_updates().filter(lambda update: update.held is None), min_size=1, max_size=6))
def test_updates_of_the_whole_model_give_the_same_bits_in_a_task_with_a_split_as_without(updates):
    plan = AggregationPlan(buffer_size=len(updates))
    state = state_after([], plan)
    all_held = [
        msgspec.structs.replace(update, held=BlockWeights(np.full(4, float(update.samples)), LAYOUT))
        for update in updates
    ]
    plain, divided = next_state(state, updates, plan), next_state(state, all_held, plan)
    assert plain.weights.tobytes() == divided.weights.tobytes()
