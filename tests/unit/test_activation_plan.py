"""Where a task's clusters are found by activations: what is taken of a block's output, and what is refused in words."""

import math

import msgspec
import pytest

from fleet_protocol.activation_plan import activation_block, activation_shape, check_activations, summary_values
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_ACTIVATION_VALUES
from fleet_protocol.split_plan import Block, Cut, SplitPlan
from tests.support.split_task import CUTS, PLAN


def of_shape(*shape: int) -> SplitPlan:
    """The plan whose second block, always the helper's, gives this."""
    blocks = [msgspec.structs.replace(each, output_shape=list(shape)) for each in PLAN.blocks[1:2]]
    return msgspec.structs.replace(PLAN, blocks=[PLAN.blocks[0], *blocks, *PLAN.blocks[2:]])


@pytest.mark.parametrize(
    ("shape", "call", "expected"), [((4,), None, [4]), ((6, 3, 5), None, [6, 3, 5]), ((2, 6, 3, 5), 1, [6, 3, 5])]
)
def test_a_mean_has_every_value_of_one_call(shape, call, expected):
    plan, split = ClusterPlan(activations="second", call=call), of_shape(*shape)
    check_activations(plan, split, "task.json")
    assert activation_block(plan, split) == 1
    assert activation_shape(plan, split) == expected
    assert summary_values(plan, split) == math.prod(expected)


def test_a_mean_has_a_value_for_each_channel_where_all_are_too_many():
    plan = ClusterPlan(activations="second")
    assert summary_values(plan, of_shape(16, 8, 8)) == MAX_ACTIVATION_VALUES
    assert summary_values(plan, of_shape(16, 8, 9)) == 16


def test_a_task_whose_devices_are_assigned_by_hand_needs_no_split():
    check_activations(ClusterPlan(), None, "task.json")


REFUSED = {
    "no point": (ClusterPlan(activations="seventh"), PLAN, "is no point of [split]; there are first, second, third"),
    "the end": (ClusterPlan(every=2), PLAN, "clusters.activations, which is missing"),
    "no split": (ClusterPlan(activations="second"), None, "the task has none"),
    "a device's in one cut": (ClusterPlan(activations="third"), PLAN, "the cut 'early' leaves 'third' to the device"),
    "a device's in all": (ClusterPlan(activations="first"), PLAN, "the cut 'early' leaves 'first' to the device"),
    "call of vectors": (ClusterPlan(activations="second", call=0), PLAN, "whose first axis has 0 calls"),
    "third of two": (ClusterPlan(activations="second", call=2), of_shape(2, 6), "whose first axis has 2 calls"),
    "too many": (
        ClusterPlan(activations="second"),
        of_shape(MAX_ACTIVATION_VALUES + 1, 2),
        "1025 channels, more than MAX_ACTIVATION_VALUES (1024)",
    ),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_activations_that_no_helper_sees_of_every_device_are_refused_in_words(refused):
    plan, split, words = refused
    with pytest.raises(ConfigurationError) as error:
        check_activations(plan, split, "task.json")
    assert words in str(error.value)
    assert str(error.value).startswith("task.json: clusters.")


def test_the_last_block_has_no_point_to_name():
    last = SplitPlan([Block("a", [3]), Block("b", [3]), Block("", [])], [Cut("one", [(1, 2)])])
    with pytest.raises(ConfigurationError, match="there are a, b"):
        check_activations(ClusterPlan(activations="c"), last, "task.json")
    assert CUTS
