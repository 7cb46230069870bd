"""Writing a recipe as a task bundle: its graphs, the initial weights, and the description that binds them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from onnx import ModelProto
from safetensors.torch import save
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from bundle_runtime.bundle import written
from bundle_runtime.graph_admission import GraphRefusedError, check_graph
from bundle_runtime.runner import BundleRunner
from fleet_protocol.bundle import parse_description, verify_bundle
from fleet_protocol.bundle_files import (
    BACKBONE_FILE,
    DESCRIPTION_FILE,
    DRAW_FILE,
    EVALUATE_FILE,
    KEY_HOLDER_FILE,
    PLAIN_FILE,
    PREDICT_FILE,
    SAMPLE_GRADIENTS_FILE,
    TRAIN_FILE,
    TRAIN_PER_SAMPLE_FILE,
    WEIGHTS_FILE,
)
from fleet_protocol.errors import ConfigurationError, ProtocolError, why_unreadable
from fleet_protocol.keys import read_verify_key
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.encryption_key import read_encryption_key
from workbench.export.backbone.backbone import Split, backbone_graph, split
from workbench.export.blocks.block_costs import with_costs
from workbench.export.blocks.block_graphs import block_models
from workbench.export.blocks.division import Division, divide
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.conversion.unexportable import explained
from workbench.export.graphs.inference_graphs import drawing_graph, evaluation_graph, prediction_graph
from workbench.export.graphs.plain_graph import plain_graph
from workbench.export.graphs.sample_gradients import sample_gradients_graph
from workbench.export.graphs.training_graph import training_graph
from workbench.export.ort_training import ort_training_files
from workbench.export.recipe.probe import probe_inputs
from workbench.export.recipe.recipe import Change, Recipe, read_recipe, unchanged
from workbench.export.task_description import described
from workbench.export.trials.found_rate import with_learning_rate
from workbench.export.trials.linear_head import check_linear_head
from workbench.export.trials.random_samples import random_samples
from workbench.export.trials.torch_comparison import check_against_torch, check_backbone
from workbench.recipe_folder import TASK_FILE

FEW_CLASSES = (
    "batch normalisation: a device normalises by its own samples; where devices see few classes, GroupNorm learns more"
    " (docs/decisions/statistics-travel-apart.md)"
)
Tell = Callable[[str], None]
"""Called with a sentence for people."""


def export_bundle(
    recipe_folder: Path,
    out: Path,
    ort_training: Path | None = None,
    *,
    data: Path | None = None,
    weights: Path | None = None,
    tell: Tell = print,
    change: Change = unchanged,
) -> TaskDescription:
    """Export the recipe in `recipe_folder` into `out`, which is made if need be; files of the same name are replaced.

    The same recipe gives the same bytes. `ort_training` is a Python that makes the artifacts of that engine; `data` are
    samples to find a missing learning rate on, instead of random ones; `weights` are those to begin with, in place of
    what the recipe draws; `tell` hears what was found; `change` is made to what its task.toml says.

    Raises:
        ConfigurationError: the recipe is wrong, contains what ONNX can't express, or `out` can't be written.
    """
    recipe = read_recipe(recipe_folder, change, weights)
    files = bundle_files(recipe, ort_training, data=data, tell=tell)
    description = verify_bundle(files)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
    return description


def bundle_files(
    recipe: Recipe, ort_training: Path | None = None, *, data: Path | None = None, tell: Tell = print
) -> dict[str, bytes]:
    """Name to content of every file of the bundle, `task.json` last: without it a folder is no bundle.

    Raises:
        ConfigurationError: the model contains what ONNX can't express, or exceeds a limit.
    """
    halves = split(recipe) if recipe.task.backbone else None
    models = _backbone_model(halves) | _models(halves.head) if halves else _models(recipe)
    if recipe.given is not None:
        models[BACKBONE_FILE] = recipe.given.model
    trained = halves.head if halves else recipe
    division = _division(trained)
    models |= _block_models(division) if division else {}
    files = {name: admitted(name, model) for name, model in models.items()}
    if ort_training is not None:
        files |= ort_training_files(trained, ort_training)
    files[WEIGHTS_FILE] = save({name: value.contiguous() for name, value in recipe.tensors.items()})
    files |= key_holder_file(recipe)
    description = described(recipe, models, files, halves=halves, division=division)
    if any(isinstance(part, BatchNorm) for part in recipe.module.modules()) and description.statistics:
        tell(FEW_CLASSES)
    featured = BundleRunner(description, files).featured
    if halves is not None and not halves.is_quantised:
        check_backbone(halves, models[BACKBONE_FILE], description)
    check_against_torch(trained, models, description, featured)
    check_linear_head(description, files, str(recipe.folder / TASK_FILE))
    if division:
        description = with_costs(description, division, files, featured(random_samples(description)))
    if not description.training.learning_rate:
        description = with_learning_rate(description, files, data, tell)
    text = written(description)
    parse_description(text, str(recipe.folder / TASK_FILE))  # reports an exceeded limit where it can be corrected
    return {**files, DESCRIPTION_FILE: text}


def admitted(name: str, model: ModelProto) -> bytes:
    """A graph's file, which devices load.

    Raises:
        ConfigurationError: it has what they refuse.
    """
    data = bytes(model.SerializeToString(deterministic=True))
    try:
        check_graph(name, data)
    except GraphRefusedError as error:
        raise ConfigurationError(
            f"{name} {error}; no device would load it: write the model without that, or make the model smaller"
        ) from error
    return data


def key_holder_file(recipe: Recipe) -> dict[str, bytes]:
    """The encryption key of the task's key holder, by its name in the bundle; empty where updates are not encrypted.

    Raises:
        ConfigurationError: the recipe's folder lacks it, or it is not the key holder's.
    """
    masks = recipe.task.privacy.masks if recipe.task.privacy else None
    if masks is None or masks.key_holder is None or masks.key_holder not in masks.helpers:
        return {}  # a key holder that is no helper is refused with the rest of the table
    path = recipe.folder / KEY_HOLDER_FILE
    remedy = f"write it with `edgeflock-helper encryption-key` on {masks.key_holder}"
    mask_key = read_verify_key(
        masks.helpers[masks.key_holder], "[privacy.masks] helpers", "`edgeflock-helper mask-key`"
    )
    try:
        content = path.read_bytes()
        read_encryption_key(content, mask_key)
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, remedy)}") from error
    except ProtocolError as error:
        raise ConfigurationError(f"{path}: {error.detail}; {remedy}") from error
    return {KEY_HOLDER_FILE: content}


def _models(recipe: Recipe) -> dict[str, ModelProto]:
    """File name to checked model. Training sees the module in training mode, the others in evaluation mode."""
    makers = {TRAIN_FILE: training_graph, EVALUATE_FILE: evaluation_graph, PREDICT_FILE: prediction_graph}
    if recipe.task.training.per_sample_gradients:
        makers[TRAIN_PER_SAMPLE_FILE] = partial(training_graph, per_sample=True)
    if recipe.task.privacy is not None and recipe.task.privacy.samples is not None:
        makers[SAMPLE_GRADIENTS_FILE] = sample_gradients_graph
    if recipe.task.drawing is not None:
        makers[DRAW_FILE] = partial(drawing_graph, plan=recipe.task.drawing)
    if recipe.task.compression is not None:
        makers[PLAIN_FILE] = plain_graph
    models = {}
    for file, make in makers.items():
        recipe.set_training(file in (TRAIN_FILE, TRAIN_PER_SAMPLE_FILE, SAMPLE_GRADIENTS_FILE))
        with explained(file, recipe.module, probe_inputs(recipe.task, 1)):
            models[file] = checked_model(make(recipe))
    return models


def _division(recipe: Recipe) -> Division | None:
    """Into the blocks that `task.toml` asks for, if it does."""
    if recipe.task.split is None:
        return None
    with explained("split", recipe.module, probe_inputs(recipe.task, 1)):
        return divide(recipe, recipe.task.split.points)


def _block_models(division: Division) -> dict[str, ModelProto]:
    with explained("split", division.recipe.module, probe_inputs(division.recipe.task, 1)):
        return dict(block_models(division))


def _backbone_model(halves: Split) -> dict[str, ModelProto]:
    with explained(BACKBONE_FILE, halves.whole.module, probe_inputs(halves.whole.task, 1)):
        return {BACKBONE_FILE: checked_model(backbone_graph(halves))}
