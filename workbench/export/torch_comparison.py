"""Every export is compared with torch: prediction, evaluation and training steps, in full, padded and single batches.

Training is compared step by step: torch takes its step from what the graph carried into it, so that differences don't
grow from step to step, and whatever the graph carries out of it is compared: weights, optimiser state, buffers and
the losses of the rows. A difference beyond what rounding explains (`torch_reference`) stops the export.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from torch import Tensor

from bundle_runtime.samples import Samples
from bundle_runtime.scale_feeds import SCALE_INPUTS
from fleet_protocol.bundle import EVALUATE_FILE, PREDICT_FILE, TRAIN_FILE, TRAIN_PER_SAMPLE_FILE, TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import MOST_DEVIATIONS
from workbench.export.differing_module import differing_module
from workbench.export.flat_weights import join
from workbench.export.gradients import STATE, evaluation, prediction
from workbench.export.random_samples import random_samples
from workbench.export.recipe import Recipe
from workbench.export.torch_reference import FEW_RUNS, MANY_RUNS, Function, Reference, reference
from workbench.export.training_graph import step_function, step_inputs

MOST_ROWS = 16
"""Of a batch that is compared; a plan's may be larger, but takes longer."""
STEPS = 2
"""The second one starts from an optimiser state that isn't zero."""
LEARNING_RATE = 0.125
SEED = 5
DIVIDING_OPTIMISERS = ("adam", "adamw")
"""They divide a gradient by its size, and so its rounding by the size of that where the gradient is 0."""
FIRST_MOMENT = f"{STATE}0"

Feeds = dict[str, NDArray[np.generic]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BatchKind:
    """A mini-batch of so many rows, the first `real` of which count; `draw` numbers the data that it is from."""

    name: str
    rows: int
    real: int
    draw: int
    padding: int = 0
    """Which sample fills it up."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a graph and torch part: by how much, and how much of it rounding explains."""

    file: str
    batch: str
    value: str
    largest: float
    tolerance: float
    place: int | None = None
    """In the flat value."""

    def __str__(self) -> str:
        return (
            f"{self.file}: with {self.batch}, {self.value} differs from torch's by up to {self.largest:.2g}, of which"
            f" rounding explains {self.tolerance:.2g}"
        )


def check_against_torch(
    recipe: Recipe, models: Mapping[str, ModelProto], task: TaskDescription, features: Callable[[Samples], Samples]
) -> None:
    """Compare the graphs of a recipe, or of its head on `features`, with torch on random samples of `task`.

    Raises:
        ConfigurationError: naming the submodule at fault, by how much it differs, and a remedy.
    """
    draws = [features(random_samples(task, seed)).take(slice(0, 2 * MOST_ROWS)) for seed in range(3)]
    for file, model in models.items():
        if (check := _CHECKS.get(file)) is None:
            continue
        recipe.set_training(file in (TRAIN_FILE, TRAIN_PER_SAMPLE_FILE))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a model may print
                difference: object = check(recipe, file, model, draws)
        except (Fail, InvalidArgument, RuntimeException) as error:
            difference = f"{file}: the graph does not run on other numbers of rows than it was traced with: {error}"
        if difference is not None:
            raise _refusal(recipe, difference, draws[0])


def _refusal(recipe: Recipe, difference: object, samples: Samples) -> ConfigurationError:
    place, remedy = differing_module(recipe.module, torch.from_numpy(samples.inputs[:MOST_ROWS]))
    return ConfigurationError(f"{difference}; {place}; {remedy}")


def _check_inference(recipe: Recipe, file: str, model: ModelProto, draws: Sequence[Samples]) -> Difference | None:
    session = _session(model)
    names = [entry.name for entry in session.get_inputs() if entry.name not in _SCALES]
    function = evaluation(recipe, names) if file == EVALUATE_FILE else prediction(recipe)
    outputs = [entry.name for entry in session.get_outputs()]
    weights = join(list(recipe.tensors.values())).numpy()
    for number, samples in enumerate(draws):
        rows = slice(0, 1 if number == 1 else MOST_ROWS)
        feeds = _samples_fed(session, samples.take(rows)) | {"weights": weights}
        found = session.run(None, {name: value for name, value in feeds.items() if name in names or name in _SCALES})
        inputs = [torch.from_numpy(feeds[name]) for name in names]
        batch = "a batch of one" if number == 1 else "a full batch"
        difference = _first_difference(file, batch, outputs, found, function, inputs)
        if difference is not None:
            return difference
    return None


def _check_training(recipe: Recipe, file: str, model: ModelProto, draws: Sequence[Samples]) -> Difference | None:
    per_sample = file == TRAIN_PER_SAMPLE_FILE
    size = recipe.task.training.batch_size
    rows = size if per_sample else min(size, MOST_ROWS)
    names = [entry.name for entry in step_inputs(recipe, per_sample=per_sample)]
    session = _session(_with_everything_carried(model, names))
    function = step_function(recipe, names, per_sample=per_sample)
    for kind in _batch_kinds(rows, fixed=per_sample):
        steps = _Steps(recipe, session, names, draws[kind.draw], kind)
        for step in range(STEPS):
            difference = steps.difference(file, function, step)
            if difference is not None:
                return _with_parameter_named(recipe, difference)
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


def _batch_kinds(rows: int, *, fixed: bool) -> Iterator[BatchKind]:
    yield BatchKind("a full batch", rows, rows, 0)
    if rows > 2:
        real = rows // 2 + 1
        yield BatchKind("a padded batch", rows, real, 0)
        yield BatchKind("a padded batch", rows, real, 1, padding=rows)
    if not fixed:
        yield BatchKind("a batch of one", 1, 1, 2)


class _Steps:
    """A few steps of one training graph on batches of one kind, and torch's steps from the same places."""

    def __init__(
        self,
        recipe: Recipe,
        session: onnxruntime.InferenceSession,
        names: Sequence[str],
        samples: Samples,
        kind: BatchKind,
    ) -> None:
        self._recipe = recipe
        self._session = session
        self._names = names
        self._kind = kind
        self._feeds = _samples_fed(session, samples)
        count = len(samples)
        self._batches = np.full((STEPS, kind.rows), kind.padding % count, np.int64)
        real = np.arange(STEPS * kind.real).reshape(STEPS, kind.real) % count
        self._batches[:, : kind.real] = real
        self._carried = [name for name in names if name in ("weights", "buffers") or name.startswith(STATE)]
        weights = join(list(recipe.tensors.values())).numpy()
        self._trainable = sum(parameter.size for parameter in recipe.parameters if parameter.trainable)
        plan = recipe.task.training
        rates = {
            "weight_decay": plan.weight_decay,
            "gradient_clip": plan.gradient_clip or np.inf,
            "proximal": plan.proximal,
        }
        scalars = {name: np.array(value, np.float32) for name, value in rates.items()}
        self._feeds |= scalars | {
            "weights": weights,
            "learning_rate": np.array(LEARNING_RATE, np.float32),
            "seed": np.array(SEED, np.int64),
        }

    def difference(self, file: str, function: Function, step: int) -> Difference | None:
        """The first value after this step that differs by more than rounding."""
        before, after = self._run(step), self._run(step + 1)
        values = {**before, **self._batch(step)}
        inputs = [torch.from_numpy(values[name].copy()) for name in self._names]
        found = [after[name] for name in self._carried]
        found.append(after["row_losses"][step, : self._kind.real])
        names = [*self._carried, "row_losses"]
        return _first_difference(
            file, self._kind.name, names, found, function, inputs, self._recipe.task.training.optimiser
        )

    def _run(self, steps: int) -> Feeds:
        """What is carried out of so many steps, by the names in a step, and the losses of their rows."""
        weights = self._feeds["weights"]
        mask = np.zeros((max(steps, 1), self._kind.rows), np.float32)
        mask[:steps, : self._kind.real] = 1
        feeds = self._feeds | {"batches": self._batches[: max(steps, 1)], "mask": mask}
        taken = {entry.name for entry in self._session.get_inputs()}
        outputs = [entry.name for entry in self._session.get_outputs()]
        found = dict(zip(outputs, self._session.run(None, {n: v for n, v in feeds.items() if n in taken}), strict=True))
        scan = {name: found[f"{_CARRIED}{name}"] for name in self._carried}
        if not steps:  # a step on padding alone leaves the weights, but decays the state
            scan = {name: np.zeros_like(value) for name, value in scan.items()}
            scan |= {"weights": weights[: self._trainable]} | (
                {"buffers": weights[self._trainable :]} if "buffers" in scan else {}
            )
        priors = {name: value for name, value in found.items() if name in self._names}
        return {**priors, **scan, "row_losses": found["row_losses"]}

    def _batch(self, step: int) -> Feeds:
        """What a step is a function of beside what is carried: the real rows alone, of equal weight."""
        rows = self._batches[step, : self._kind.real]
        weights = np.full(self._kind.real, 1 / self._kind.real, np.float32)
        values: Feeds = {name: self._feeds[name][rows] for name in ("inputs", "labels") if name in self._feeds}
        return {
            **{name: self._feeds[name] for name in self._names if name in self._feeds and name not in self._carried},
            **values,
            "row_weights": weights,
            "anchor": self._feeds["weights"][: self._trainable],
            "seed": np.array(SEED + step, np.int64),
        }


def _first_difference(  # noqa: PLR0917 - one row of a table of results
    file: str,
    batch: str,
    names: Sequence[str],
    found: Sequence[NDArray[np.generic]],
    function: Function,
    inputs: Sequence[Tensor],
    optimiser: str = "",
) -> Difference | None:
    """The first result that differs, also from what more runs of torch take for rounding."""
    difference = None
    for runs in (FEW_RUNS, MANY_RUNS):
        try:
            expected = reference(function, inputs, runs)
        except ValueError as error:  # batch normalisation of a single value
            if batch == "a batch of one":
                return None
            raise ConfigurationError(f"{file}: torch refuses to train with {batch}: {error}") from error
        difference = next(_differences(file, batch, names, found, expected, optimiser), None)
        if difference is None:
            return None
    return difference


def _differences(  # noqa: PLR0917 - one row of a table of results
    file: str,
    batch: str,
    names: Sequence[str],
    found: Sequence[NDArray[np.generic]],
    expected: Reference,
    optimiser: str,
) -> Iterator[Difference]:
    for place, name in enumerate(names):
        exact, ours = expected.exact[place], found[place].astype(np.float64)
        tolerance: NDArray[np.float64] | float = expected.tolerance(place)
        if name == "weights" and optimiser in DIVIDING_OPTIMISERS:
            first = names.index(FIRST_MOMENT)
            share = expected.tolerance(first) / np.maximum(np.abs(expected.exact[first]), np.finfo(np.float64).tiny)
            tolerance = tolerance + 4 * LEARNING_RATE * np.minimum(share, 1)
        if ours.shape != exact.shape:
            yield Difference(file, batch, f"{name} {ours.shape} instead of {exact.shape}", np.inf, 0.0)
            continue
        apart = np.where(np.isfinite(exact) | np.isfinite(ours), np.abs(ours - exact), 0.0)
        apart = np.where(np.isnan(apart), np.inf, apart)
        if (apart > tolerance).any():
            worst = int(np.argmax(apart - tolerance))
            allowed = float(np.broadcast_to(tolerance, apart.shape).flat[worst])
            yield Difference(file, batch, name, float(apart.flat[worst]), allowed, worst)


_CARRIED = "carried."
_SCALES = {name: float(name.endswith("deviation")) for names in SCALE_INPUTS.values() for name in names}
"""What stands for a scale that changes nothing."""


def _with_everything_carried(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with more outputs: what its Scan carries, the losses of rows, and what else a step reads."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    graph = shown.graph
    scan = next(node for node in graph.node if "row_losses" in node.output)
    carried = [name for name in names if name in ("weights", "buffers") or name.startswith(STATE)]
    for name, value in zip(carried, scan.output[:-1], strict=True):
        graph.node.append(helper.make_node("Identity", [value], [f"{_CARRIED}{name}"]))
    made = {value for node in graph.node for value in node.output}
    more = [f"{_CARRIED}{name}" for name in carried] + ["row_losses"] + [name for name in names if name in made]
    graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in more)
    return shown


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _samples_fed(session: onnxruntime.InferenceSession, samples: Samples) -> Feeds:
    """The samples and, where the graph scales them, a scale that changes nothing."""
    entries = {entry.name: entry for entry in session.get_inputs()}
    scales = {
        name: np.full(entries[name].shape, value, np.float32) for name, value in _SCALES.items() if name in entries
    }
    inputs = samples.inputs
    if set(SCALE_INPUTS["inputs"]) & set(scales):
        inputs = np.clip(inputs, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    labels = {"labels": samples.labels} if "labels" in entries else {}
    return {"inputs": inputs, **labels, **scales}


_CHECKS = {
    TRAIN_FILE: _check_training,
    TRAIN_PER_SAMPLE_FILE: _check_training,
    EVALUATE_FILE: _check_inference,
    PREDICT_FILE: _check_inference,
}
