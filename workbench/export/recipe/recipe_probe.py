"""Running a recipe's module, and its loss, on a few rows: whether what comes out is what `task.toml` says."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelSchema
from workbench.export.recipe.heads import Batch, Head
from workbench.export.recipe.model_code import model_code
from workbench.export.recipe.objective import Objective
from workbench.export.recipe.own_loss import check_rows
from workbench.export.recipe.probe import PROBE_ROWS, OperatorLimit, extreme_inputs
from workbench.export.recipe.task_file import TaskFile


def probe(module: nn.Module, objective: Objective, task: TaskFile, model: Path, path: Path) -> None:
    """Check a module in `model` against the task in `path`.

    Raises:
        ConfigurationError: they contradict each other.
    """
    shapes = ", ".join(f"inputs.{name} {schema.shape}" for name, schema in task.inputs.items())
    shapes = shapes or f"input.shape {task.input.shape}"
    fits = f"{shapes}, and its minimum and maximum, in {path.name} must fit what it takes"
    module.eval()
    for name, inputs in extreme_inputs(task).items():
        what = f"forward() of f32{list(inputs.shape)}, full of {name},"
        with model_code(model, what, fits), torch.no_grad(), OperatorLimit():
            outputs = module(inputs)
    for head, scores in zip(objective.heads, _scores(objective, outputs, model), strict=True):
        _check_scores(head, scores, tuple(inputs.shape), task, path)
    batch = Batch(inputs, _labels(task.label), torch.ones(PROBE_ROWS), {})
    for loss in objective.own_losses.values():
        name = loss.function.__name__
        told = objective.told(outputs, batch)
        given = f"it is given {', '.join(f'{each} {_shape(told[each])}' for each in loss.asks_for)}"
        with model_code(model, f"{name}()", given), torch.no_grad():
            rows = loss(told)
        check_rows(rows, PROBE_ROWS, name, model)


def _scores(objective: Objective, outputs: object, model: Path) -> tuple[Tensor, ...]:
    try:
        return objective.scores(outputs)
    except LookupError as error:
        each = "a dict with the scores of each head, or a tuple in the order of task.toml"
        wanted = each if len(objective.heads) > 1 else "the scores"
        raise ConfigurationError(
            f"{model}: forward() gives {error.args[0]}; let it return {wanted}, and anything more only where"
            " loss = 'model.py' reads it"
        ) from error


def _check_scores(head: Head, scores: Tensor, inputs: tuple[int, ...], task: TaskFile, path: Path) -> None:
    """Every shape has to fit that of the labels, but where a loss in model.py may compare them in its own way."""
    label = head.label
    if label.kind == "none" or (task.backbone and not label.outputs):
        return  # anything, or features, whose shape isn't known yet
    expected = (PROBE_ROWS, label.channels, *label.shape) if label.outputs else inputs
    if scores.shape == expected:
        return
    is_own = head.loss is None and label.kind == "regression"
    if is_own and scores.dim() > 1 and len(scores) == PROBE_ROWS and label.values in {1, scores.shape[1]}:
        return
    prefix = f"heads.{head.name}." if head.name else ""
    key = {"regression": "values", "reconstruction": "kind"}.get(label.kind, "classes")
    shape = f" and label.shape {label.shape}" if label.shape else ""
    raise ConfigurationError(
        f"{path}: {prefix}label.{key} is {getattr(label, key)}{shape}, so the module must turn {inputs} into"
        f" {expected}; it gives {tuple(scores.shape)}"
    )


def _shape(told: object) -> str:
    """Of a tensor or of what holds several."""
    if isinstance(told, Tensor):
        return str(list(told.shape))
    values = told.items() if isinstance(told, Mapping) else enumerate(told) if isinstance(told, tuple | list) else ()
    return f"({', '.join(f'{name}: {_shape(each)}' for name, each in values)})"


def _labels(label: LabelSchema) -> Tensor | None:
    if label.is_index:
        return torch.zeros(PROBE_ROWS, dtype=torch.int64)
    return torch.zeros(PROBE_ROWS, label.size) if label.size else None
