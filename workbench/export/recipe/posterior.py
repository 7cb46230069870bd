"""What a task with `[posterior]` leaves out of `task.toml`, and which losses are likelihoods."""

import tomllib
from pathlib import Path
from typing import Final

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.posterior_plan import POSTERIOR
from fleet_protocol.sample_schema import LabelKind
from workbench.export.recipe.task_file import LossSettings, NamedLoss, TaskFile

LIKELIHOODS: Final[dict[LabelKind, NamedLoss]] = {"class": "cross_entropy", "regression": "mean_squared_error"}


def with_usual_posterior(task: TaskFile, text: str, path: Path) -> TaskFile:
    """The task as read from `text` of `path`, with what [posterior] needs where that says nothing of it.

    Raises:
        ConfigurationError: its loss is no likelihood.
    """
    if task.posterior is None:
        return task
    said = tomllib.loads(text)
    if "strategy" not in said.get("aggregation", {}):
        task = msgspec.structs.replace(task, aggregation=msgspec.structs.replace(task.aggregation, strategy=POSTERIOR))
    usual_update = {"feedback": "ef21", "selection": "top_k_per_tensor", "quantisation": "int8"}
    left_out = {setting: value for setting, value in usual_update.items() if setting not in said.get("update", {})}
    task = msgspec.structs.replace(task, update=msgspec.structs.replace(task.update, **left_out))
    if "optimiser" not in said.get("training", {}):
        task = msgspec.structs.replace(task, training=msgspec.structs.replace(task.training, optimiser="sgd"))
    likelihood = LIKELIHOODS.get(task.label.kind)
    if likelihood is not None and task.loss is None:
        task = msgspec.structs.replace(task, loss=likelihood)
    if likelihood is not None and (task.loss != likelihood or task.loss_settings != LossSettings()):
        raise ConfigurationError(
            f"{path}: [posterior] takes the loss for the negative logarithm of a likelihood, and {task.loss!r} with its"
            f' loss_settings is none; write loss = "{likelihood}", and leave [loss_settings] out'
        )
    return task
