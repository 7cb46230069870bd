"""Running statistics of batch normalisation travel whole beside a sparse update, and are averaged."""

from dataclasses import replace
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.running_statistics import LOWEST_RATE, MAX_GROWTH
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.consumers.update import UPDATE_CONSUMER, admit
from edge_agent.training.compression import pack, remember
from edge_agent.worker.contract import Returned
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import SparseUpdate, read_statistics, without_statistics, write_statistics
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.limits import MAX_STATISTIC_CHANGE
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from workbench.recipe_folder import find_recipe

DIGITS = parse_description((find_recipe("digits") / "bundle" / "task.json").read_bytes())
TRAINED, STATISTICS = 40, 6
TASK = msgspec.structs.replace(
    DIGITS,
    parameters=[Parameter("weight", [TRAINED]), Parameter("mean", [3], False), Parameter("variance", [3], False)],
    update=UpdatePlan(0.1),
)
DELTA = np.linspace(-1, 1, TRAINED + STATISTICS, dtype=np.float32)
UNLIKE = np.array([50.0, -3e4, 1e-4, 98_000.0, 0.015, 0.0], np.float32)
"""Changes of the statistics of decibels and of wine: float16 would end at 65,504."""

changes = st.floats(-MAX_STATISTIC_CHANGE, MAX_STATISTIC_CHANGE, width=32)


def round_with(statistics: np.ndarray, residual: bytes = b"", returned: tuple[Returned, ...] = ()):
    """What a round packs that changed the statistics so, and the memory that it leaves."""
    memory = remember(TASK, residual, returned, 1)
    return pack(np.concatenate([DELTA[:TRAINED], statistics]), memory, TASK, 0), memory.state()


def admitted(packed: bytes, decoded: SparseUpdate | None = None):
    update = Update(10, 60, 1.0, packed)
    return admit(Offered("pi", Header(UPDATE, 1, "digits", 3, bytes(16)), update, TASK, 0, decoded))


@given(st.lists(changes, max_size=8))
def test_every_change_arrives_within_one_part_in_256(values):
    sent = np.array(values, np.float32)
    packed = b"update" + write_statistics(sent)
    assert without_statistics(packed, sent.size) == b"update"
    # Numbers below the smallest normal one have fewer digits.
    np.testing.assert_allclose(read_statistics(packed, sent.size), sent, rtol=2**-8, atol=1e-38)


def test_bytes_are_those_of_the_specification():
    assert write_statistics(np.array([1.0, -2.5, 1.00390625], np.float32)).hex() == "803f20c0803f"


@pytest.mark.parametrize(
    ("packed", "count", "reason"),
    [
        (b"\x00", 1, Reason.MALFORMED),
        (bytes.fromhex("807f"), 1, Reason.NOT_FINITE),
        (bytes.fromhex("c0ff"), 1, Reason.NOT_FINITE),
        (bytes.fromhex("7f7f"), 1, Reason.OUT_OF_BOUNDS),
    ],
)
def test_statistics_that_nobody_sends_are_refused(packed, count, reason):
    with pytest.raises(ProtocolError) as refused:
        read_statistics(packed, count)
    assert refused.value.reason is reason


def test_statistics_of_unlike_scale_arrive_whole_and_count_in_no_norm():
    packed, state = round_with(UNLIKE)
    arrived = admitted(packed.data)
    np.testing.assert_allclose(arrived.item.statistics, UNLIKE, rtol=2**-8)
    assert arrived.facts.norm < TASK.largest_delta_norm
    assert arrived.item.delta.indices.max() < TRAINED
    assert len(state) == 4 * TRAINED, "statistics leave nothing for later rounds"


def test_weights_travel_as_they_would_without_statistics():
    plain = msgspec.structs.replace(TASK, parameters=TASK.parameters[:1])
    alone = pack(DELTA[:TRAINED], remember(plain, b"", (), 1), plain, 0)
    packed, _ = round_with(UNLIKE)
    assert packed.data == alone.data + write_statistics(UNLIKE)


def test_update_that_comes_back_returns_its_weights_to_the_residual_and_no_statistics():
    packed, state = round_with(UNLIKE)
    back = remember(TASK, state, [Returned(packed.data)], 0)
    np.testing.assert_allclose(back.offer(np.zeros(TRAINED, np.float32)), DELTA[:TRAINED], atol=1e-6)


def test_updates_decoded_together_are_as_decoded_alone():
    packed, _ = round_with(UNLIKE)
    update = Update(10, 60, 1.0, packed.data)
    (together,) = UPDATE_CONSUMER.decode_together([update], TASK)
    alone = admitted(packed.data).item
    assert together is not None
    both = admitted(packed.data, together).item
    assert both.delta.indices.tolist() == alone.delta.indices.tolist()
    assert both.delta.values.tobytes() == alone.delta.values.tobytes()
    assert both.statistics.tobytes() == alone.statistics.tobytes()


def test_update_cut_within_its_statistics_is_refused_and_decoded_with_no_others():
    packed, _ = round_with(UNLIKE)
    for size in range(2 * STATISTICS):
        cut = Update(10, 60, 1.0, packed.data[:size])
        assert UPDATE_CONSUMER.decode_together([cut], TASK) == [None]
        with pytest.raises(ProtocolError):
            admitted(cut.packed)


def state_of(plan: AggregationPlan, statistics: np.ndarray, version: int = 20) -> ServerState:
    weights = np.concatenate([np.zeros(TRAINED), statistics]).astype(np.float32)
    return replace(initial_state(weights, plan), version=version)


def sent(device: str, statistics: np.ndarray, samples: int = 10) -> BufferedUpdate:
    delta = SparseUpdate(np.arange(4), np.full(4, 0.1, np.float32))
    return BufferedUpdate(device, delta, samples, 20, 0, 0, statistics.astype(np.float32))


def next_of(state: ServerState, parts: list[list[BufferedUpdate]], plan: AggregationPlan) -> ServerState:
    task = msgspec.structs.replace(TASK, aggregation=plan)
    return UPDATE_CONSUMER.finish(
        state, reduce(add, [UPDATE_CONSUMER.partial(state, part, task) for part in parts]), task
    )


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "grafted", "adagrad", "adam"])
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"fedasync", "posterior"}))
def test_whatever_moves_the_weights_statistics_follow_the_weighted_mean(strategy, optimiser):
    plan = AggregationPlan(2, strategy, server_optimiser=optimiser, server_learning_rate=0.05)
    state = state_of(plan, np.full(STATISTICS, 100.0))
    made = next_of(state, [[sent("attic", np.full(6, 4.0), 30), sent("barn", np.full(6, -8.0), 10)]], plan)
    assert made.weights[TRAINED:] == pytest.approx(100 + LOWEST_RATE * (30 * 4 - 10 * 8) / 40)
    assert made.weights[:4].all()


def test_first_versions_count_alike():
    plan = AggregationPlan(1)
    state = state_of(plan, np.zeros(STATISTICS), version=0)
    for target in (1.0, 2.0, 3.0):
        state = next_of(state, [[sent("attic", target - state.weights[TRAINED:])]], plan)
    assert state.weights[TRAINED:] == pytest.approx(2.0)


def test_parts_of_a_buffer_give_the_bits_of_the_whole():
    plan = AggregationPlan(3)
    state = state_of(plan, UNLIKE)
    buffer = [sent(name, UNLIKE / number, number) for number, name in enumerate(("attic", "barn", "cellar"), 1)]
    whole, apart = next_of(state, [buffer], plan), next_of(state, [[update] for update in buffer], plan)
    assert whole.weights.tobytes() == apart.weights.tobytes()


def test_one_device_moves_a_statistic_by_its_share_of_a_bounded_change():
    plan = AggregationPlan(4)
    state = state_of(plan, np.full(STATISTICS, 9.0))
    honest = [sent(name, np.zeros(STATISTICS)) for name in ("attic", "barn", "cellar")]
    made = next_of(state, [[*honest, sent("evil", np.full(STATISTICS, 1e24))]], plan)
    assert made.weights[TRAINED:] == pytest.approx(9 + LOWEST_RATE * MAX_GROWTH * 10 / 4)


def test_what_is_tempered_moves_a_statistic_by_as_little_however_large_it_is():
    plan = AggregationPlan(4)
    state = state_of(plan, np.full(STATISTICS, 9.0))
    honest = [sent(name, np.zeros(STATISTICS)) for name in ("attic", "barn", "cellar")]
    evil = msgspec.structs.replace(sent("evil", np.full(STATISTICS, 1e24)), tempered=0.125)
    made = next_of(state, [[*honest, evil]], plan)
    assert made.weights[TRAINED:] == pytest.approx(9 + 0.125 * LOWEST_RATE * MAX_GROWTH * 10 / 4)


@pytest.mark.parametrize("order", [[0, 1], [0]])
def test_bundle_whose_statistics_do_not_stand_behind_all_weights_is_refused(order):
    entries = [Parameter("mean", [3], False), Parameter("weight", [TRAINED])]
    wrong = msgspec.structs.replace(DIGITS, parameters=[entries[place] for place in order])
    with pytest.raises(ConfigurationError, match="not trainable must stand behind all others"):
        parse_description(msgspec.json.encode(wrong))
