"""One device's part in gossip: what it tells, what it makes of what others tell, and what they can do to it."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from edge_agent.core.gossip.neighbours import Neighbours
from edge_agent.core.gossip.numbering import Heard
from edge_agent.training.gossip import MIXING_RULES, Peer
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.gossip import topology
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
    aggregation=msgspec.structs.replace(BUNDLE.description.aggregation, max_staleness=20),
)
WHOLE = msgspec.structs.replace(TASK, update=WHOLE_UPDATES)
SIZE = TASK.parameter_count
BEGUN = np.linspace(-1, 1, SIZE, dtype=np.float32)
LIFE = 40
ABSURD = np.full(SIZE, 3e38, np.float32)


def peers(
    task: TaskDescription = TASK, name: str = "ring", devices: int = 8, rule: str = "mean", seed: int = 1
) -> list[Peer]:
    connected = topology(name, devices, seed=seed)
    names = tuple(map(str, range(devices)))
    return [
        Peer(task, Neighbours(connected, names, place), BEGUN, rule=rule, life=LIFE + place) for place in range(devices)
    ]


NO_FACTIONS = 3
"""Draws a random graph in which votes come to an end: in others, parts that agree within outvote each other for ever
(docs/gossip.md).
"""


def whole(number: int, values: np.ndarray, life: int = LIFE) -> Told:
    packed = encode_update(values.astype(np.float32), TASK.shapes, WHOLE_UPDATES, np.random.default_rng(0)).packed
    return Told(life, number, packed, whole=True)


def exchange(fleet: Sequence[Peer], silent: Sequence[int] = ()) -> None:
    """A round in which all tell, hear and mix at the same time; nothing is trained."""
    for place, peer in enumerate(fleet):
        told = None if place in silent else peer.tell()
        for other in peer.neighbours if told else ():
            assert fleet[int(other)].hear(str(place), told) is Heard.TAKEN
    for place, peer in enumerate(fleet):
        if place not in silent:
            peer.mix()


def disagreement(fleet: Sequence[Peer]) -> float:
    models = np.stack([peer.model for peer in fleet])
    return float(np.linalg.norm(models - models.mean(axis=0)))


def moves(generator: np.random.Generator, devices: int) -> np.ndarray:
    return 0.1 * generator.standard_normal((devices, SIZE)).astype(np.float32)


def test_synchronous_and_whole_it_is_d_psgd():
    """x_i = sum_j w_ij (x_j - eta g_j), with g as the moves (Lian et al. 2017, algorithm 1, mixing behind the step)."""
    generator = np.random.default_rng(0)
    fleet = peers(WHOLE)
    models = np.tile(BEGUN.astype(np.float64), (8, 1))
    weights = (np.eye(8) + np.roll(np.eye(8), 1, axis=0) + np.roll(np.eye(8), -1, axis=0)) / 3
    for _ in range(20):
        steps = moves(generator, 8)
        models = weights @ (models + steps)
        for peer, step in zip(fleet, steps, strict=True):
            peer.learn(step)
        exchange(fleet)
    assert np.allclose([peer.model for peer in fleet], models, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "rule"), [("ring", "mean"), ("grid", "mean"), ("grid", "vote"), ("random", "mean"), ("random", "vote")]
)
@pytest.mark.parametrize("task", [TASK, WHOLE], ids=["compressed", "whole"])
def test_consensus_is_reached_without_training(task, name, rule):
    fleet = peers(task, name, rule=rule, seed=NO_FACTIONS if rule == "vote" else 1)
    steps = moves(np.random.default_rng(1), 8)
    for peer, step in zip(fleet, steps, strict=True):
        peer.learn(step)
    before, mean = disagreement(fleet), np.mean([peer.model for peer in fleet], axis=0)
    for _ in range(300):
        exchange(fleet)
    assert disagreement(fleet) < 0.05 * before
    if rule == "mean":
        assert np.allclose(np.mean([peer.model for peer in fleet], axis=0), mean, atol=1e-4)


def test_what_compression_leaves_out_is_told_later():
    sender, hearer = peers()[:2]
    sender.learn(moves(np.random.default_rng(2), 1)[0])
    for number in range(1, 60):
        told = sender.tell()
        assert told.number == number
        assert hearer.hear("0", told) is Heard.TAKEN
    assert hearer.hear("0", msgspec.structs.replace(sender.whole(), number=60)) is Heard.TAKEN
    lacking = sender.model - sender._own.values
    assert np.array_equal(hearer._copies["0"].values, sender._own.values)
    assert np.linalg.norm(lacking) < 0.02 * np.linalg.norm(sender.model - BEGUN)


def test_a_change_that_comes_again_is_not_mixed_again():
    sender, hearer = peers()[:2]
    sender.learn(moves(np.random.default_rng(3), 1)[0])
    told = sender.tell()
    assert hearer.hear("0", told) is Heard.TAKEN
    copy = hearer._copies["0"]
    assert hearer.hear("0", told) is Heard.REPEATED
    assert hearer.hear("0", sender.whole()) is Heard.REPEATED
    assert hearer._copies["0"] is copy


def test_who_lacks_a_change_asks_for_the_whole_copy_and_goes_on():
    sender, hearer = peers()[:2]
    sender.learn(moves(np.random.default_rng(4), 1)[0])
    sender.tell()
    assert hearer.hear("0", sender.tell()) is Heard.LACKING
    assert hearer.hear("0", sender.whole()) is Heard.TAKEN
    assert hearer.hear("0", sender.tell()) is Heard.TAKEN
    assert np.array_equal(hearer._copies["0"].values, sender._own.values)


def test_a_neighbour_that_has_lost_its_state_is_heard_from_its_first_change_on():
    sender, hearer = peers()[:2]
    for step in moves(np.random.default_rng(8), 3):
        sender.learn(step)
        assert hearer.hear("0", sender.tell()) is Heard.TAKEN
    last, former = msgspec.structs.replace(sender.whole(), number=9), hearer._copies["0"]
    again = Peer(TASK, sender._neighbours, BEGUN, rule="mean", life=99)
    again.learn(moves(np.random.default_rng(9), 1)[0])
    first = again.tell()
    assert first.number == 1
    assert hearer.hear("0", again.tell()) is Heard.LACKING
    assert hearer._copies["0"] is former, "until it is known what the new one is"
    assert hearer.hear("0", first) is Heard.TAKEN
    assert hearer.hear("0", first) is Heard.REPEATED
    assert hearer.hear("0", last) is Heard.REPEATED, "of its former life"
    assert hearer.hear("0", again.whole()) is Heard.TAKEN
    assert np.array_equal(hearer._copies["0"].values, again._own.values)


def test_a_neighbour_that_begins_ever_new_lives_takes_no_more_memory():
    hearer = peers(WHOLE)[1]
    for life in range(1, 100):
        assert hearer.hear("0", whole(1, BEGUN, life)) is Heard.TAKEN
    assert hearer._copies["0"].reached.former == tuple(range(91, 99))


def test_dead_neighbours_stop_nobody_and_count_no_longer():
    fleet = peers(devices=5)
    for peer, step in zip(fleet, moves(np.random.default_rng(5), 5), strict=True):
        peer.learn(step)
    exchange(fleet)
    dead = fleet[2].model
    for _ in range(200):
        exchange(fleet, silent=[2])
    others = [peer for place, peer in enumerate(fleet) if place != 2]
    assert disagreement(others) < 0.05 * np.linalg.norm(dead - fleet[0].model)


def test_who_hears_nobody_stays_where_training_brought_it():
    alone = peers()[0]
    step = moves(np.random.default_rng(6), 1)[0]
    alone.learn(step)
    alone.tell()
    alone.mix()
    assert np.array_equal(alone.model, BEGUN + step)


@pytest.mark.parametrize("rule", MIXING_RULES)
@pytest.mark.parametrize("task", [TASK, WHOLE], ids=["compressed", "whole"])
def test_an_absurd_neighbour_moves_a_device_no_further_than_its_own_round(task, rule):
    victim = peers(task, rule=rule)[0]
    victim.learn(moves(np.random.default_rng(7), 1)[0])
    victim.tell()
    assert victim.hear("1", whole(1, ABSURD)) is Heard.TAKEN
    assert victim.hear("7", whole(1, ABSURD)) is Heard.TAKEN
    before = victim.model
    victim.mix()
    moved = np.linalg.norm(victim.model - before)
    assert np.isfinite(victim.model).all()
    assert moved <= (2 if rule == "mean" else 1) * victim.usual_norm * 1.001


def test_an_absurd_neighbour_moves_a_device_that_has_not_trained_within_the_tasks_bound():
    victim = peers(WHOLE)[0]
    victim.hear("1", whole(1, ABSURD))
    victim.mix()
    assert np.linalg.norm(victim.model - BEGUN) == pytest.approx(TASK.largest_delta_norm, rel=1e-3)


def test_a_copy_that_would_not_be_finite_is_refused_and_stays_as_it_was():
    victim = peers(WHOLE)[0]
    victim.hear("1", whole(1, ABSURD))
    more = msgspec.structs.replace(whole(2, ABSURD), whole=False)
    with pytest.raises(ProtocolError) as refused:
        victim.hear("1", more)
    assert refused.value.reason is Reason.NOT_FINITE
    assert np.array_equal(victim._copies["1"].values, ABSURD)
    with pytest.raises(ProtocolError) as refused:
        victim.hear("1", whole(3, np.full(SIZE, np.nan)))
    assert refused.value.reason is Reason.NOT_FINITE


@pytest.mark.parametrize(
    ("place", "told", "reason"),
    [
        ("4", Told(LIFE, 1, b""), Reason.WRONG_RECIPIENT),
        ("1", Told(LIFE, 1, b"\xff\xff"), Reason.MALFORMED),
        ("1", Told(LIFE, 1, b"", whole=True), Reason.MALFORMED),
    ],
)
def test_what_is_no_neighbours_change_is_refused(place, told, reason):
    with pytest.raises(ProtocolError) as refused:
        peers()[0].hear(place, told)
    assert refused.value.reason is reason


def test_what_has_moved_too_little_is_told_when_it_adds_up_or_neighbours_would_miss_it():
    task = msgspec.structs.replace(WHOLE, sending=SendingPlan("changed", 0.9))
    peer = peers(task)[0]
    peer.learn(np.ones(SIZE, np.float32))
    assert peer.tell() is not None
    told = []
    for _ in range(10):
        peer.mix()
        told.append(peer.tell() is not None)
    assert told == [False] * 9 + [True], "half of max_staleness"
    peer.learn(np.full(SIZE, 0.5, np.float32))
    assert peer.tell() is None
    peer.learn(np.full(SIZE, 0.5, np.float32))
    assert peer.tell() is not None


def test_the_mean_is_weighted_and_each_neighbour_is_bounded():
    differences = [np.array([3.0, 4.0]), np.array([0.0, -1.0])]
    assert np.allclose(MIXING_RULES["mean"](differences, [0.5, 0.25], 1.0), [0.6, 0.8 - 0.25])


def test_the_majority_says_where_to_go_and_nobody_how_far():
    differences = [np.array([1.0, 9e37, -2.0]), np.array([2.0, -1.0, 3.0]), np.array([-9e37, -3.0, 1.0])]
    assert np.allclose(MIXING_RULES["vote"](differences, [0.1, 0.1, 0.1], 1e9), [2, -3, 2])
    bounded = MIXING_RULES["vote"](differences, [0.1, 0.1, 0.1], 0.3)
    assert np.allclose(np.sign(bounded), [1, -1, 1])
    assert np.linalg.norm(bounded) == pytest.approx(0.3)


def test_an_absurd_round_of_its_own_does_not_take_the_bound_away():
    (peer, *_) = peers()
    peer.learn(np.full(BEGUN.size, 1e19, np.float32))
    assert peer.usual_norm == TASK.largest_delta_norm
