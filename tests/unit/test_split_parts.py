"""The small decisions of a split round: where passes go, how many are under way, what leaves the device."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.training.split.outgoing import clipped_rows, packed_activations, packed_gradient
from edge_agent.training.split.pace import Pace
from fleet_protocol.codec.activations import unpack_rows
from fleet_protocol.sessions.staleness import staleness_weight
from fleet_protocol.split_placement import Leg, PartPass, legs_of, passes_of
from fleet_protocol.split_plan import Block, Cut, SplitPlan, is_helpers
from tests.support.split_session import plan_of, shipped

PLAN = plan_of(shipped().description)


def chain(*parts: str, **changes: object) -> SplitPlan:
    """Blocks of these parts, empty for a task without."""
    blocks = [Block(f"p{number}", [2], part=part) for number, part in enumerate(parts)]
    blocks[-1] = Block("", [], part=parts[-1])
    return SplitPlan(blocks=blocks, cuts=[Cut("all", [(1, len(parts) - 1)])], **changes)


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_legs_are_all_blocks_but_the_last_in_order_on_their_sides(at_helper):
    sides = [False, *at_helper, False]
    ranges = [(block, block + 1) for block, there in enumerate(sides) if there]
    cut = Cut("drawn", ranges)  # neighbours joined or not: a leg is as long as its side
    plan = chain(*[""] * len(sides))
    legs = legs_of(plan, cut)
    assert [block for leg in legs for block in leg.blocks] == list(range(len(sides) - 1))
    assert all(leg.at_helper == is_helpers(cut, block) for leg in legs for block in leg.blocks)
    assert all(one.at_helper != two.at_helper for one, two in pairwise(legs))


def test_a_leg_ends_where_a_part_does():
    plan = chain("made", "made", "judged", "judged", "judged", parts=["judged", "made"])
    assert legs_of(plan, plan.cuts[0]) == [Leg(0, 1, False), Leg(1, 2, True), Leg(2, 4, True)]


def test_parts_take_turns_and_go_back_as_far_as_they_train():
    plan = chain("made", "made", "judged", "judged", parts=["judged", "made"])
    assert passes_of(plan) == [PartPass("judged", 2), PartPass("made", 0)]
    assert passes_of(PLAN) == [PartPass("", 0)]
    judged = PartPass("judged", 2)
    assert [judged.trains(plan, block) for block in range(4)] == [False, False, True, True]


@pytest.mark.parametrize(("buffered", "until"), [((), 2), ((3,), 2), ((1, 3), 1), ((0,), 0)])
def test_a_pass_goes_back_to_the_first_block_that_it_changes(buffered, until):
    plan = chain("made", "made", "judged", "judged", parts=["judged", "made"])
    assert [each.until for each in passes_of(plan, buffered)] == [until, 0]


@pytest.mark.parametrize(
    ("own", "wait", "expected"), [(1.0, 0.0, 1), (1.0, 0.2, 1), (1.0, 0.5, 2), (0.1, 0.2, 5), (0.001, 5.0, 16)]
)
def test_as_many_steps_are_under_way_as_hide_the_waiting(own, wait, expected):
    """A step waits twice, forward and backward."""
    pace = Pace(16, lambda: 0.0)
    assert pace.in_flight == 1
    pace.answered(1, wait)
    pace.answered(2, wait)
    assert pace.in_flight == 1
    pace.computed(own)
    assert pace.in_flight == expected


def test_a_wait_for_the_device_itself_is_not_counted():
    pace = Pace(16, lambda: 0.0)
    pace.computed(0.1)
    for seconds in (0.1, 3.0, 5.0):
        pace.answered(1, seconds)
    assert pace.in_flight == 2


def test_a_stale_pass_counts_less_and_several_at_once_as_one_behind_the_other():
    assert staleness_weight(0) == 1
    assert staleness_weight(3) == 0.25
    assert np.isclose(staleness_weight(1, 3), (1 / 2 + 1 / 3 + 1 / 4) / 3)


def test_each_sample_s_gradient_is_within_the_limit_and_keeps_its_direction():
    gradient = np.random.default_rng(1).standard_normal((8, 3, 4)).astype(np.float32) * np.float32(0.1)
    norms = 8 * np.linalg.norm(gradient.reshape(8, -1), axis=1)
    limit = float(np.median(norms))
    clipped = clipped_rows(gradient, limit)
    after = 8 * np.linalg.norm(clipped.reshape(8, -1), axis=1)
    np.testing.assert_allclose(after, np.minimum(norms, limit), rtol=1e-5)
    np.testing.assert_array_equal(clipped[norms <= limit], gradient[norms <= limit])
    zero = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(clipped_rows(zero, limit), zero)


def test_noise_has_the_deviation_that_the_plan_says():
    values = np.random.default_rng(1).random((64, 8, 4, 4), np.float32)
    plan = msgspec.structs.replace(PLAN, activation_noise=2.0)
    packed = packed_activations(values, plan, np.random.default_rng(2))
    noise = unpack_rows(packed, "float32", 64, (8, 4, 4)) - values
    assert abs(float(noise.std()) / (2 * float(values.std())) - 1) < 0.02
    assert packed != packed_activations(values, plan, np.random.default_rng(3))
    assert packed_activations(values, PLAN, np.random.default_rng(2)) == packed_activations(
        values, PLAN, np.random.default_rng(3)
    )


def test_what_leaves_of_a_gradient_is_what_the_plan_selects():
    gradient = np.random.default_rng(1).standard_normal((4, 20)).astype(np.float32)
    plan = msgspec.structs.replace(PLAN, gradient_selection="top_k", gradient_keep=0.1, gradient_clip=1e-3)
    sent = unpack_rows(packed_gradient(gradient, plan, np.random.default_rng(2)), "float32", 4, (20,))
    assert (np.count_nonzero(sent, axis=1) == 2).all()
    assert (4 * np.linalg.norm(sent, axis=1) <= 1e-3 * (1 + 1e-5)).all()
