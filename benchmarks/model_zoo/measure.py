"""One model of the zoo: exported or the sentence, its exactness, and what a step costs."""

import contextlib
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.model_zoo.blocks import CLASSES
from benchmarks.model_zoo.exactness import Distance, distances, initial_weights, train_with_torch
from benchmarks.model_zoo.models import ZooModel
from benchmarks.step_contest import BATCH, STEPS, medians, ort_rounds, timed, write_artifacts
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import TRAIN_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.task_file import TaskFile

SAMPLES = 64
LEARNING_RATE = 0.02
SEED = 5


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the zoo says of one model. Times are processor time of one thread."""

    refusal: str = ""
    """The sentence, if the model can't be exported."""
    export_seconds: float = 0
    distances: dict[str, Distance | None] = {}
    """See `exactness.distances`."""
    deterministic: bool = False
    """Whether two exports have the same bytes, and two rounds give the same weights."""
    edgeflock_us: float = 0
    torch_us: float = 0
    ort_training_us: float | None = None
    """None where onnxruntime-training can't train the model."""
    times_torch: float = 0
    """How many times as fast as torch eager a step is."""


def measure(model: ZooModel, ort_python: Path | None, rounds: int) -> Measured:
    """Everything about one model; without `ort_python` nothing about onnxruntime-training."""
    recipe = made_recipe(model)
    start = time.process_time()
    try:
        files = bundle_files(recipe, tell=lambda _: None)
    except ConfigurationError as error:
        return Measured(refusal=str(error))
    exported = time.process_time() - start
    again = bundle_files(made_recipe(model), tell=lambda _: None)
    recipe.set_training(True)
    samples = made_samples(model)
    weights = initial_weights(recipe)
    plan = plan_batches(SAMPLES, STEPS, BATCH, SEED)
    rates = Rates(LEARNING_RATE)
    engines = [OnnxStepEngine(content[TRAIN_FILE], 1) for content in (files, again)]
    ends = [engine.train(weights, samples, plan, rates)[0].tobytes() for engine in engines]
    engine, rows = engines[0], list(plan.rows)
    contestants = {
        "edgeflock_us": lambda: timed(lambda: engine.train(weights, samples, plan, rates)),
        "torch_us": lambda: timed(lambda: train_with_torch(recipe, recipe.module, samples, rows, LEARNING_RATE)),
    }
    found = distances(recipe, engine, samples)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        np.savez(folder / "data.npz", weights=weights, inputs=samples.inputs, labels=samples.labels)
        if ort_python and model.label.kind == "class" and not write_artifacts(recipe, ort_python, folder):
            other = stack.enter_context(ort_rounds(ort_python, folder, rounds + 1))
            if next(other, None) is not None:
                contestants["ort_training_us"] = lambda: next(other)
        times = medians(contestants, rounds)
    return Measured(
        export_seconds=round(exported, 2),
        distances=found,
        deterministic=files == again and ends[0] == ends[1],
        edgeflock_us=times["edgeflock_us"],
        torch_us=times["torch_us"],
        ort_training_us=times.get("ort_training_us"),
        times_torch=round(times["torch_us"] / times["edgeflock_us"], 2),
    )


def made_recipe(model: ZooModel) -> Recipe:
    """The model with the same weights every time, learning by plain gradient descent on its inputs as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = model.make()
    low, high = (0.0, model.ids - 1.0) if model.ids else (-9.0, 9.0)
    task = TaskFile(
        task="zoo",
        title="Zoo",
        input=InputSchema(list(model.shape), low, high),
        label=model.label,
        training=TrainingPlan(STEPS, BATCH, LEARNING_RATE),
        update=UpdatePlan(keep_fraction=1.0),
        aggregation=AggregationPlan(buffer_size=1),
        loss="cross_entropy" if model.label.kind == "class" else None,
        trainable=model.trainable,
        scaling=ScalingSettings(inputs="off", targets="off" if model.label.kind == "regression" else None),
    )
    return Recipe(Path(), task, module)


def made_samples(model: ZooModel) -> Samples:
    """Random samples of the model's kind."""
    random = np.random.default_rng(0)
    shape = (SAMPLES, *model.shape)
    inputs = (random.integers(0, model.ids, shape) if model.ids else random.normal(size=shape)).astype(np.float32)
    return Samples(inputs, _labels(model, random))


def _labels(model: ZooModel, random: np.random.Generator) -> NDArray[np.int64] | NDArray[np.float32]:
    values = random.normal(size=(SAMPLES, model.label.outputs)).astype(np.float32)
    if model.label.kind == "class":
        return random.integers(0, CLASSES, SAMPLES)
    return (values > 0).astype(np.float32) if model.label.kind == "multi_label" else values
