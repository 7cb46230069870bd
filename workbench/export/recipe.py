"""Reading a recipe, the folder that a person writes: `model.py` with `build()`, and `task.toml`."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import nn

from fleet_protocol.aggregation_plan import check_aggregation, check_feedback
from fleet_protocol.bundle import (
    Parameter,
    check_label,
)
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import Scaling
from workbench.export.global_seed import seeded, set_seed
from workbench.export.losses import LOSSES, Loss
from workbench.export.moving_buffers import RUNNING_STATISTICS, changing_buffers, parts_with_buffers
from workbench.export.scaling import scaling_of
from workbench.export.task_file import TaskFile
from workbench.export.trainable import EVERYTHING, check_patterns, is_selected
from workbench.recipe_folder import TASK_FILE

MODEL_FILE = "model.py"
PROBE_ROWS = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """A module with its initial weights, and the task it is for."""

    folder: Path
    task: TaskFile
    module: nn.Module

    @property
    def loss(self) -> Loss:
        """The loss that the task names."""
        return LOSSES[self.task.loss_name]

    def row_loss(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """That loss with its settings: one number per row."""
        return self.loss.rows(scores, labels, self.task.loss_settings)

    @property
    def backbone(self) -> str:
        """The name of the submodule that is the backbone; empty without one."""
        return self.task.backbone.module if self.task.backbone else ""

    @property
    def scaling(self) -> Scaling:
        """What the graphs do to inputs and targets.

        Raises:
            ConfigurationError: what the task says of it contradicts itself.
        """
        task = self.task
        name = str(self.folder / TASK_FILE)
        return scaling_of(task.scaling, task.input, task.label, name, has_backbone=bool(task.backbone))

    def trains(self, name: str) -> bool:
        """Whether this parameter trains, or this running statistic moves. The backbone's never do."""
        inside = bool(self.backbone) and name.startswith(f"{self.backbone}.")
        return not inside and is_selected(name, self.task.trainable)

    @property
    def parameters(self) -> list[Parameter]:
        """What the flat weight vector holds: the parameters that train, then the buffers that training changes."""
        trainable = [Parameter(name, list(value.shape)) for name, value in self._trained().items()]
        buffers = self._changing().items()
        return trainable + [Parameter(name, list(value.shape), trainable=False) for name, value in buffers]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Name to initial value of each of `parameters`."""
        return self._trained() | self._changing()

    @property
    def moving_buffers(self) -> set[str]:
        """The buffers that a training step changes."""
        still = RUNNING_STATISTICS if self.task.batch_norm == "frozen" else ()
        return {name for name in self._changing() if name.rpartition(".")[2] not in still}

    def set_training(self, training: bool) -> None:
        """Put the module into training or evaluation mode, layers whose buffers stay as they are in the latter."""
        self.module.train(training)
        for part, buffers in parts_with_buffers(self.module):
            if not self.moving_buffers.issuperset(buffers):
                part.eval()

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self.module.named_parameters() if self.trains(name)}

    def _changing(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in changing_buffers(self.module).items() if self.trains(name)}


def read_recipe(folder: Path) -> Recipe:
    """Read `folder`, build its module with the task's seed, and check that the two fit together.

    Raises:
        ConfigurationError: a file is missing or wrong, or module and task contradict each other.
    """
    path = folder / TASK_FILE
    task = parse_document(_read(path), TaskFile, str(path))
    _check_loss(task, path)
    with seeded(task.seed):
        module = _build(folder / MODEL_FILE, task.seed)
        _check_shapes(module, task, path)  # lazy layers draw their weights when they first run
    _check_parameters(module, folder / MODEL_FILE)
    recipe = Recipe(folder, task, module)
    _check_trainable(recipe, path)
    return recipe


def _check_loss(task: TaskFile, path: Path) -> None:
    check_label(task.label, str(path))
    check_aggregation(task.aggregation, str(path))
    check_feedback(task.update.feedback, task.aggregation, str(path))
    kinds = LOSSES[task.loss_name].label_kinds
    if task.label.kind not in kinds:
        raise ConfigurationError(f"{path}: loss {task.loss_name!r} is for label.kind {' or '.join(kinds)}")
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
            f"{path}: can't be read ({error}); a recipe contains {MODEL_FILE} and {TASK_FILE}"
        ) from error


def _build(path: Path, seed: int) -> nn.Module:
    spec = importlib.util.spec_from_file_location("edgeflock_recipe_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path}: no such file; a recipe holds {MODEL_FILE} and {TASK_FILE}")
    model = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(model)
        set_seed(seed)
        module = model.build()
    except Exception as error:
        raise ConfigurationError(f"{path}: building the model failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ConfigurationError(f"{path}: build() must return a torch.nn.Module, it returned {type(module).__name__}")
    return module


def _check_parameters(module: nn.Module, path: Path) -> None:
    names: dict[nn.Parameter, str] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        if (first := names.setdefault(value, name)) != name:
            raise ConfigurationError(
                f"{path}: parameters {first!r} and {name!r} are one tensor under two names; keep one of them and"
                " use it twice in forward()"
            )
    for name, value in module.named_parameters():
        if value.dtype != torch.float32 or not value.requires_grad:
            raise ConfigurationError(
                f"{path}: parameter {name!r} is {value.dtype}, requires_grad={value.requires_grad};"
                " every parameter must be a trainable float32 tensor; task.toml says which ones train"
            )


def _check_trainable(recipe: Recipe, path: Path) -> None:
    everything = msgspec.structs.replace(recipe.task, trainable=(EVERYTHING,))
    names = [parameter.name for parameter in replace(recipe, task=everything).parameters]
    outside = f" outside of the backbone {recipe.backbone!r}" if recipe.backbone else ""
    check_patterns(names, recipe.task.trainable, outside, str(path))


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
    if task.backbone and not task.label.outputs:
        return  # the head then gives back features, whose shape isn't known yet
    expected = (PROBE_ROWS, task.label.outputs) if task.label.outputs else tuple(shape)
    if not isinstance(scores, torch.Tensor) or scores.shape != expected:
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        key = {"regression": "values", "reconstruction": "kind"}.get(task.label.kind, "classes")
        raise ConfigurationError(
            f"{path}: label.{key} is {getattr(task.label, key)}, so the module must turn {tuple(shape)} into"
            f" {expected}; it gives {found}"
        )
