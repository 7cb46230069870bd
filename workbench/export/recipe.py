"""Reading a recipe, the folder that a person writes: `model.py` with `build()`, and `task.toml`."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from torch import nn

from fleet_protocol.bundle import AggregationPlan, InputSchema, LabelSchema, Parameter, TrainingPlan, UpdatePlan
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from workbench.export.losses import LOSSES, Loss
from workbench.recipe_folder import TASK_FILE

MODEL_FILE = "model.py"
PROBE_ROWS = 2


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `task.toml`: the task description without what the export finds out by itself.

    `seed` fixes the initial weights. `loss` is a key of `LOSSES`.
    """

    task: str
    title: str
    input: InputSchema
    label: LabelSchema
    training: TrainingPlan
    update: UpdatePlan
    aggregation: AggregationPlan
    loss: str = "cross_entropy"
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A module with its initial weights, and the task it is for."""

    folder: Path
    task: TaskFile
    module: nn.Module

    @property
    def loss(self) -> Loss:
        """The loss that the task names."""
        return LOSSES[self.task.loss]

    @property
    def parameters(self) -> list[Parameter]:
        """The module's parameters in the order of the flat weight vector."""
        return [Parameter(name, list(value.shape)) for name, value in self.module.named_parameters()]


def read_recipe(folder: Path) -> Recipe:
    """Read `folder`, build its module with the task's seed, and check that the two fit together.

    Raises:
        ConfigurationError: a file is missing or wrong, or module and task contradict each other.
    """
    path = folder / TASK_FILE
    task = parse_document(_read(path), TaskFile, str(path))
    if task.loss not in LOSSES:
        raise ConfigurationError(f"{path}: loss {task.loss!r} is unknown; choose one of {', '.join(sorted(LOSSES))}")
    module = _build(folder / MODEL_FILE, task.seed)
    _check_parameters(module, folder / MODEL_FILE)
    _check_shapes(module, task, path)
    return Recipe(folder, task, module)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: can't be read ({error}); a recipe holds {MODEL_FILE} and {TASK_FILE}"
        ) from error


def _build(path: Path, seed: int) -> nn.Module:
    spec = importlib.util.spec_from_file_location("edgeflock_recipe_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path}: no such file; a recipe holds {MODEL_FILE} and {TASK_FILE}")
    model = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = model.build()
    except Exception as error:
        raise ConfigurationError(f"{path}: building the model failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ConfigurationError(f"{path}: build() must return a torch.nn.Module, it returned {type(module).__name__}")
    return module


def _check_parameters(module: nn.Module, path: Path) -> None:
    for name, value in module.named_parameters():
        if value.dtype != torch.float32 or not value.requires_grad:
            raise ConfigurationError(
                f"{path}: parameter {name!r} is {value.dtype}, requires_grad={value.requires_grad};"
                " every parameter must be a trainable float32 tensor"
            )


def _check_shapes(module: nn.Module, task: TaskFile, path: Path) -> None:
    shape = [PROBE_ROWS, *task.input.shape]
    module.eval()
    try:
        with torch.no_grad():
            scores = module(torch.zeros(shape))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{path}: input.shape {task.input.shape} doesn't fit the module: {str(error).splitlines()[0]}"
        ) from error
    expected = (PROBE_ROWS, task.label.classes)
    if not isinstance(scores, torch.Tensor) or scores.shape != expected:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ConfigurationError(
            f"{path}: label.classes is {task.label.classes}, so the module must turn {tuple(shape)} into {expected};"
            f" it gives {found}"
        )
