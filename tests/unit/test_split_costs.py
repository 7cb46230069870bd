"""What a step costs with each cut, by numbers that were worked out by hand."""

import msgspec
import pytest

from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import BASE_BYTES, memory_bytes
from fleet_protocol.split_plan import WHOLE, Block, Cut, SplitPlan
from fleet_protocol.split_step_costs import Party, StepWalk, step_cost, step_walk
from fleet_protocol.task_description import TaskDescription
from tests.support.split_task import CUTS, DEEP, EARLY, PLAN, TASK

PARTY = Party(flops=1e6, uplink=1e5, downlink=2e5, latency=0.05, helper_flops=1e8)


def of_rows(rows: int, **passing: object) -> TaskDescription:
    """The task with mini-batches of so many rows, of which values travel so."""
    training = msgspec.structs.replace(TASK.training, batch_size=rows)
    return msgspec.structs.replace(TASK, split=msgspec.structs.replace(PLAN, **passing), training=training)


def test_bytes_each_way_are_those_of_both_edges_in_both_passes():
    walk = step_walk(of_rows(10, activations="float32", gradients="float16"), EARLY)
    # The helper runs block 1: 8 values in front of it, 4 behind.
    assert walk.up_bytes == (10 * 8 * 4 + 128 + 64) + (10 * 4 * 2 + 128 + 64)
    assert walk.down_bytes == (10 * 4 * 4 + 128 + 64) + (10 * 8 * 2 + 128 + 64)


def test_gradients_of_which_a_tenth_is_kept_take_a_third_of_a_byte_each():
    dense = step_walk(of_rows(1000), EARLY)
    kept = step_walk(of_rows(1000, gradient_selection="top_k", gradient_keep=0.1), EARLY)
    assert dense.up_bytes - kept.up_bytes == pytest.approx(1000 * 4 * 0.7, abs=1)
    assert dense.down_bytes - kept.down_bytes == pytest.approx(1000 * 8 * 0.7, abs=1)


def test_seconds_of_a_step_are_the_slowest_part_or_its_way_shared_by_those_under_way():
    several = msgspec.structs.replace(TASK, split=msgspec.structs.replace(PLAN, most_in_flight=16))
    cost = step_cost(several, EARLY, PARTY)
    assert cost.device_seconds == 10 * (4 * 100 + 4 * 300 + 3 * 50) / 1e6
    assert cost.helper_seconds == 10 * 4 * 200 / 1e8
    assert cost.waiting_seconds == pytest.approx(0.2), "two round trips"
    assert cost.seconds == max(cost.device_seconds, cost.up_seconds, cost.down_seconds)
    parts = (cost.device_seconds, cost.helper_seconds, cost.up_seconds, cost.down_seconds, cost.waiting_seconds)
    assert step_cost(TASK, EARLY, PARTY).seconds == pytest.approx(sum(parts))


def test_whole_step_needs_no_link():
    cost = step_cost(TASK, WHOLE, PARTY)
    assert (cost.up_bytes, cost.down_bytes, cost.helper_seconds) == (0, 0, 0)
    assert cost.seconds == 10 * 3 * (100 + 200 + 300 + 50) / 1e6


def test_a_cut_that_leaves_the_wide_block_to_a_helper_needs_less_memory_than_the_whole():
    whole = memory_bytes(TASK, WHOLE)
    assert whole > BASE_BYTES + 10 * sum(block.working_bytes for block in PLAN.blocks)
    assert memory_bytes(TASK, DEEP) < memory_bytes(TASK, EARLY) < whole


def test_stored_samples_count_two_and_a_half_times():
    more = memory_bytes(TASK, WHOLE, stored_samples=1000) - memory_bytes(TASK, WHOLE)
    assert more == 2.5 * 1000 * 4 * 16


@pytest.mark.parametrize(("cut", "held"), [(WHOLE, 15), (DEEP, 9)])
def test_each_vector_of_an_optimiser_counts_before_and_after_a_step_twice(cut, held):
    def needed(optimiser: str) -> int:
        training = msgspec.structs.replace(TASK.training, optimiser=optimiser)
        return memory_bytes(msgspec.structs.replace(TASK, training=training), cut)

    kept = 2 if cut.helper else 0  # by the one step that is under way, for the case that it is abandoned
    assert needed("adam") - needed("sgd") == (2 * 2 * 2 + kept) * 4 * held


@pytest.mark.parametrize("cut", [WHOLE, *CUTS])
def test_memory_grows_with_rows_and_with_what_the_libraries_take(cut):
    training = msgspec.structs.replace(TASK.training, batch_size=20)
    assert memory_bytes(msgspec.structs.replace(TASK, training=training), cut) > memory_bytes(TASK, cut)
    assert memory_bytes(TASK, cut, base_bytes=BASE_BYTES + MIB) == memory_bytes(TASK, cut) + MIB


ONE, TWO = "one", "two"
PAIR = SplitPlan(
    [
        Block("a", [4], part=ONE, forward_flops=1),
        Block("b", [6], part=ONE, forward_flops=10),
        Block("c", [8], part=TWO, forward_flops=100),
        Block("d", [2], part=TWO, forward_flops=1000),
        Block("", [], part=TWO, forward_flops=10_000),
    ],
    [Cut("both", [(1, 2), (3, 4)])],
    [TWO, ONE],
)
"""The second part sees what the first makes, and trains first."""


def pair(*, has_buffers: bool) -> TaskDescription:
    parameters = TASK.parameters if has_buffers else [each for each in TASK.parameters if each.trainable]
    return msgspec.structs.replace(TASK, split=PAIR, parameters=parameters)


def test_in_the_whole_step_a_part_that_does_not_train_is_gone_through_as_far_as_gradients_need_it():
    second_trains, first_trains = 11 + 3 * 11_100, 3 * 11 + 2 * 11_100
    assert step_walk(pair(has_buffers=True), WHOLE) == StepWalk((), 10 * (second_trains + first_trains))


def test_blocks_of_a_pair_go_forward_in_every_pass_and_back_as_far_as_it_trains():
    walk = step_walk(pair(has_buffers=False), PAIR.cuts[0])
    helper = [each.helper_flops for each in walk.exchanges]
    assert helper == [10 * each for each in (10, 1000, 3000, 10, 1000, 3000, 30)]
    assert [each.device_flops for each in walk.exchanges] == [
        10 * each for each in (1, 100, 3 * 10_000, 3 * 100 + 1, 100, 2 * 10_000, 3 * 100)
    ]
    assert walk.last_flops == 10 * 3
    ends = [4, 8, 2, 4, 8, 2, 6]
    assert [each.up_bytes for each in walk.exchanges] == [10 * each + 128 + 64 for each in ends]


def test_where_running_statistics_move_every_pass_goes_all_the_way_back():
    walk = step_walk(pair(has_buffers=True), PAIR.cuts[0])
    assert len(walk.exchanges) == 8
    assert walk.helper_flops == 2 * 10 * 4 * 1010
