"""Reading a recipe, the folder that a person writes: `model.py` with `build()`, and `task.toml`."""

import importlib.util
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import msgspec
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from fleet_protocol.sample_schema import inputs_as_one, labels_as_one
from fleet_protocol.scaling import Scaling
from workbench.export.layers.moving_buffers import RUNNING_STATISTICS, changing_buffers, parts_with_buffers
from workbench.export.recipe.compression.compressed import compress
from workbench.export.recipe.drawing import check_draws
from workbench.export.recipe.given_backbone import GivenBackbone, read_given_backbone
from workbench.export.recipe.given_weights import take_weights
from workbench.export.recipe.global_seed import seeded, set_seed
from workbench.export.recipe.importing import importable
from workbench.export.recipe.model_checks import (
    check_build,
    check_module,
    check_shapes,
    check_size,
    check_takes_part,
    names_of_parameters,
)
from workbench.export.recipe.model_code import model_code
from workbench.export.recipe.named_inputs import take_rows
from workbench.export.recipe.objective import Objective
from workbench.export.recipe.own_loss import OwnLoss, own_losses
from workbench.export.recipe.posterior import with_usual_posterior
from workbench.export.recipe.probe import extreme_inputs, probe_inputs
from workbench.export.recipe.recipe_checks import check_parts, check_task
from workbench.export.recipe.recipe_probe import probe
from workbench.export.recipe.repeated_runs import check_repeats
from workbench.export.recipe.scaling import scaling_of
from workbench.export.recipe.task_file import TaskFile
from workbench.export.recipe.trainable import EVERYTHING, check_patterns, is_selected
from workbench.recipe_folder import TASK_FILE

MODEL_FILE = "model.py"
RATE_OF_PARTS = 0.5
"""Of the server, for parts that follow each other: a version is of half of the devices that train at one time, and
moves half as far as they say (docs/decisions/half-a-fleet-moves-a-pair-half-way.md)."""


Change = Callable[[TaskFile], TaskFile]
"""What somebody wants otherwise than task.toml says it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A module with its initial weights, the task it is for, and its losses where these are in model.py.

    Where the task has several inputs, the module takes their row (`named_inputs`). Behind a backbone that is `given` as
    a file, task and module are those of the head.
    """

    folder: Path
    task: TaskFile
    module: nn.Module
    own_losses: Mapping[str, OwnLoss] = field(default_factory=dict)
    given: GivenBackbone | None = None

    @property
    def objective(self) -> Objective:
        """What training minimises."""
        return Objective.of(self.task, self.own_losses)

    @property
    def backbone(self) -> str:
        """The name of the submodule that is the backbone; empty without one."""
        return self.task.backbone.module if self.task.backbone else ""

    @property
    def scaling(self) -> Scaling:
        """What the graphs do to inputs and targets."""
        return _scaling(self.task, self.folder / TASK_FILE)

    def trains(self, name: str) -> bool:
        """Whether this parameter trains, or this running statistic moves. The backbone's never do."""
        inside = bool(self.backbone) and name.startswith(f"{self.backbone}.")
        return not inside and is_selected(name, self.task.trainable)

    def names_in(self, part: str) -> frozenset[str]:
        """The parameters of a part that trains in turn with others."""
        return frozenset(name for name in self._trained() if is_selected(name, self.task.parts[part].parameters))

    @property
    def parameters(self) -> list[Parameter]:
        """What the flat weight vector holds: the parameters that train, then the buffers that training changes."""
        trainable = [Parameter(name, list(value.shape)) for name, value in self._trained().items()]
        buffers = self._changing().items()
        return trainable + [Parameter(name, list(value.shape), trainable=False) for name, value in buffers]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Name to initial value of each of `parameters`."""
        trained = {name: value.detach() for name, value in self._trained().items()}
        return trained | self._changing()

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

    def _trained(self) -> dict[str, nn.Parameter]:
        """As the module has them: names and shapes are asked for while graphs are traced, where operators cost."""
        names = names_of_parameters(self.module)
        values = dict(self.module.named_parameters())
        return {first: values[first] for first, each in names.items() if any(map(self.trains, each))}

    def _changing(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in changing_buffers(self.module).items() if self.trains(name)}


def unchanged(task: TaskFile) -> TaskFile:
    """The task as its file says it."""
    return task


def read_recipe(folder: Path, change: Change = unchanged, weights: Path | None = None) -> Recipe:
    """Read `folder`, make the `change`, build its module with the task's seed, and check that the two fit together.
    `weights` are a file of those to begin with.

    Raises:
        ConfigurationError: a file is missing or wrong, or module and task contradict each other.
    """
    path, model_path = folder / TASK_FILE, folder / MODEL_FILE
    text = _read(path)
    said = change(parse_document(text, TaskFile, str(path)))
    task = _with_rows(with_usual_posterior(_with_usual_aggregation(said, text), text, path), path)
    given = None
    if task.backbone is not None and task.backbone.onnx:
        given = read_given_backbone(folder / task.backbone.onnx, task.input)
        task = given.task_behind(task)
    with seeded(task.seed):  # lazy layers draw their weights when they first run, in the probe
        model = _load(model_path)
        module = _build(model, model_path, task.seed)
        check_module(module, task.backbone.module if task.backbone else "", model_path)
        if task.inputs:
            take_rows(module, task.inputs, model_path)
        has_labels = bool(task.label.size)
        own = own_losses(model, model_path, task.parts, has_labels=has_labels) if task.has_own_loss else {}
        recipe = Recipe(folder, task, module, own, given)
        probe(module, recipe.objective, task, model_path, path)
        check_shapes(module, model_path)
        if weights is not None:
            take_weights(module, weights)
        if task.compression is not None:
            compress(module, task.compression, recipe.trains, task.seed, path)
        _check_trainable(recipe, path)
        _check_runs(recipe, model_path)
        scaled = recipe.scaling.inputs is not None
        check_draws(module, task, scaled=scaled, model=model_path, path=path)
    return recipe


def _with_usual_aggregation(task: TaskFile, text: str) -> TaskFile:
    """The task as read from `text`; what that does not say of its aggregation is as usual for devices that wait for a
    helper, and for parts that follow each other.
    """
    said, plan = tomllib.loads(text).get("aggregation", {}), task.aggregation
    if task.split is not None and "strategy" not in said:
        plan = msgspec.structs.replace(plan, strategy="base_mean")
    if task.parts and task.gossip is None and "server_learning_rate" not in said and plan.strategy != "fedavg":
        plan = msgspec.structs.replace(plan, server_learning_rate=RATE_OF_PARTS)
    return msgspec.structs.replace(task, aggregation=plan)


def _with_rows(task: TaskFile, path: Path) -> TaskFile:
    """The checked task with the rows of several inputs or heads, or what its readings make, in place of one."""
    check_task(task, path)
    if task.readings is not None:
        task = msgspec.structs.replace(task, input=task.readings.input)
    _scaling(task, path)  # where it contradicts the task, that is told now
    if task.inputs:
        task = msgspec.structs.replace(task, input=inputs_as_one(task.inputs))
    return msgspec.structs.replace(task, label=labels_as_one(task.each_label)) if task.heads else task


def _scaling(task: TaskFile, path: Path) -> Scaling:
    """That of a task; `path` is its file.

    Raises:
        ConfigurationError: what it says of scales contradicts the rest.
    """
    return scaling_of(task.scaling, task.each_input, task.each_label, str(path), has_backbone=bool(task.backbone))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: can't be read ({error}); a recipe contains {MODEL_FILE} and {TASK_FILE}"
        ) from error


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("edgeflock_recipe_model", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigurationError(f"{path}: no such file; a recipe holds {MODEL_FILE} and {TASK_FILE}")
    model = importlib.util.module_from_spec(spec)
    with model_code(path, "building the model"), importable(model, path.parent):
        spec.loader.exec_module(model)
    return model


def _build(model: ModuleType, path: Path, seed: int) -> nn.Module:
    with model_code(path, "building the model"), importable(model, path.parent):
        set_seed(seed)
        module = check_build(model, path)()
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
    check_parts(recipe.task, [each.name for each in recipe.parameters if each.trainable], path)
    quantised = recipe.task.backbone is not None and recipe.task.backbone.quantise is not None
    check_size(recipe.module, recipe.parameters, path, quantised=quantised)


def _check_runs(recipe: Recipe, path: Path) -> None:
    """Check that forward() can be differentiated, and gives the same twice; `path` is the model's file."""
    values = dict(recipe.module.named_parameters())
    trained = [values[parameter.name] for parameter in recipe.parameters if parameter.trainable]
    with model_code(path, "forward() and its backward pass"), torch.enable_grad():
        outputs = recipe.module(probe_inputs(recipe.task))
        check_takes_part([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)], trained, path)
    recipe.set_training(True)
    with model_code(path, "forward()"):
        check_repeats(recipe.module, extreme_inputs(recipe.task)["input.maximum"], path)
    recipe.module.eval()
