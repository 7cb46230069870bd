"""A recipe exported with privacy of samples that its task.toml does not have."""

from pathlib import Path

import msgspec
import torch

from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.update_plan import WHOLE_UPDATES
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.task_file import TaskFile
from workbench.privacy_modes.modes import SAMPLES, noised_training


def export_noised(recipe: Path, out: Path) -> None:
    """Write the bundle.

    Raises:
        ConfigurationError: the task can't keep what noise promises, and what to change.
    """
    torch.set_num_threads(1)  # as for `edgeflock export`
    export_bundle(recipe, out, tell=lambda _: None, change=noised)


def noised(task: TaskFile) -> TaskFile:
    """The task with noise in each step; a loss that balances classes would look at all samples of a device."""
    loss = "cross_entropy" if task.loss == "balanced_cross_entropy" else task.loss
    if loss is None and task.label.kind == "class":
        loss = "cross_entropy"
    return msgspec.structs.replace(
        task,
        loss=loss,
        training=noised_training(task.training),
        update=WHOLE_UPDATES,  # the largest entries of a noised update are mostly noise
        privacy=PrivacyPlan(samples=SAMPLES),
    )
