"""An update of some blocks: what travels of it, what is admitted, and what stays on the device."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Admitted, Offered
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView, TaskProgress
from broker_coordinator.admission.room import note_accepted, take_room
from broker_coordinator.admission.shares import RecentDevices
from broker_coordinator.consumers.peers import Declared, Peers
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts, admit, item
from edge_agent.training.compression import pack, remember
from edge_agent.worker.contract import Returned
from fleet_protocol.codec import HeldBlocks, SparseUpdate
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.split_plan import NOT_DIVIDED, check_averaged
from fleet_protocol.update_plan import UpdatePlan
from tests.support.split_task import DEEP, EARLY, TASK

DENSE = msgspec.structs.replace(TASK, update=UpdatePlan(1.0, "float32", "dense"))
DELTA = np.arange(1, 16, dtype=np.float32)
"""Of each parameter its place, counted from 1; the last three are statistics."""
HEADER = Header(UPDATE, 1, TASK.task, 3, bytes(16))
OF_DEVICE, OF_HELPER = (30, 0, 0, 30), (0, 90, 60, 0)
SOME_HELD = st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any).map(tuple)


def packed(held: tuple[int, ...], task=DENSE, residual: bytes = b"", returned: tuple[Returned, ...] = ()):
    memory = remember(task, residual, returned, life=1)
    return pack(DELTA, memory, task, seed=0, held=held).data, memory.state()


def admitted(held: tuple[int, ...], *, task=DENSE, samples: int = 90, memory: Peers | None = None, helper=False):
    honest = held if len(held) == 4 and any(held) else ()
    update = Update(samples, 60, 1.0, packed(honest, task)[0], held=held)
    offered = Offered("pi", HEADER, update, task, 0, None, memory, from_helper=helper)
    found: Admitted = admit(offered)
    assert_same_item(item(offered, found.facts), found.item)
    return found


def assert_same_item(one, other) -> None:
    """What a replay makes of the journal is what admission has made."""
    assert one.delta.values.tobytes() == other.delta.values.tobytes()
    assert one.statistics.tobytes() == other.statistics.tobytes()
    assert (one.held is None) == (other.held is None)
    assert one.held is None or one.held.of_blocks.tobytes() == other.held.of_blocks.tobytes()


@given(SOME_HELD)
def test_every_held_value_arrives_in_its_place_and_no_other(held):
    data, _ = packed(held)
    arrived = item(Offered("pi", HEADER, Update(9, 1, 1.0, data, held=held), DENSE, 0), UpdateFacts(9, 1.0, 1.0))
    blocks = np.repeat([parameter.block for parameter in TASK.parameters], [each.size for each in TASK.parameters])
    expected = np.where(np.array(held)[blocks] > 0, DELTA, 0)
    found = np.zeros(15, np.float32)
    found[arrived.delta.indices] = arrived.delta.values
    found[12:] = arrived.statistics
    np.testing.assert_array_equal(found, expected)


@given(SOME_HELD, st.data())
def test_places_of_a_part_and_of_the_whole_are_the_other_way_round_of_each_other(held, data):
    places = HeldBlocks.of(TASK, held).trained
    part = np.arange(places.size, dtype=np.float32)
    np.testing.assert_array_equal(places.part(places.spread(part)), part)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, places.size - 1))) if places.size else []), np.int64)
    spread = places.spread_sparse(SparseUpdate(chosen, part[chosen]))
    np.testing.assert_array_equal(places.spread(part)[spread.indices], spread.values)


def test_an_update_of_some_blocks_has_room_for_these_alone():
    held = HeldBlocks.of(TASK, OF_DEVICE)
    assert held.shapes == ((2, 2), (3,))
    assert (held.trained.size, held.statistics.size) == (7, 2)
    assert len(packed(OF_DEVICE)[0]) < len(packed(())[0])


@pytest.mark.parametrize("feedback", ["residual", "momentum"])
def test_what_others_trained_leaves_the_residual_and_never_enters_it(feedback):
    task = msgspec.structs.replace(TASK, update=UpdatePlan(0.1, feedback=feedback))
    _, residual = packed((), task)
    assert np.frombuffer(residual, np.float32)[4:9].any()
    _, residual = packed(OF_DEVICE, task, residual, (Returned(packed((), task)[0]),))
    memory = np.frombuffer(residual, np.float32).reshape(-1, 12)
    assert not memory[:, 4:9].any()
    assert memory[:, :4].any()


def test_a_refused_update_of_some_blocks_is_given_back_to_these():
    data, _ = packed(OF_DEVICE)
    memory = remember(DENSE, b"", [Returned(data, held=OF_DEVICE)], life=1)
    np.testing.assert_array_equal(np.frombuffer(memory.state(), np.float32), [1, 2, 3, 4, 0, 0, 0, 0, 0, 10, 11, 12])


@pytest.mark.parametrize("held", [(30,), (30, 0, 0, 0, 30)])
def test_a_refused_update_of_a_task_that_is_divided_otherwise_is_lost(held):
    memory = remember(DENSE, b"", [Returned(packed(())[0], held=held)], life=1)
    assert not np.frombuffer(memory.state(), np.float32).any()


@pytest.mark.parametrize(("held", "cut"), [((), ""), ((9, 9, 9, 9), ""), ((9, 0, 8, 9), "early"), (OF_DEVICE, "deep")])
def test_a_device_may_hold_what_a_cut_leaves_it(held, cut):
    assert admitted(held).facts.cut == cut


@pytest.mark.parametrize(
    ("held", "samples", "reason", "words"),
    [
        ((30, 30), 90, Reason.MALFORMED, "samples of 2 blocks; digits is divided into 4"),
        ((91, 0, 0, 30), 90, Reason.OUT_OF_BOUNDS, "91 samples of a block; the update says 90"),
        ((0, 0, 0, 0), 90, Reason.OUT_OF_BOUNDS, r"blocks \[\]; no cut"),
        (OF_HELPER, 90, Reason.OUT_OF_BOUNDS, r"blocks \[1, 2\]; no cut .* helpers allow pi"),
        ((30, 30, 0, 30), 90, Reason.OUT_OF_BOUNDS, r"blocks \[0, 1, 3\]; no cut"),
    ],
)
def test_a_device_that_lies_about_its_cut_is_refused(held, samples, reason, words):
    with pytest.raises(ProtocolError, match=words) as refused:
        admitted(held, samples=samples)
    assert refused.value.reason is reason


def test_blocks_without_weights_are_no_update():
    nothing = msgspec.structs.replace(DENSE, parameters=[each for each in TASK.parameters if each.block != 1])
    with pytest.raises(ProtocolError, match="no block that it holds has weights"):
        HeldBlocks.of(nothing, (0, 9, 0, 0))
    assert HeldBlocks.of(nothing, (0, 9, 9, 0)).shapes == ((2,),)


def test_a_task_without_a_split_takes_no_update_of_blocks():
    whole = msgspec.structs.replace(DENSE, split=None)
    offered = Offered("pi", HEADER, Update(9, 1, 1.0, packed(())[0], held=(9, 0, 0, 9)), whole, 0)
    with pytest.raises(ProtocolError, match="samples of 4 blocks; digits is divided into 0"):
        admit(offered)


def test_a_helper_holds_blocks_that_cuts_leave_to_helpers_and_no_others():
    assert admitted(OF_HELPER, helper=True).facts.helper
    with pytest.raises(ProtocolError, match=r"is a helper and says .* \[0, 1\]; cuts leave helpers \[1, 2\]"):
        admitted((9, 9, 0, 0), helper=True)


def test_samples_beyond_what_a_device_may_weigh_are_taken_from_each_block():
    memory = peers(("attic", 20), ("barn", 20), ("cellar", 20))
    found = admitted(OF_DEVICE, memory=memory)
    assert (found.facts.samples, found.facts.declared) == (30, 90)
    assert found.item.held.of_blocks.tolist() == [10, 0, 0, 10]


def test_a_helper_weighs_at_most_half_as_much_again_as_all_devices_and_none_of_them_by_it():
    memory = peers(("attic", 20), ("barn", 10))
    found = admitted(OF_HELPER, memory=memory, helper=True)
    assert (found.facts.samples, found.facts.declared) == (45, 90)
    assert found.facts.scale == pytest.approx(2 / found.facts.norm), "twice as long as others, as a device"
    assert found.item.held.of_blocks.tolist() == [0, 45, 30, 0]
    before = memory.copy()
    UPDATE_CONSUMER.remember(memory, "gateway", found.facts, TASK)
    assert memory == before


def test_what_a_helper_says_of_its_loss_tells_nothing():
    assert UPDATE_CONSUMER.loss(admitted(OF_HELPER, helper=True).facts) is None
    assert UPDATE_CONSUMER.loss(admitted(OF_DEVICE).facts) == 1.0


def test_a_helper_sends_more_than_the_share_of_one_device_and_takes_none_of_theirs():
    progress = TaskProgress.standing_at(TASK, newest=3, waiting=0, buffer_size=4)
    view = FleetView(lambda _device, _sequence: None, helpers={"gateway"}, recent={TASK.task: RecentDevices(8)})
    for device in ("attic", "barn"):
        view.set_device(Device(device, SigningKey.generate().verify_key, DeviceState.APPROVED))
    for _ in range(100):
        take_room(HEADER, "gateway", 100, progress, view)
        note_accepted(HEADER, "gateway", progress, view)
    assert view.recent[TASK.task] == RecentDevices(8)


def test_a_helper_takes_no_place_in_a_buffer():
    assert not UPDATE_CONSUMER.take_place(admitted(OF_HELPER, helper=True).facts)
    assert UPDATE_CONSUMER.take_place(admitted(OF_DEVICE).facts)
    progress = TaskProgress.standing_at(TASK, newest=3, waiting=5, buffer_size=4, along=2)
    for takes_place in (False, True, True):
        progress = progress.after_one(takes_place=takes_place)
    assert (progress.version, progress.buffered, progress.along) == (4, 3, 3)
    progress = progress.after_one()
    assert (progress.version, progress.buffered, progress.along) == (5, 0, 0)


def peers(*devices: tuple[str, int], norm: float = 1.0, cut: str = "") -> Peers:
    memory = Peers()
    for device, samples in devices:
        memory.note(device, Declared(samples, norm, cut))
    return memory


def test_norms_are_compared_with_those_of_the_same_cut_where_enough_have_it():
    memory = peers(("a", 1), ("b", 1), ("c", 1), norm=10.0)
    for device in ("d", "e"):
        memory.note(device, Declared(1, 1.0, DEEP.name))
    assert memory.usual("new", cut="") == (1, 10.0)
    assert memory.usual("new", cut=DEEP.name) == (1, 1.0)
    assert memory.usual("d", cut=DEEP.name)[1] == 10.0, "of one other nobody can say which one is unusual"
    assert memory.usual("new", cut=EARLY.name)[1] == 10.0


def test_a_device_that_takes_another_cut_is_measured_by_those_that_have_it():
    memory = peers(("a", 1), ("b", 1), ("c", 1), norm=10.0)
    memory.note("a", Declared(1, 2.0, DEEP.name))
    assert memory.norms_of_cuts == {"": [10.0, 10.0], DEEP.name: [2.0]}
    assert memory.norms == [2.0, 10.0, 10.0]


@pytest.mark.parametrize("strategy", sorted(NOT_DIVIDED))
def test_a_strategy_that_can_not_average_blocks_is_refused_with_words(strategy):
    plan = msgspec.structs.replace(TASK.aggregation, strategy=strategy)
    with pytest.raises(ConfigurationError, match=f"'{strategy}' does not go with a split: .*; take 'fedbuff'"):
        check_averaged(plan, "task.json")
