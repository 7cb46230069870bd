"""What a task's graphs are fed of its scale, beside weights and samples."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.task_description import TaskDescription

SCALE_INPUTS: Final = {"inputs": ("input_mean", "input_deviation"), "targets": ("target_mean", "target_deviation")}
"""The names of the graphs' inputs for each scale of `fleet_protocol.scaling.Scaling`."""


def scale_feeds(task: TaskDescription) -> dict[str, NDArray[np.float32]]:
    """By the names of `SCALE_INPUTS`, float32 [columns] each; nothing for what is not scaled."""
    scales = {"inputs": task.scaling.inputs, "targets": task.scaling.targets}
    return {
        name: np.array(values, np.float32)
        for what, scale in scales.items()
        if scale is not None
        for name, values in zip(SCALE_INPUTS[what], (scale.mean, scale.deviation), strict=True)
    }
