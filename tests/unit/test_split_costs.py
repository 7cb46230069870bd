"""What a step costs with each cut, by numbers that were worked out by hand."""

import msgspec
import pytest

from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import BASE_BYTES, Party, bytes_of_step, memory_bytes, step_cost
from fleet_protocol.split_plan import WHOLE, Block, Cut, SplitPlan
from tests.support.split_task import CUTS, DEEP, EARLY, PLAN, TASK

PARTY = Party(flops=1e6, uplink=1e5, downlink=2e5, latency=0.05, helper_flops=1e8)


def test_bytes_each_way_are_those_of_both_edges_in_both_passes():
    plan = msgspec.structs.replace(PLAN, activations="float32", gradients="float16")
    up, down = bytes_of_step(plan, EARLY, rows=10)  # the helper runs block 1: 8 values in front of it, 4 behind
    assert up == (10 * 8 * 4 + 128 + 64) + (10 * 4 * 2 + 128 + 64)
    assert down == (10 * 4 * 4 + 128 + 64) + (10 * 8 * 2 + 128 + 64)


def test_gradients_of_which_a_tenth_is_kept_take_a_third_of_a_byte_each():
    plan = msgspec.structs.replace(PLAN, gradient_selection="top_k", gradient_keep=0.1)
    dense, kept = bytes_of_step(PLAN, EARLY, 1000), bytes_of_step(plan, EARLY, 1000)
    assert dense[0] - kept[0] == pytest.approx(1000 * 4 * 0.7, abs=1)
    assert dense[1] - kept[1] == pytest.approx(1000 * 8 * 0.7, abs=1)


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


def test_parts_that_train_in_turn_take_a_pass_each():
    plan = SplitPlan(
        [Block("a", [4], part="one", forward_flops=1), Block("", [], part="two", forward_flops=1)], [Cut("none", [])]
    )
    assert step_cost(msgspec.structs.replace(TASK, split=plan), WHOLE, PARTY).seconds == 10 * 2 * 3 * 2 / 1e6
