"""Who exchanges models with whom, how much each counts, and which tasks can."""

import math

import msgspec
import numpy as np
import pytest

from fleet_protocol.codec import encode_update
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip import Topology, consensus_step, topology
from fleet_protocol.gossip_plan import check_gossip
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.sending_plan import SendingPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.simulated_fleet import BUNDLE

TASK = BUNDLE.description
KINDS = [("ring", 3), ("ring", 8), ("grid", 4), ("grid", 7), ("grid", 9), ("random", 5), ("random", 6), ("random", 30)]


def matrix(connected: Topology, round_number: int) -> np.ndarray:
    """W of a round, the device's own weight on the diagonal."""
    weights = np.zeros((connected.devices, connected.devices))
    for place in range(connected.devices):
        for other, weight in connected.weights(place, round_number).items():
            weights[place, other] = weight
        weights[place, place] = 1 - weights[place].sum()
    return weights


@pytest.mark.parametrize(("name", "devices"), KINDS)
def test_each_round_mixes_by_a_symmetric_doubly_stochastic_matrix(name, devices):
    for round_number in range(3):
        weights = matrix(topology(name, devices, seed=1), round_number)
        assert (weights >= 0).all()
        assert np.array_equal(weights, weights.T)
        assert np.allclose(weights.sum(axis=0), 1)


@pytest.mark.parametrize(("name", "devices"), KINDS)
def test_rounds_bring_everybody_together(name, devices):
    connected = topology(name, devices, seed=1)
    mixed = np.eye(devices)
    for round_number in range(40 * devices):
        mixed = matrix(connected, round_number) @ mixed
    assert np.allclose(mixed, 1 / devices, atol=1e-3)


def test_a_square_grid_takes_the_mean_of_all_in_two_rounds():
    connected = topology("grid", 16, seed=0)
    assert np.allclose(matrix(connected, 1) @ matrix(connected, 0), 1 / 16)


def test_random_neighbours_are_four_and_follow_from_the_seed():
    drawn = topology("random", 12, seed=3)
    assert [len(drawn.neighbours(place)) for place in range(12)] == [4] * 12
    assert drawn == topology("random", 12, seed=3)
    assert drawn != topology("random", 12, seed=4)


@pytest.mark.parametrize(
    ("name", "devices", "words"),
    [
        ("ring", 1, "'ring' of 1 device: it takes 3 or more; add devices"),
        ("ring", 2, "it takes 3 or more"),
        ("grid", 3, "'grid' of 3 devices: it takes 4 or more; add devices, or take 'ring'"),
        ("random", 4, "it takes 5 or more"),
    ],
)
def test_too_few_devices_are_refused_in_words(name, devices, words):
    with pytest.raises(ConfigurationError, match=words):
        topology(name, devices, seed=0)


@pytest.mark.parametrize(
    "plan",
    [
        UpdatePlan(0.13),
        UpdatePlan(0.5, "float32"),
        UpdatePlan(1.0, "sign", "dense"),
        UpdatePlan(0.2, "float32", "random_k"),
        UpdatePlan(1.0, "float32", "dense"),
    ],
)
def test_the_consensus_step_is_the_share_that_a_message_brings(plan):
    generator = np.random.default_rng(0)
    parameters = [TASK.parameters[0]]
    task = msgspec.structs.replace(TASK, update=plan, parameters=parameters)
    difference = generator.standard_normal(task.parameter_count, dtype=np.float32)
    left = difference.copy()
    encode_update(difference, task.shapes, plan, generator).sent.add_to(left, scale=-1.0)
    brought = 1 - np.square(left).sum() / np.square(difference).sum()
    assert consensus_step(task) == pytest.approx(brought, abs=0.04)


def test_whole_updates_take_the_whole_step_and_the_smallest_share_takes_one():
    whole = msgspec.structs.replace(TASK, update=UpdatePlan(1.0, "float32", "dense"))
    assert consensus_step(whole) == 1.0
    least = msgspec.structs.replace(TASK, update=UpdatePlan(math.ulp(0.0)))
    assert 0 < consensus_step(least) < 0.01


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection": SelectionPlan()}, r"digits: \[selection\] does not go with gossip"),
        ({"scaling": Scaling(inputs=Scale.awaiting(64))}, r"\[scaling\] without a scale"),
        ({"sending": SendingPlan("better", 0.1)}, "'better' does not go with gossip: 'changed' does"),
        ({"update": UpdatePlan(0.1, selection="threshold")}, "devices never agree"),
        (
            {"aggregation": msgspec.structs.replace(TASK.aggregation, max_staleness=0)},
            "max_staleness 0 does not go with gossip: neighbours are never in step; 2 is the least",
        ),
        (
            {"aggregation": msgspec.structs.replace(TASK.aggregation, quarantine=QuarantinePlan())},
            r"\[aggregation.quarantine\] does not go with gossip",
        ),
        ({"versions_from": "statistics"}, "versions_from 'statistics'"),
    ],
)
def test_what_needs_a_coordinator_is_refused_in_words(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        check_gossip(msgspec.structs.replace(TASK, **changes), "digits")


def test_an_ordinary_task_is_not():
    check_gossip(TASK, "digits")
    check_gossip(msgspec.structs.replace(TASK, sending=SendingPlan("changed", 0.5)), "digits")
