"""A task of four blocks, and its cuts, of which only the description exists."""

import msgspec

from fleet_protocol.bundle import parse_description
from fleet_protocol.limits import MIB
from fleet_protocol.parameter import Parameter
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.split_plan import Block, Cut, SplitPlan
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_recipe

_DIGITS = parse_description((find_recipe("digits") / "bundle" / "task.json").read_bytes())

EARLY, DEEP = Cut("early", [(1, 2)]), Cut("deep", [(1, 3)])
CUTS = [EARLY, DEEP]
PLAN = SplitPlan(
    [
        Block("first", [8], forward_flops=100, working_bytes=MIB // 4),
        Block("second", [4], forward_flops=200, working_bytes=4 * MIB),
        Block("third", [4], forward_flops=300, working_bytes=2 * MIB),
        Block("", [], forward_flops=50, working_bytes=MIB // 8),
    ],
    CUTS,
)
PARAMETERS = [
    Parameter("first.weight", [2, 2], block=0),
    Parameter("second.weight", [3], block=1),
    Parameter("third.weight", [2], block=2),
    Parameter("last.weight", [3], block=3),
    Parameter("first.mean", [2], trainable=False, block=0),
    Parameter("second.mean", [1], trainable=False, block=1),
]
"""Fifteen values, of which the last three are running statistics."""
TASK: TaskDescription = msgspec.structs.replace(
    _DIGITS,
    input=InputSchema([16], -1, 1),
    parameters=PARAMETERS,
    split=PLAN,
    training=msgspec.structs.replace(_DIGITS.training, batch_size=10, steps=6),
)
