"""Reading a recipe, the folder that a person writes: `model.py` with `build()`, and `task.toml`."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fleet_protocol.aggregation_plan import check_aggregation, check_feedback
from fleet_protocol.bundle import (
    Parameter,
    check_label,
)
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import Scaling
from workbench.export.importing import importable
from workbench.export.losses import LOSSES, Loss
from workbench.export.model_checks import check_module, check_size, check_takes_part, names_of_parameters
from workbench.export.model_code import model_code
from workbench.export.moving_buffers import RUNNING_STATISTICS, changing_buffers, parts_with_buffers
from workbench.export.probe import PROBE_ROWS, OperatorLimit, extreme_inputs, probe_inputs
from workbench.export.scaling import scaling_of
from workbench.export.task_file import TaskFile
from workbench.export.trainable import EVERYTHING, check_patterns, is_selected
from workbench.recipe_folder import TASK_FILE

MODEL_FILE = "model.py"


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
        names = names_of_parameters(self.module)
        values = dict(self.module.named_parameters())
        return {first: values[first].detach() for first, each in names.items() if any(map(self.trains, each))}

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
    module = _build(folder / MODEL_FILE, task.seed)
    check_module(module, task.backbone.module if task.backbone else "", folder / MODEL_FILE)
    _check_shapes(module, task, path)
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
    with model_code(path, "building the model"), importable(model, path.parent):
        spec.loader.exec_module(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = model.build()
    if not isinstance(module, nn.Module):
        raise ConfigurationError(f"{path}: build() must return a torch.nn.Module, it returned {type(module).__name__}")
    return module


def _check_trainable(recipe: Recipe, path: Path) -> None:
    everything = msgspec.structs.replace(recipe.task, trainable=(EVERYTHING,))
    aliases = names_of_parameters(recipe.module)
    found = [parameter.name for parameter in replace(recipe, task=everything).parameters]
    names = [name for first in found for name in aliases.get(first, [first])]
    outside = f" outside of the backbone {recipe.backbone!r}" if recipe.backbone else ""
    check_patterns(names, recipe.task.trainable, outside, str(path))
    quantised = recipe.task.backbone is not None and recipe.task.backbone.quantise is not None
    check_size(recipe.module, recipe.parameters, path, quantised=quantised)
    model = recipe.folder / MODEL_FILE
    with model_code(model, "forward()"):
        outputs = recipe.module(probe_inputs(recipe.task.input))
    values = dict(recipe.module.named_parameters())
    trained = [values[parameter.name] for parameter in recipe.parameters if parameter.trainable]
    check_takes_part([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)], trained, model)


def _check_shapes(module: nn.Module, task: TaskFile, path: Path) -> None:
    shape = [PROBE_ROWS, *task.input.shape]
    fits = f"input.shape {task.input.shape}, input.minimum and input.maximum in {path.name} must fit what it takes"
    module.eval()
    with torch.no_grad():
        for name, inputs in extreme_inputs(task.input).items():
            what = f"forward() of f32{shape}, full of {name},"
            with model_code(path.with_name(MODEL_FILE), what, fits), OperatorLimit():
                scores = module(inputs)
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
