"""Every export is compared with torch: prediction, evaluation and training steps, in full, padded and single batches.

Training is compared step by step: torch takes its step from what the graph carried into it, so that differences don't
grow from step to step, and whatever the graph carries out of it is compared: weights, optimiser state, buffers and
the losses of the rows. A difference beyond what rounding explains (`torch_reference`) stops the export.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor

from bundle_runtime.graph import native
from bundle_runtime.samples import Samples
from fleet_protocol.bundle_files import (
    BACKBONE_FILE,
    EVALUATE_FILE,
    PREDICT_FILE,
    SAMPLE_GRADIENTS_FILE,
    TRAIN_FILE,
    TRAIN_PER_SAMPLE_FILE,
)
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench.export.backbone.backbone import Split
from workbench.export.conversion.diagnosis import FREE_BATCH
from workbench.export.graphs.flat_weights import join
from workbench.export.graphs.gradients import evaluation, prediction, sample_gradients
from workbench.export.graphs.sample_gradients import gradient_inputs
from workbench.export.graphs.training_graph import step_function, step_inputs
from workbench.export.recipe.recipe import Recipe
from workbench.export.trials.compared_steps import (
    SCALES,
    SEED,
    STEPS,
    Steps,
    batch_kinds,
    samples_fed,
    session_of,
    with_everything_carried,
)
from workbench.export.trials.compared_values import ONE, Difference, first_difference
from workbench.export.trials.differing_module import differing_module
from workbench.export.trials.random_samples import random_samples

MOST_ROWS = 16
"""Of a batch that is compared; a plan's may be larger, but takes longer."""
DRAWS = 3
"""Sets of random samples."""


def check_against_torch(
    recipe: Recipe, models: Mapping[str, ModelProto], task: TaskDescription, features: Callable[[Samples], Samples]
) -> None:
    """Compare the graphs of a recipe, or of its head on `features`, with torch on random samples of `task`.

    Raises:
        ConfigurationError: naming the submodule at fault, by how much it differs, and a remedy.
    """
    draws = [features(random_samples(task, seed)).take(slice(0, 2 * MOST_ROWS)) for seed in range(DRAWS)]
    for file, model in models.items():
        if (check := _CHECKS.get(file)) is None:
            continue
        recipe.set_training(file in (TRAIN_FILE, TRAIN_PER_SAMPLE_FILE, SAMPLE_GRADIENTS_FILE))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a model may print
                difference = check(recipe, file, model, draws)
        except (native.Fail, native.InvalidArgument, native.RuntimeException) as error:
            said = str(error).strip().partition("\n")[0]
            raise ConfigurationError(f"{file}: {FREE_BATCH[0]}; {FREE_BATCH[1]} ({said})") from error
        if difference is not None:
            raise _refusal(recipe, difference, draws[0])


def check_backbone(halves: Split, model: ModelProto, task: TaskDescription) -> None:
    """Compare the graph of a backbone in float32 with torch, on random samples of `task`.

    Raises:
        ConfigurationError: as `check_against_torch`.
    """

    def features(inputs: Tensor) -> tuple[Tensor, ...]:
        return (halves.features(inputs),)

    halves.whole.set_training(False)
    session = session_of(model)
    for seed, rows in enumerate((MOST_ROWS, 1)):
        samples = random_samples(task, seed).take(slice(0, rows))
        found = session.run(None, {"inputs": samples.inputs})
        inputs = [torch.from_numpy(samples.inputs)]
        batch = "a full batch" if rows > 1 else ONE
        difference = first_difference(BACKBONE_FILE, batch, ["features"], found, features, inputs)
        if difference is not None:
            raise _refusal(halves.whole, difference, samples)


def _refusal(recipe: Recipe, difference: Difference, samples: Samples) -> ConfigurationError:
    place, remedy = differing_module(recipe.module, torch.from_numpy(samples.inputs[:MOST_ROWS]))
    return ConfigurationError(f"{difference}; {place}; {remedy}")


def _check_inference(recipe: Recipe, file: str, model: ModelProto, draws: Sequence[Samples]) -> Difference | None:
    session = session_of(model)
    names = [entry.name for entry in session.get_inputs() if entry.name not in SCALES]
    function = evaluation(recipe, names) if file == EVALUATE_FILE else prediction(recipe)
    outputs = [entry.name for entry in session.get_outputs()]
    weights = join(list(recipe.tensors.values())).numpy()
    for number, samples in enumerate(draws):
        rows = slice(0, 1 if number == 1 else MOST_ROWS)
        feeds = samples_fed(session, samples.take(rows)) | {"weights": weights}
        found = session.run(None, {name: value for name, value in feeds.items() if name in names or name in SCALES})
        inputs = [torch.from_numpy(feeds[name]) for name in names]
        batch = ONE if number == 1 else "a full batch"
        difference = first_difference(file, batch, outputs, found, function, inputs)
        if difference is not None:
            return difference
    return None


def _check_training(recipe: Recipe, file: str, model: ModelProto, draws: Sequence[Samples]) -> Difference | None:
    per_sample = file == TRAIN_PER_SAMPLE_FILE
    size = recipe.task.training.batch_size
    rows = size if per_sample else min(size, MOST_ROWS)
    names = [entry.name for entry in step_inputs(recipe, per_sample=per_sample)]
    session = session_of(with_everything_carried(model, names))
    function = step_function(recipe, names, per_sample=per_sample)
    for kind in batch_kinds(rows, fixed=per_sample):
        steps = Steps(recipe, session, names, draws[kind.draw], kind)
        for step in range(STEPS):
            difference = steps.difference(file, function, step)
            if difference is not None:
                return _with_parameter_named(recipe, difference)
    return None


def _check_gradients(recipe: Recipe, file: str, model: ModelProto, draws: Sequence[Samples]) -> Difference | None:
    session = session_of(model)
    taken = {entry.name for entry in session.get_inputs()}
    names = [entry.name for entry in gradient_inputs(recipe)]
    rows = recipe.task.training.batch_size
    known = {"weights": join(list(recipe.tensors.values())).numpy(), "seed": np.array(SEED, np.int64)}
    for samples in draws:
        feeds = samples_fed(session, samples.take(np.arange(rows) % len(samples))) | known
        found = session.run(None, {name: value for name, value in feeds.items() if name in taken})
        inputs = [torch.from_numpy(feeds[name]) for name in names if name in feeds]
        function = sample_gradients(recipe, [name for name in names if name in feeds])
        difference = first_difference(file, "a full batch", ["gradients"], found, function, inputs)
        if difference is not None:
            return difference
    return None


def _with_parameter_named(recipe: Recipe, difference: Difference) -> Difference:
    """The same, with the parameter that the worst of the flat weights belongs to."""
    if difference.value != "weights" or difference.place is None:
        return difference
    end = 0
    for parameter in recipe.parameters:
        end += parameter.size
        if difference.place < end:
            return replace(difference, value=f"the parameter {parameter.name!r}")
    return difference


_CHECKS = {
    TRAIN_FILE: _check_training,
    TRAIN_PER_SAMPLE_FILE: _check_training,
    SAMPLE_GRADIENTS_FILE: _check_gradients,
    EVALUATE_FILE: _check_inference,
    PREDICT_FILE: _check_inference,
}
