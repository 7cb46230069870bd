"""Whether unscaled inputs vary so little that a model hardly sees it. Pure."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.scaling import input_blocks
from fleet_protocol.task_description import TaskDescription

NARROW: Final = 0.01
"""Of the bounds: pixels, ratios and sparse flags of one in a hundred deviate by ten times as much."""


def narrow_inputs(inputs: NDArray[np.float32], task: TaskDescription) -> str:
    """That no column of raw inputs [N, ...] deviates by a hundredth of its bounds, with the remedy; empty where one
    does, and where inputs are scaled or go into a backbone.
    """
    if task.scaling.inputs is not None or task.backbone:
        return ""
    table = inputs.reshape(len(inputs), -1).astype(np.float64)
    found = []
    for block in input_blocks(task.each_input):
        bound = max(abs(block.lowest), abs(block.highest))
        found.append((float(table[:, block.place].std(axis=0).max()), bound))
    if not found or any(deviation >= NARROW * bound or not math.isfinite(bound) for deviation, bound in found):
        return ""
    deviation, bound = max(found)
    return (
        f"{task.task}: no input deviates by more than {deviation:.2g}, where the bounds let it reach {bound:g}: a model"
        " hardly learns from so little; write [scaling] inputs = 'fleet' in task.toml (docs/scaling.md)"
    )
