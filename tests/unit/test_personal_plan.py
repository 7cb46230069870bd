"""The table `[personal]`: what of a model is a device's own, what travels, and which tasks can't have it."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy.version_noise import NoiseSeries
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts, item
from edge_agent.training.compression import pack, remember
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import SparseUpdate, device_model, own_of, own_places, with_own, with_shared_only
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.clustered_task import DENSE, WHOLE
from tests.support.digits_rounds import TASK as DIGITS
from tests.support.hidden_devices import hiding_plan
from tests.support.personal_task import HEAD, personal
from tests.support.split_task import TASK as SPLIT

MODEL = np.arange(1, 16, dtype=np.float32)
"""Of each parameter its place, counted from 1; the last three are statistics."""
PATTERNS = st.sampled_from(
    [("first.*",), ("*.mean",), ("last.*", "second.*"), ("*.weight", "first.mean"), ("last.weight",)]
)
HEADER = Header(UPDATE, 1, WHOLE.task, 3, bytes(16))


def task_of(*patterns: str):
    return msgspec.structs.replace(WHOLE, personal=PersonalPlan(parameters=patterns), update=DENSE)


def refusal(task) -> str:
    with pytest.raises(ConfigurationError, match=r"^task\.json: ") as caught:
        parse_description(msgspec.json.encode(task))
    return str(caught.value)


@given(PATTERNS)
def test_own_values_are_laid_into_a_version_and_read_out_again(patterns):
    task = task_of(*patterns)
    other = -MODEL
    kept = own_of(other, task)
    model = with_own(MODEL, kept, task)
    places = own_places(task)
    np.testing.assert_array_equal(model, np.where(places, other, MODEL))
    assert own_of(model, task) == kept
    np.testing.assert_array_equal(with_shared_only(other, MODEL, task), np.where(places, MODEL, other))
    np.testing.assert_array_equal(device_model(MODEL, kept, task), model)


@pytest.mark.parametrize(
    "kept",
    [b"", b"\x00" * 5, np.ones(3, np.float32).tobytes(), np.array([1, np.nan, 1, 1], np.float32).tobytes()],
    ids=["none", "odd bytes", "of another model", "not finite"],
)
def test_a_device_without_usable_values_begins_with_those_of_the_version(kept):
    np.testing.assert_array_equal(with_own(MODEL, kept, task_of("first.weight")), MODEL)
    ditto = msgspec.structs.replace(WHOLE, personal=PersonalPlan("ditto"))
    np.testing.assert_array_equal(device_model(MODEL, kept, ditto), MODEL)


def test_without_the_table_nothing_is_copied():
    assert (
        with_own(MODEL, b"", WHOLE)
        is device_model(MODEL, b"", WHOLE)
        is with_shared_only(MODEL, -MODEL, WHOLE)
        is MODEL
    )


@given(PATTERNS.filter(lambda patterns: patterns != ("*.weight", "first.mean")))
def test_an_update_has_what_is_shared_in_its_place_and_nothing_else(patterns):
    task = task_of(*patterns)
    memory = remember(task, b"", (), life=1)
    data = pack(MODEL, memory, task, seed=0).data
    arrived = item(Offered("pi", HEADER, Update(9, 1, 1.0, data), task, 0), UpdateFacts(9, 1.0, 1.0))
    found = np.zeros(15, np.float32)
    found[arrived.delta.indices] = arrived.delta.values
    found[12:] = arrived.statistics
    np.testing.assert_array_equal(found, np.where(own_places(task), 0, MODEL))
    assert not np.frombuffer(memory.state(), np.float32).any()
    assert len(data) < len(pack(MODEL, remember(WHOLE, b"", (), life=1), task_of(), seed=0).data)


def test_updates_are_decoded_together_as_one_by_one():
    """In the form of small updates, which is decoded in rows: signs of an eighth."""
    task = msgspec.structs.replace(personal(parameters=HEAD), update=UpdatePlan(0.125))
    generator = np.random.default_rng(1)
    updates = []
    for number in range(5):
        delta = generator.normal(size=task.parameter_count).astype(np.float32)
        updates.append(Update(9, 1, 1.0, pack(delta, remember(task, b"", (), life=1), task, seed=number).data))
    together = UPDATE_CONSUMER.decode_together(updates, task)
    assert any(each is not None for each in together)
    for update, found in zip(updates, together, strict=True):
        alone = item(Offered("pi", HEADER, update, task, 0), UpdateFacts(9, 1.0, 1.0)).delta
        if found is not None:
            np.testing.assert_array_equal(found.indices, alone.indices)
            np.testing.assert_array_equal(found.values, alone.values)
        assert not own_places(task)[alone.indices].any()


def test_an_update_of_the_whole_model_is_refused():
    """By a device that does not know the table, or a hostile one: its own parameters have no place in an update."""
    whole = msgspec.structs.replace(DIGITS, update=DENSE)
    task = msgspec.structs.replace(personal(parameters=HEAD), update=DENSE)
    delta = np.ones(task.parameter_count, np.float32)
    data = pack(delta, remember(whole, b"", (), life=1), whole, seed=0).data
    with pytest.raises(ProtocolError):
        item(Offered("pi", HEADER, Update(9, 1, 1.0, data), task, 0), UpdateFacts(9, 1.0, 1.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"parameters": HEAD},
        {"parameters": ("3.*",), "first_steps": 30},
        {"method": "ditto"},
        {"method": "ditto", "pull": 0.0},
        {"method": "reptile", "adaptation_steps": 3},
        {"method": "maml", "adaptation_rate": 0.1},
    ],
    ids=str,
)
def test_tables_that_agree_with_themselves_are_read_and_written(settings):
    task = personal(**settings)
    assert parse_description(msgspec.json.encode(task)).personal == task.personal
    assert b"personal" not in msgspec.json.encode(DIGITS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "names no parameters"),
        ({"parameters": ("body.*",)}, "no parameter is called like 'body.*'; there are 1.weight, 1.bias"),
        ({"parameters": ("*",)}, "are all that train: nothing would be shared"),
        ({"parameters": ("3.*", "3.*")}, "a pattern stands there twice"),
        ({"parameters": ("3.*",), "first_steps": 60}, "60 of 60 training.steps: the shared parameters would never"),
        ({"parameters": ("3.*",), "pull": 0.5}, "personal.pull has no effect with personal.method = 'parts'"),
        (
            {"method": "ditto", "parameters": ("3.*",)},
            "personal.parameters has no effect with personal.method = 'ditto'",
        ),
        ({"method": "ditto", "adaptation_steps": 3}, "personal.adaptation_steps has no effect"),
        ({"method": "maml", "first_steps": 3}, "personal.first_steps has no effect"),
        ({"method": "ditto", "pull": 1e3}, "training.learning_rate times personal.pull is 300; at most 1"),
    ],
)
def test_a_table_that_can_not_be_is_refused_with_a_way_out(settings, words):
    assert words in refusal(personal(**settings))


def test_running_statistics_may_be_personal_but_not_trained_first():
    task = task_of("*.mean")
    assert own_places(task).tolist() == [False] * 12 + [True] * 3
    alone = msgspec.structs.replace(task, split=None, personal=PersonalPlan(parameters=("*.mean",), first_steps=2))
    assert "those that are named are running statistics" in refusal(alone)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clusters": ClusterPlan(2)}, "[clusters] does not go with [personal]: a device's cluster has a copy"),
        ({"versions_from": "something else"}, "versions that are made from updates"),
    ],
)
def test_what_is_one_model_for_everybody_does_not_go_with_it(changes, words):
    assert words in refusal(msgspec.structs.replace(personal(parameters=HEAD), **changes))


def test_neither_do_helpers_that_train_for_many():
    task = msgspec.structs.replace(SPLIT, personal=PersonalPlan(parameters=("last.*",)))
    from fleet_protocol.personal_plan import check_personal  # noqa: PLC0415

    with pytest.raises(ConfigurationError, match=r"\[split\] does not go with \[personal\]: a helper trains"):
        check_personal(task, task.personal, "task.json")


@pytest.mark.parametrize(
    "settings", [{"method": "ditto"}, {"method": "maml"}, {"parameters": HEAD, "first_steps": 3}], ids=str
)
def test_an_optimiser_with_a_memory_is_refused_where_steps_are_taken_one_by_one(settings):
    task = personal(**settings)
    training = msgspec.structs.replace(task.training, optimiser="adam")
    assert 'write training.optimiser = "sgd"' in refusal(msgspec.structs.replace(task, training=training))


def test_noise_that_hides_devices_does_not_move_what_is_theirs():
    """It is added to all of a version."""
    task = task_of("last.*", "*.mean")
    plan = PrivacyPlan(devices=hiding_plan())
    hidden = msgspec.structs.replace(task, privacy=plan)
    series = NoiseSeries().after(bytes(32), plan.devices)
    state = ServerState(0, MODEL, np.zeros((1, 15), np.float32))
    buffer = [BufferedUpdate("pi", SparseUpdate(np.arange(3), np.ones(3, np.float32)), 1, 0, 0), series.noise]
    moved = UPDATE_CONSUMER.next_state(state, buffer, hidden).weights != MODEL
    np.testing.assert_array_equal(moved, ~own_places(task))
    everything = msgspec.structs.replace(hidden, personal=None)
    assert (UPDATE_CONSUMER.next_state(state, buffer, everything).weights != MODEL).all()
