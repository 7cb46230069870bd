"""Running a recipe's module, and its loss, on a few rows: whether what comes out is what `task.toml` says."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_rules import input_rule
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from workbench.export.heads import Batch, Head
from workbench.export.objective import Objective
from workbench.export.own_loss import check_rows
from workbench.export.task_file import TaskFile

PROBE_ROWS = 2


def probe(module: nn.Module, objective: Objective, task: TaskFile, model: Path, path: Path) -> None:
    """Check a module in `model` against the task in `path`.

    Raises:
        ConfigurationError: they contradict each other.
    """
    inputs = _inputs(task)
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(inputs)
    except (RuntimeError, IndexError) as error:
        shapes = ", ".join(f"inputs.{name} {schema.shape}" for name, schema in task.inputs.items())
        raise ConfigurationError(
            f"{path}: {shapes or f'input.shape {task.input.shape}'} doesn't fit the module:"
            f" {str(error).splitlines()[0]}"
        ) from error
    for head, scores in zip(objective.heads, _scores(objective, outputs, model), strict=True):
        _check_scores(head, scores, tuple(inputs.shape), task, path)
    batch = Batch(inputs, _labels(task.label), torch.ones(PROBE_ROWS), {})
    for loss in objective.own_losses.values():
        name = loss.function.__name__
        try:
            with torch.no_grad():
                rows = loss(objective.told(outputs, batch))
        except Exception as error:
            raise ConfigurationError(f"{model}: {name}() failed: {type(error).__name__}: {error}") from error
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


def _inputs(task: TaskFile) -> Tensor:
    """Zeros, or what comes nearest to them within the bounds, as the module takes them."""
    parts = [_zeros(schema) for schema in task.each_input.values()]
    return torch.cat([part.flatten(1) for part in parts], dim=1) if task.inputs else parts[0]


def _zeros(schema: InputSchema) -> Tensor:
    rule = input_rule(schema)
    return torch.zeros([PROBE_ROWS, *schema.shape]).clamp(rule.lowest, rule.highest)


def _labels(label: LabelSchema) -> Tensor | None:
    if label.is_index:
        return torch.zeros(PROBE_ROWS, dtype=torch.int64)
    return torch.zeros(PROBE_ROWS, label.size) if label.size else None
