"""Writing a recipe as a task bundle: three graphs, the initial weights, and the description that binds them."""

from functools import partial
from pathlib import Path

import msgspec
import onnx
from onnx import GraphProto, ModelProto, helper
from safetensors.torch import save

from fleet_protocol.bundle import (
    BUNDLE_FORMAT,
    DESCRIPTION_FILE,
    EVALUATE_FILE,
    PREDICT_FILE,
    TRAIN_FILE,
    TRAIN_PER_SAMPLE_FILE,
    WEIGHTS_FILE,
    TaskDescription,
    blob_hash,
    parse_description,
    verify_bundle,
)
from fleet_protocol.errors import ConfigurationError
from workbench.export.inference_graphs import evaluation_graph, prediction_graph
from workbench.export.onnx_conversion import IR_VERSION, OPSET
from workbench.export.recipe import Recipe, read_recipe
from workbench.export.training_graph import training_graph
from workbench.export.unexportable import explained
from workbench.recipe_folder import TASK_FILE


def export_bundle(recipe_folder: Path, out: Path) -> TaskDescription:
    """Export the recipe in `recipe_folder` into `out`, which is made if need be; files of the same name are replaced.

    The same recipe gives the same bytes.

    Raises:
        ConfigurationError: the recipe is wrong, holds what ONNX can't express, or `out` can't be written.
    """
    recipe = read_recipe(recipe_folder)
    files = bundle_files(recipe)
    description = verify_bundle(files)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{out}: can't be written: {error.strerror}; choose another --out") from error
    return description


def bundle_files(recipe: Recipe) -> dict[str, bytes]:
    """Name to content of every file of the bundle, `task.json` last: without it a folder is no bundle.

    Raises:
        ConfigurationError: the model holds what ONNX can't express, or exceeds a limit.
    """
    files = {name: model.SerializeToString(deterministic=True) for name, model in _models(recipe).items()}
    files[WEIGHTS_FILE] = save(recipe.tensors)
    description = TaskDescription(
        format=BUNDLE_FORMAT,
        task=recipe.task.task,
        title=recipe.task.title,
        input=recipe.task.input,
        label=recipe.task.label,
        parameters=recipe.parameters,
        training=recipe.task.training,
        update=recipe.task.update,
        aggregation=recipe.task.aggregation,
        downlink=recipe.task.downlink,
        files={name: blob_hash(content) for name, content in files.items()},
    )
    text = msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"
    parse_description(text, str(recipe.folder / TASK_FILE))  # so that a broken limit is reported where it can be mended
    return {**files, DESCRIPTION_FILE: text}


def _models(recipe: Recipe) -> dict[str, ModelProto]:
    """File name to checked model. Training sees the module in training mode, the others in evaluation mode."""
    makers = {TRAIN_FILE: training_graph, EVALUATE_FILE: evaluation_graph, PREDICT_FILE: prediction_graph}
    if recipe.task.training.per_sample_gradients:
        makers[TRAIN_PER_SAMPLE_FILE] = partial(training_graph, per_sample=True)
    models = {}
    for file, make in makers.items():
        recipe.set_training(file in (TRAIN_FILE, TRAIN_PER_SAMPLE_FILE))
        with explained(file, recipe.module, recipe.task.input.shape):
            models[file] = checked_model(make(recipe))
    return models


def checked_model(graph: GraphProto) -> ModelProto:
    """A graph as a model of our opset, if it is a valid one."""
    model = helper.make_model(
        graph,
        producer_name="edgeflock",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return model
