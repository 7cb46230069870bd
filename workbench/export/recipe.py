"""Reading a recipe, the folder that a person writes: `model.py` with `build()`, and `task.toml`."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from fleet_protocol.bundle import (
    AggregationPlan,
    DownlinkPlan,
    InputSchema,
    LabelKind,
    LabelSchema,
    Parameter,
    TrainingPlan,
    UpdatePlan,
    check_label,
)
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from workbench.export.exportable_layers import changing_buffers
from workbench.export.losses import LOSSES, Loss, LossSettings
from workbench.recipe_folder import TASK_FILE

MODEL_FILE = "model.py"
PROBE_ROWS = 2
USUAL_LOSSES: dict[LabelKind, str] = {
    "class": "cross_entropy",
    "multi_label": "binary_cross_entropy",
    "regression": "mean_squared_error",
    "reconstruction": "mean_squared_error",
}


class TaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `task.toml`: the task description without what the export finds out by itself.

    `seed` fixes the initial weights. `loss` is a key of `LOSSES`; left out, it is the usual one for the kind of label.
    `batch_norm` "frozen" normalises with the running statistics in training too, and leaves them as they are.
    """

    task: str
    title: str
    input: InputSchema
    label: LabelSchema
    training: TrainingPlan
    update: UpdatePlan
    aggregation: AggregationPlan
    downlink: DownlinkPlan = DownlinkPlan()
    loss: str = ""
    loss_settings: LossSettings = LossSettings()
    batch_norm: Literal["train", "frozen"] = "train"
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

    def row_loss(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """That loss with its settings: one number per row."""
        return self.loss.rows(scores, labels, self.task.loss_settings)

    @property
    def parameters(self) -> list[Parameter]:
        """What the flat weight vector holds: the module's parameters, then the buffers that training changes."""
        trainable = [Parameter(name, list(value.shape)) for name, value in self.module.named_parameters()]
        buffers = changing_buffers(self.module).items()
        return trainable + [Parameter(name, list(value.shape), trainable=False) for name, value in buffers]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Name to initial value of each of `parameters`."""
        return {name: value.detach() for name, value in self.module.named_parameters()} | changing_buffers(self.module)

    def set_training(self, training: bool) -> None:
        """Put the module into training or evaluation mode, batch normalisation as the task says."""
        self.module.train(training)
        for part in self.module.modules():
            if self.task.batch_norm == "frozen" and isinstance(part, BatchNorm):
                part.eval()


def read_recipe(folder: Path) -> Recipe:
    """Read `folder`, build its module with the task's seed, and check that the two fit together.

    Raises:
        ConfigurationError: a file is missing or wrong, or module and task contradict each other.
    """
    path = folder / TASK_FILE
    task = parse_document(_read(path), TaskFile, str(path))
    task = msgspec.structs.replace(task, loss=task.loss or USUAL_LOSSES[task.label.kind])
    _check_loss(task, path)
    module = _build(folder / MODEL_FILE, task.seed)
    _check_parameters(module, folder / MODEL_FILE)
    _check_shapes(module, task, path)
    return Recipe(folder, task, module)


def _check_loss(task: TaskFile, path: Path) -> None:
    check_label(task.label, str(path))
    if task.loss not in LOSSES:
        raise ConfigurationError(f"{path}: loss {task.loss!r} is unknown; choose one of {', '.join(sorted(LOSSES))}")
    kinds = LOSSES[task.loss].label_kinds
    if task.label.kind not in kinds:
        raise ConfigurationError(f"{path}: loss {task.loss!r} is for label.kind {' or '.join(kinds)}")
    weights = len(task.loss_settings.class_weights)
    if weights not in (0, task.label.classes):
        raise ConfigurationError(
            f"{path}: loss_settings.class_weights has {weights} entries;"
            f" give one for each of {task.label.classes} classes"
        )


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
    expected = (PROBE_ROWS, task.label.outputs) if task.label.outputs else tuple(shape)
    if not isinstance(scores, torch.Tensor) or scores.shape != expected:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        key = {"regression": "values", "reconstruction": "kind"}.get(task.label.kind, "classes")
        raise ConfigurationError(
            f"{path}: label.{key} is {getattr(task.label, key)}, so the module must turn {tuple(shape)} into"
            f" {expected}; it gives {found}"
        )
