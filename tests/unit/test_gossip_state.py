"""What a device keeps of its gossip between rounds: it goes on from it bit for bit, or begins another life."""

import msgspec
import numpy as np
import pytest

from edge_agent.core.gossip.neighbours import Neighbours
from edge_agent.core.gossip.numbering import Heard
from edge_agent.core.gossip.state import (
    HEAD,
    LAYOUT,
    MODEL,
    WHOLE,
    PeerState,
    change_part,
    most_state_bytes,
    read_state,
    values_part,
)
from edge_agent.training.gossip import Peer, gossip_round
from edge_agent.training.gossip.public_copy import MOST_CHANGES, NeighbourCopy
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import (
    GossipJob,
    GossipRound,
    TrainingJob,
    TrainingResult,
    Withheld,
    longest_message,
    write_frame,
)
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Told
from fleet_protocol.parameter import Parameter
from fleet_protocol.sending_plan import SendingPlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import WHOLE_UPDATES, UpdatePlan
from tests.support.simulated_fleet import BUNDLE

TASK = msgspec.structs.replace(
    BUNDLE.description,
    parameters=[Parameter("weight", [20, 6]), Parameter("bias", [20])],
    update=UpdatePlan(0.2),
)
SIZE = TASK.parameter_count
BEGUN = np.linspace(-1, 1, SIZE, dtype=np.float32)
NAMES = ["attic", "barn", "cellar", "den", "hall"]
NOTHING_LEARNED = Withheld("worse", "it was worse", trained_through=8, epochs=2.5)


def packed(values: FloatVector) -> bytes:
    return encode_update(values, TASK.shapes, WHOLE_UPDATES, np.random.default_rng(0)).packed


def learned(step: FloatVector) -> TrainingResult:
    return TrainingResult(packed(step), b"", samples=8, steps=1, trained_through=8, loss=0.5, epochs=2.5)


def steps(count: int) -> list[FloatVector]:
    return list(0.1 * np.random.default_rng(1).standard_normal((count, SIZE)).astype(np.float32))


class Device:
    """One of a ring, whose worker ends after each round; a round is killed where nobody keeps what it gave."""

    def __init__(self, name: str, names: list[str] = NAMES, task: TaskDescription = TASK) -> None:
        self.name, self.names, self.task = name, names, task
        self.kept: dict[str, bytes] = {}
        self.lives = 10 * NAMES.index(name)

    def round(
        self, made: TrainingResult | Withheld | DivergedError, *heard: tuple[str, Told], anew: bool = False
    ) -> GossipRound:
        def train(_task: TaskDescription, model: FloatVector) -> TrainingResult | Withheld:
            self.trained_from = model
            if isinstance(made, DivergedError):
                raise made
            return made

        self.lives += 1
        gossip = GossipJob(self.name, self.names, "ring", 0, "mean", list(heard), anew=anew, kept=self.kept)
        job = TrainingJob(self.task, "onnx-step", {}, "", "", b"", [], 0, self.lives, 1, 0, 0, 0, 5, 1.5, gossip=gossip)
        ended = gossip_round(job, gossip, BEGUN, train)
        assert len(write_frame(ended)) <= longest_message(self.task, gossip)
        return ended

    def keep(self, ended: GossipRound) -> Told:
        self.kept = {name: part for name, part in (self.kept | ended.changed).items() if part}
        assert self.state.last_told is not None
        return self.state.last_told

    @property
    def state(self) -> PeerState:
        state = read_state(self.kept, SIZE)
        assert state is not None
        return state


def test_a_device_that_goes_on_in_another_process_is_the_one_that_never_ended():
    neighbours = Neighbours.of("barn", "ring", NAMES, 0)
    always, device, other = Peer(TASK, neighbours, BEGUN, rule="mean", life=11), Device("barn"), Device("attic")
    for step in steps(5):
        told = other.keep(other.round(learned(-step)))
        assert always.hear("attic", told) is Heard.TAKEN
        always.learn(step)
        mine = always.tell()
        always.mix()
        assert device.keep(device.round(learned(step), ("attic", told))) == mine
        assert device.state == always.state


def test_a_round_whose_result_nobody_kept_is_done_again_alike():
    device, other, (first, second) = Device("barn"), Device("attic"), steps(2)
    told = other.keep(other.round(learned(second)))
    device.keep(device.round(learned(first)))
    lost = device.round(learned(second), ("attic", told))
    assert device.round(learned(second), ("attic", told)) == lost


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        (HEAD, lambda kept: kept[:-1]),
        (HEAD, lambda kept: b"\xc1" + kept[1:]),
        (MODEL, lambda kept: kept[:-1]),
        (WHOLE, lambda kept: kept[:-1]),
        *((part, lambda _kept: b"") for part in (HEAD, MODEL, WHOLE)),
    ],
)
def test_a_state_that_can_not_be_read_begins_another_life_from_the_first_weights(part, damage):
    device = Device("barn")
    device.keep(device.round(learned(steps(1)[0])))
    before = device.state
    device.kept = {name: data for name, data in (device.kept | {part: damage(device.kept[part])}).items() if data}
    told = device.keep(device.round(NOTHING_LEARNED))
    assert told.life != before.head.life
    assert told.number == 1
    assert np.array_equal(device.trained_from, BEGUN)


@pytest.mark.parametrize(
    "changed",
    [
        {"layout": LAYOUT + 1},
        {"life": 0},
        {"model": bytes(4)},
        {"model": np.full(SIZE, np.nan, np.float32).tobytes()},
        {"whole": b"\xff"},
    ],
)
def test_a_state_that_makes_no_sense_begins_another_life(changed):
    device = Device("barn")
    device.keep(device.round(learned(steps(1)[0])))
    before = device.state
    of_head = {"layout", "life"}
    head = msgspec.structs.replace(before.head, **{name: changed[name] for name in changed.keys() & of_head})
    others = {name: changed[name] for name in changed.keys() - of_head}
    device.kept = msgspec.structs.replace(before, head=head, **others).parts
    assert device.keep(device.round(NOTHING_LEARNED)).life != before.head.life


def test_another_roster_keeps_the_copies_of_those_who_stay_neighbours():
    device, attic, cellar = Device("barn"), Device("attic"), Device("cellar")
    step, more = steps(2)
    heard = ("attic", attic.keep(attic.round(learned(step)))), ("cellar", cellar.keep(cellar.round(learned(more))))
    device.keep(device.round(learned(step), *heard))
    assert device.state.copies.keys() == {"attic", "cellar"}
    device.names = ["attic", "barn", "den", "hall", "cellar"]
    before = device.state.copies["attic"]
    device.keep(device.round(NOTHING_LEARNED))
    assert device.state.copies.keys() == {"attic"}
    assert device.state.copies["attic"].values == before.values


def test_whose_state_was_put_back_goes_on_with_its_model_in_another_life_that_neighbours_take():
    device, hearer = Device("barn"), Device("attic")
    rounds = steps(4)
    old: dict[str, bytes] = {}
    for number, step in enumerate(rounds):
        hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", device.keep(device.round(learned(step))))))
        old = device.kept if number == 1 else old
    device.kept = old
    repeated = device.round(learned(rounds[2]))
    told = Device.keep(device, repeated)
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", told)))
    assert hearer.state.copies["barn"].head.number == 4, "a number that it has, so it is not taken"
    told = device.keep(device.round(NOTHING_LEARNED, anew=True))
    assert told.whole
    assert told.number == 1
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", told)))
    assert np.array_equal(np.frombuffer(hearer.kept[values_part("barn")], np.float32), device.trained_from)
    told = device.keep(device.round(learned(rounds[3])))
    assert not told.whole
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", told)))
    assert hearer.state.copies["barn"].head.number == 2


def test_a_whole_copy_from_the_state_is_what_neighbours_hold():
    device, hearer = Device("barn"), Device("attic")
    for step in steps(3):
        device.keep(device.round(learned(step)))
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", device.state.last_told)))
    assert "barn" not in hearer.state.copies, "changes before it are lacking"
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", device.state.whole_copy)))
    hearer.keep(hearer.round(NOTHING_LEARNED, ("barn", device.keep(device.round(learned(steps(1)[0]))))))
    assert hearer.state.copies["barn"].head.number == 4


def test_a_round_that_diverges_mixes_and_tells_nothing_and_its_samples_are_as_new():
    device, other, step = Device("barn"), Device("attic"), steps(1)[0]
    told = other.keep(other.round(learned(10 * step)))
    device.keep(device.round(learned(step)))
    before = device.state
    ended = device.round(DivergedError("the loss is nan"), ("attic", told))
    assert ended.diverged == "the loss is nan"
    assert not ended.told
    assert (ended.trained_through, ended.epochs) == (5, 1.5)
    device.keep(ended)
    assert device.state.head.number == before.head.number
    assert device.state.model != before.model
    assert device.state.copies["attic"].head.distance > 0


def test_a_round_that_is_withheld_mixes_and_says_why():
    ended = Device("barn").round(NOTHING_LEARNED)
    assert ended.withheld == "it was worse"
    assert (ended.trained_through, ended.epochs) == (8, 2.5)


def test_what_a_neighbour_told_that_is_no_update_is_said_and_the_others_are_mixed():
    device, other = Device("barn"), Device("attic")
    heard = ("cellar", Told(3, 1, b"\xff\xff")), ("attic", other.keep(other.round(learned(steps(1)[0]))))
    ended = device.round(learned(steps(1)[0]), *heard)
    assert [(each.neighbour, each.reason) for each in ended.refused] == [("cellar", Reason.MALFORMED.value)]
    device.keep(ended)
    assert device.state.copies.keys() == {"attic"}


def test_a_model_that_has_moved_too_little_is_not_told():
    device = Device("barn", task=msgspec.structs.replace(TASK, sending=SendingPlan("changed", 0.9)))
    first = device.round(learned(np.ones(SIZE, np.float32)))
    assert first.told
    device.keep(first)
    before = device.state
    ended = device.round(learned(np.zeros(SIZE, np.float32)))
    device.keep(ended)
    assert ended.told is (device.state.head.number > before.head.number)


def test_the_largest_state_is_within_what_is_read_of_a_worker():
    names = [f"device-with-a-name-of-many-characters-{number:010}" for number in range(64)]
    neighbours = Neighbours.of(names[0], "grid", names, 0)
    peer = Peer(TASK, neighbours, BEGUN, rule="mean", life=2**62)
    noise = np.random.default_rng(5)
    for name in neighbours.each:
        for life in range(12):
            values = noise.standard_normal(SIZE).astype(np.float32)
            peer.hear(name, Told(2**62 + life, 2**62, packed(values), whole=True))
    peer.learn(noise.standard_normal(SIZE).astype(np.float32))
    peer.tell()
    assert sum(map(len, peer.state.parts.values())) <= most_state_bytes(SIZE, len(neighbours.each))


def test_a_neighbour_of_which_a_part_is_lost_is_asked_for_again_and_nobody_else():
    device, attic, cellar = Device("barn"), Device("attic"), Device("cellar")
    for step in steps(3):
        heard = [(each.name, each.keep(each.round(learned(step)))) for each in (attic, cellar)]
        device.keep(device.round(learned(step), *heard))
    assert device.state.copies["attic"].head.changes == 2, "behind the first, which begins its life"
    before = device.state
    del device.kept[change_part("attic", 2)]
    device.keep(device.round(NOTHING_LEARNED))
    assert device.state.head.life == before.head.life
    assert device.state.copies.keys() == {"cellar"}
    assert not any("attic" in part for part in device.kept), "what is left of it is of no use"


def test_a_round_writes_of_a_neighbour_what_it_has_told():
    device, other = Device("barn"), Device("attic")
    device.keep(device.round(learned(steps(1)[0]), ("attic", other.keep(other.round(learned(steps(1)[0]))))))
    told = other.keep(other.round(learned(steps(1)[0])))
    ended = device.round(NOTHING_LEARNED, ("attic", told))
    assert ended.changed[change_part("attic", 2)] == told.packed
    assert values_part("attic") not in ended.changed
    device.keep(ended)
    assert not any("attic" in part for part in device.round(NOTHING_LEARNED).changed), "nothing where it is silent"


def test_changes_behind_values_are_bounded_and_the_copy_stays_what_the_neighbour_holds():
    device, other = Device("barn"), Device("attic")
    most = 0
    for step in steps(MOST_CHANGES + 8):
        device.keep(device.round(NOTHING_LEARNED, ("attic", other.keep(other.round(learned(step))))))
        copy = device.state.copies["attic"]
        most = max(most, len(copy.changes))
        assert 2 * sum(map(len, copy.changes)) <= len(copy.values)
        held = NeighbourCopy.of(copy, TASK).values
        own = np.zeros(SIZE, np.float32)
        decode_update(other.state.whole, TASK.shapes).add_to(own)
        assert np.array_equal(held, own)
    assert 1 < most <= MOST_CHANGES
