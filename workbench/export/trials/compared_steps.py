"""Training steps of a graph beside those that torch takes from the places which the graph has reached."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, helper

from bundle_runtime.graph import Session, open_session, session_options
from bundle_runtime.samples import Samples
from bundle_runtime.scale_feeds import SCALE_INPUTS
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import MOST_DEVIATIONS
from workbench.export.graphs.flat_weights import join
from workbench.export.graphs.gradients import STATE
from workbench.export.recipe.recipe import Recipe
from workbench.export.trials.compared_values import LEARNING_RATE, ONE, Difference, first_difference
from workbench.export.trials.torch_reference import Function

STEPS = 2
"""The second one starts from an optimiser state that isn't zero."""
SEED = 5
CORRECTION_OF_A_TRIAL = 0.01
"""In each entry, of a task that corrects drift."""
_CARRIED = "carried."
SCALES = {name: float(name.endswith("deviation")) for names in SCALE_INPUTS.values() for name in names}
"""What stands for a scale that changes nothing."""

Feeds = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class BatchKind:
    """A mini-batch of so many rows, the first `real` of which count; `draw` numbers the data that it is from."""

    name: str
    rows: int
    real: int
    draw: int
    padding: int = 0
    """Which sample fills it up."""


def batch_kinds(rows: int, *, fixed: bool) -> Iterator[BatchKind]:
    """The batches to compare: full ones of `rows`, padded ones and, where the number of rows isn't `fixed`, one row."""
    yield BatchKind("a full batch", rows, rows, 0)
    if rows > 2:
        real = rows // 2 + 1
        yield BatchKind("a padded batch", rows, real, 0)
        yield BatchKind("a padded batch", rows, real, 1, padding=rows)
    if not fixed:
        yield BatchKind(ONE, 1, 1, 2)


class Steps:
    """A few steps of one training graph on batches of one kind, and torch's steps from the same places."""

    def __init__(
        self,
        recipe: Recipe,
        session: Session,
        names: Sequence[str],
        samples: Samples,
        kind: BatchKind,
    ) -> None:
        self._recipe = recipe
        self._session = session
        self._names = names
        self._kind = kind
        self._feeds = samples_fed(session, samples)
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
            "correction": np.full(self._trainable, CORRECTION_OF_A_TRIAL, np.float32),
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
        return first_difference(
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


def with_everything_carried(model: ModelProto, names: Sequence[str]) -> ModelProto:
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


def session_of(model: ModelProto) -> Session:
    """The model in a session with one thread.

    Raises:
        ConfigurationError: onnxruntime can't load it.
    """
    options = session_options(threads=1)
    options.log_severity_level = 4  # what fails is raised
    try:
        return open_session(model.SerializeToString(), options)
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        said = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"onnxruntime can't load a graph of this model ({said}); replace the layer that it names, and report it"
        ) from error


def samples_fed(session: Session, samples: Samples) -> Feeds:
    """The samples and, where the graph scales them, a scale that changes nothing."""
    entries = {entry.name: entry for entry in session.get_inputs()}
    scales = {
        name: np.full(entries[name].shape, value, np.float32) for name, value in SCALES.items() if name in entries
    }
    inputs = samples.inputs
    if set(SCALE_INPUTS["inputs"]) & set(scales):
        inputs = np.clip(inputs, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    labels = {"labels": samples.labels} if "labels" in entries else {}
    return {"inputs": inputs, **labels, **scales}
