"""A fleet's steps in virtual time: what a helper shares out, what a barrier costs, and the planner's mean times."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.split_plan import Cut
from fleet_protocol.split_step_costs import Exchange, StepCost, StepWalk
from workbench.split_planning.cut_options import CutOption, Machine
from workbench.split_planning.helper_queue import Customers, seconds_at_helper
from workbench.split_planning.round_ends import RoundEnd
from workbench.split_planning.shared_helpers import Group, Sharing
from workbench.split_planning.timeline import Conditions, Walker, steps_done

UNIT = Machine(flops=1.0, uplink=1.0, downlink=1.0, latency=0.0)
"""So operations and bytes are seconds."""
WIDE = Machine(flops=1.0, uplink=1e12, downlink=1e12, latency=0.0)


def walk(*exchanges: tuple[int, int], last: int = 0) -> StepWalk:
    """Of (device, helper) operations, without bytes."""
    return StepWalk(tuple(Exchange(device, 0, helper, 0) for device, helper in exchanges), last)


def test_one_device_goes_through_its_step_alone():
    walker = Walker(UNIT, StepWalk((Exchange(3, 4, 5, 6),), 2))
    assert steps_done([walker], [WIDE], Conditions(20.5)) == [1]
    assert steps_done([walker], [UNIT], Conditions(20.5)) == [1], "the link is the helper's as much as the device's"
    assert steps_done([walker], [WIDE], Conditions(40.5)) == [2]


def test_latencies_of_both_count_each_way_and_the_end_of_a_round_behind_its_steps():
    far = Machine(1.0, 1.0, 1.0, latency=2.0)
    walker = Walker(far, walk((1, 1)), round_end=RoundEnd(30, 10), round_steps=2)
    assert steps_done([walker], [far], Conditions(20.5)) == [2], "10 seconds a step, of which 8 are latency"
    assert steps_done([walker], [far], Conditions(69.5)) == [2], "40 seconds of a round's end"
    assert steps_done([walker], [far], Conditions(70.5)) == [3]


def test_devices_are_served_in_the_order_in_which_they_ask():
    quick, slow = Walker(UNIT, walk((0, 2))), Walker(UNIT, walk((1, 3)))
    assert steps_done([quick, slow], [WIDE], Conditions(97.5)) == [20, 19], "5 seconds for both"


def test_in_lockstep_all_go_as_fast_as_the_slowest_and_without_it_only_that_one_does():
    fast, slow = Walker(UNIT, walk((1, 0), (1, 0))), Walker(UNIT, walk((10, 0), (10, 0)))
    assert steps_done([fast, slow], [WIDE], Conditions(100.5, lockstep=True)) == [5, 5]
    assert steps_done([fast, slow], [WIDE], Conditions(100.5)) == [50, 5]
    with pytest.raises(ValueError, match="ask equally often"):
        steps_done([fast, Walker(UNIT, walk((1, 0)))], [WIDE], Conditions(1.0, lockstep=True))


def test_the_same_seed_draws_the_same_times():
    walkers = [Walker(UNIT, walk((3, 1)))] * 4
    runs = [steps_done(walkers, [WIDE], Conditions(500.0, spread=0.5, seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def drawn_walkers(seed: int, devices: int) -> list[Walker]:
    draw = random.Random(seed)
    return [
        Walker(UNIT, walk(*[(draw.randint(1, 40), draw.randint(1, 10)) for _ in range(4)], last=draw.randint(1, 40)))
        for _ in range(devices)
    ]


def planned_steps(walkers: list[Walker], seconds: float) -> float:
    """Of all devices, by the planner's mean times."""
    groups = []
    for each in walkers:
        cost = StepCost(
            each.walk.device_flops, each.walk.helper_flops, 0, 0, 0.0, 0.0, 0.0, 1, len(each.walk.exchanges)
        )
        groups.append(Group([CutOption(Cut("cut", [(1, 2)]), 0, 0, (cost,))], 1))
    sharing = Sharing(groups, [WIDE])
    cost = sharing.cost(sharing.shares(((0, 0),) * len(groups)))
    return sum(seconds / each for each in cost.share_seconds.values())


@pytest.mark.parametrize("devices", [1, 4, 12, 40])
def test_the_planners_mean_times_are_close_to_those_of_events_and_rather_above(devices):
    for seed in range(3):
        walkers = drawn_walkers(seed, devices)
        done = sum(steps_done(walkers, [WIDE], Conditions(20_000.0, spread=0.3)))
        assert 0.88 < planned_steps(walkers, 20_000.0) / done < 1.06


STEPS = st.builds(
    Customers,
    steps=st.integers(1, 1000),
    visits=st.integers(1, 16),
    elsewhere=st.floats(0, 1e6),
    demands=st.tuples(*[st.floats(0, 1e6)] * 3),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=8))
def test_no_step_is_at_a_helper_for_less_than_its_own_service_nor_for_longer_than_that_of_all(customers):
    longest = [sum(each.steps * max(each.demands[s], 0) for each in customers) for s in range(3)]
    most_visits = max((each.visits for each in customers), default=1)
    for each, seconds in zip(customers, seconds_at_helper(customers), strict=True):
        assert sum(each.demands) <= seconds * (1 + 1e-9)
        assert seconds <= most_visits * sum(longest) * (1 + 1e-9)
