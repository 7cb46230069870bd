"""Error feedback: what was learned is sent or remembered, whatever becomes of updates and processes."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from edge_agent.training.compression import remember
from edge_agent.training.feedback import FEEDBACKS, recall
from edge_agent.worker.contract import Returned
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import Quantisation, SparseUpdate, decode_update, encode_update
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
QUANTISATIONS = [quantisation.name.lower() for quantisation in Quantisation]
ROUNDS = 1000
REJECTED, DIED = 0.3, 0.1
MOMENTUM = 0.5


def task(**plan) -> TaskDescription:
    plan = UpdatePlan(**({"keep_fraction": 0.02, "feedback_momentum": MOMENTUM} | plan))
    return msgspec.structs.replace(DIGITS, update=plan)


def what_is_left(description: TaskDescription, state: bytes, returned: list[Returned]) -> np.ndarray:
    memory = remember(description, state, returned, life=1)
    memory.offer(np.zeros(DIGITS.parameter_count, np.float32))
    return np.frombuffer(memory.state(), np.float32)[: DIGITS.parameter_count].astype(np.float64)


@pytest.mark.parametrize("selection", ["top_k", "random_k"])
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_applied_updates_and_residual_add_up_to_what_was_learned(quantisation, selection):
    description = task(quantisation=quantisation, selection=selection, stochastic_rounding=True)
    generator, count = np.random.default_rng(7), DIGITS.parameter_count
    learned, applied = np.zeros(count), np.zeros(count)
    state, returned = b"", []
    for _ in range(ROUNDS):
        delta = (generator.standard_normal(count) * generator.lognormal(-4.0, 2.0)).astype(np.float32)
        memory = remember(description, state, returned, life=1)
        encoded = encode_update(memory.offer(delta), description.shapes, description.update, generator)
        memory.take(encoded.sent)
        if generator.random() < DIED:
            continue  # nothing of the round was committed: it starts again from the old state
        learned += delta
        state, returned = memory.state(), []
        if generator.random() < REJECTED:
            returned = [Returned(encoded.packed)]
        else:
            update = decode_update(encoded.packed, description.shapes)
            applied[update.indices] += update.values
    difference = applied + what_is_left(description, state, returned) - learned
    assert np.linalg.norm(difference) <= 1e-6 * np.linalg.norm(learned)


def test_with_momentum_they_add_up_to_the_velocities():
    description = task(feedback="momentum")
    generator, count = np.random.default_rng(7), DIGITS.parameter_count
    velocity, velocities, applied = np.zeros(count), np.zeros(count), np.zeros(count)
    state, returned = b"", []
    for _ in range(ROUNDS):
        delta = generator.standard_normal(count).astype(np.float32)
        memory = remember(description, state, returned, life=1)
        encoded = encode_update(memory.offer(delta), description.shapes, description.update, generator)
        memory.take(encoded.sent)
        if generator.random() < DIED:
            continue
        velocity = MOMENTUM * velocity + delta
        velocities += velocity
        velocity[encoded.sent.indices] = 0
        state, returned = memory.state(), []
        if generator.random() < REJECTED:
            returned = [Returned(encoded.packed)]
        else:
            applied[encoded.sent.indices] += encoded.sent.values
    rejected = np.zeros(count)
    for each in returned:
        decode_update(each.packed, description.shapes).add_to(rejected)
    residual = np.frombuffer(state, np.float32)[:count]
    assert np.linalg.norm(applied + residual + rejected - velocities) <= 1e-6 * np.linalg.norm(velocities)


@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_with_ef21_both_sides_hold_the_same_estimate_bit_for_bit(quantisation):
    description = task(feedback="ef21", quantisation=quantisation)
    plan = AggregationPlan(buffer_size=1, strategy="ef21")
    generator, count = np.random.default_rng(7), DIGITS.parameter_count
    state, returned, in_flight = b"", [], []
    server = initial_state(np.zeros(count, np.float32), plan)
    for _ in range(300):
        delta = (generator.standard_normal(count) * generator.lognormal(-4.0, 2.0)).astype(np.float32)
        memory = remember(description, state, returned, life=1)
        encoded = encode_update(memory.offer(delta), description.shapes, description.update, generator)
        memory.take(encoded.sent)
        if generator.random() < DIED:
            continue
        state, returned, life = memory.state(), [], memory.life
        in_flight.append(Returned(encoded.packed, life))
        while in_flight and generator.random() < 0.6:  # some receipts come rounds later
            sent = in_flight.pop(0)
            if generator.random() < REJECTED:  # whatever the reason: the coordinator has not applied it
                returned.append(msgspec.structs.replace(sent, too_large=generator.random() < 0.5))
            else:
                update = BufferedUpdate("pi", decode_update(sent.packed, description.shapes), 8, 0, 0, life)
                server = next_state(server, [update], plan)
    settled = remember(description, state, returned + in_flight, life=1).state()
    assert server.remembered["pi"].delta.tobytes() == settled[8:]


def test_ef21_estimate_approaches_a_delta_that_stays_the_same():
    description = task(feedback="ef21", keep_fraction=0.1)
    delta = np.random.default_rng(7).standard_normal(DIGITS.parameter_count).astype(np.float32)
    memory, misses = recall(description.update, b"", delta.size, life=1), []
    for _ in range(100):
        offered = memory.offer(delta)
        misses.append(float(np.linalg.norm(offered)))
        memory.take(encode_update(offered, description.shapes, description.update, np.random.default_rng(1)).sent)
    assert misses[-1] < 0.1 * misses[0]


def test_wiped_device_begins_another_life_and_late_updates_of_the_old_one_do_not_count():
    plan = AggregationPlan(buffer_size=1, strategy="ef21")
    first, second = (recall(UpdatePlan(0.5, feedback="ef21"), b"", 2, life).life for life in (7, 8))
    assert (first, second) == (7, 8)
    sent = SparseUpdate(np.array([1]), np.array([2.0], np.float32))
    updates = [BufferedUpdate("pi", sent, 8, 0, 0, life) for life in (first, first, second, first, second)]
    server = next_state(initial_state(np.zeros(2, np.float32), plan), updates, plan)
    assert server.remembered["pi"].delta.tolist() == [0, 4]


def test_momentum_without_memory_is_plain_feedback():
    delta = np.arange(6, dtype=np.float32)
    plain = recall(UpdatePlan(0.5), b"", 6, life=1)
    forgetful = recall(UpdatePlan(0.5, feedback="momentum", feedback_momentum=0.0), b"", 6, life=1)
    for memory in (plain, forgetful):
        memory.offer(delta)
        memory.take(SparseUpdate(np.array([5]), np.array([4.0], np.float32)))
    assert forgetful.offer(delta).tolist() == plain.offer(delta).tolist() == [0, 2, 4, 6, 8, 6]


def test_a_sent_entry_loses_its_velocity_and_the_others_keep_theirs():
    memory = recall(UpdatePlan(0.5, feedback="momentum", feedback_momentum=0.5), b"", 2, life=1)
    memory.offer(np.array([8, 8], np.float32))
    memory.take(SparseUpdate(np.array([1]), np.array([8.0], np.float32)))
    memory = recall(UpdatePlan(0.5, feedback="momentum", feedback_momentum=0.5), memory.state(), 2, life=1)
    assert memory.offer(np.zeros(2, np.float32)).tolist() == [12, 0]


def test_every_feedback_of_the_task_file_exists():
    choices = {field.name: field.type for field in msgspec.inspect.type_info(UpdatePlan).fields}
    assert set(FEEDBACKS) == set(choices["feedback"].values)


def test_rejected_update_of_an_earlier_life_is_not_taken_out_of_this_ones_estimate():
    description = task(feedback="ef21")
    delta = np.random.default_rng(7).standard_normal(DIGITS.parameter_count).astype(np.float32)
    packed = encode_update(delta, description.shapes, description.update, np.random.default_rng(1)).packed
    fresh = remember(description, b"", [], life=2).state()
    assert remember(description, b"", [Returned(packed, life=1)], life=2).state() == fresh
    assert remember(description, b"", [Returned(packed, life=2)], life=2).state() != fresh


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("damage", ["nan", "infinity", "cut", "longer"])
def test_damaged_state_is_as_none_and_begins_a_new_life(feedback, damage):
    description = task(feedback=feedback)
    whole = remember(description, b"", [], life=1)
    whole.offer(np.ones(DIGITS.parameter_count, np.float32))
    state = whole.state()
    kind = whole.layout.dtype.type
    broken = {
        "nan": state[: -kind(0).nbytes] + kind(np.nan).tobytes(),
        "infinity": state[: -kind(0).nbytes] + kind(np.inf).tobytes(),
        "cut": state[:-1],
        "longer": state + bytes(1),
    }[damage]
    assert remember(description, broken, [], life=9).state() == remember(description, b"", [], life=9).state()


@pytest.mark.parametrize("feedback", ["residual", "momentum"])
def test_what_was_too_large_is_not_learned_again_and_a_damaged_update_holds_nothing_up(feedback):
    description = task(feedback=feedback)
    delta = np.random.default_rng(7).standard_normal(DIGITS.parameter_count).astype(np.float32)
    packed = encode_update(delta, description.shapes, description.update, np.random.default_rng(1)).packed
    for lost in (Returned(packed, too_large=True), Returned(packed[:-1])):
        left = what_is_left(description, b"", [lost])
        assert not left.any()
