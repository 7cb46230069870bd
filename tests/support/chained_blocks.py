"""A task's steps, run block by block as a device and a helper run them together, beside the steps of its own graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors.torch import save

from bundle_runtime.blocks import BlockRunner, State
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle_files import TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.split_plan import Cut, is_helpers
from fleet_protocol.task_description import TaskDescription
from workbench.export.backbone.backbone import split
from workbench.export.blocks.block_graphs import block_models
from workbench.export.blocks.division import divide
from workbench.export.bundle_writer import admitted
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.graphs.training_graph import training_graph
from workbench.export.recipe.recipe import Recipe
from workbench.export.task_description import described


@dataclass(frozen=True, slots=True)
class ExportedTask:
    """A bundle, and what it trains with here."""

    task: TaskDescription
    files: Mapping[str, bytes]

    @property
    def description(self) -> TaskDescription:
        """The same."""
        return self.task

    @classmethod
    def of(cls, recipe: Recipe) -> "ExportedTask":
        """Of a recipe with a `split`: what trains, and no more of the bundle."""
        halves = split(recipe) if recipe.task.backbone else None
        trained = halves.head if halves else recipe
        division = divide(trained, trained.task.split.points)
        trained.set_training(True)
        models = {TRAIN_FILE: checked_model(training_graph(trained)), **dict(block_models(division))}
        files = {name: admitted(name, model) for name, model in models.items()}
        files[WEIGHTS_FILE] = save({name: value.contiguous() for name, value in recipe.tensors.items()})
        return cls(described(recipe, models, files, halves=halves, division=division), files)

    @property
    def rates(self) -> Rates:
        return Rates.planned(self.task.training)

    @property
    def weights(self) -> np.ndarray:
        return read_weights(self.files[WEIGHTS_FILE], self.task.parameters)


@dataclass(slots=True)
class Held:
    """A block as its side holds it: a runner of that side's blocks alone, and what training changes."""

    runner: BlockRunner
    weights: np.ndarray
    state: State
    anchor: np.ndarray


class Chain:
    """All blocks of a task, each held by the device or, as a cut says, by its helper."""

    def __init__(self, exported: ExportedTask, cut: Cut | None, labels: np.ndarray) -> None:
        self._task, self._rates = exported.task, exported.rates
        blocks = range(len(self._task.split.blocks))
        at_helper = [cut is not None and is_helpers(cut, block) for block in blocks]
        runners = {
            side: BlockRunner(self._task, exported.files, [block for block in blocks if at_helper[block] is side])
            for side in set(at_helper)
        }
        self._held = []
        for block in blocks:
            runner = runners[at_helper[block]]
            weights = runner.weights_of(block, exported.weights)
            self._held.append(Held(runner, weights, runner.new_state(block), weights))
        self._priors = self._held[-1].runner.log_priors(labels)

    @property
    def weights(self) -> np.ndarray:
        """f32[P] of the whole model."""
        flat = np.full(self._task.parameter_count, np.nan, np.float32)
        for block, held in enumerate(self._held):
            held.runner.into(flat, block, held.weights)
        return flat

    def train(self, batch: Samples, row_weights: np.ndarray, seed: int) -> float:
        """One step, and its loss."""
        return sum(self._pass(batch, row_weights, seed, part) for part in self._task.split.turns)

    def _pass(self, batch: Samples, row_weights: np.ndarray, seed: int, part: str) -> float:
        common = {"seed": seed, "row_weights": row_weights, "raw": batch.inputs}
        given = [batch.inputs]
        for block, held in enumerate(self._held[:-1]):
            given.append(held.runner.forward(block, held.weights, given[-1], **common))
        common["rates"], last = self._rates, self._held[-1]
        made = last.runner.last(
            last.weights,
            last.state,
            given[-1],
            batch.labels,
            part=part,
            log_priors=self._priors,
            anchor=last.anchor,
            **common,
        )
        last.weights, last.state, gradient = made.weights, made.state, made.input_gradient
        for block in reversed(range(len(given) - 1)):
            held, update = self._held[block], part in ("", self._task.split.blocks[block].part)
            passed = held.runner.backward(
                block, held.weights, held.state, given[block], gradient, anchor=held.anchor, update=update, **common
            )
            held.weights, held.state, gradient = passed.weights, passed.state, passed.input_gradient
        return float(made.row_losses @ row_weights)


def train_chained(
    exported: ExportedTask, cut: Cut | None, samples: Samples, plan: BatchPlan
) -> tuple[np.ndarray, np.ndarray]:
    """Trained weights f32[P] and the loss of each mini-batch f32[K]."""
    chain = Chain(exported, cut, samples.labels)
    losses = [
        chain.train(samples.take(rows), mask / mask.sum(), plan.seed + step)
        for step, (rows, mask) in enumerate(zip(plan.rows, plan.mask, strict=True))
    ]
    return chain.weights, np.array(losses)


def train_whole(exported: ExportedTask, samples: Samples, plan: BatchPlan) -> tuple[np.ndarray, np.ndarray]:
    """The same by `train.onnx`."""
    engine = OnnxStepEngine.of_task(exported.task, exported.files)
    return engine.train(exported.weights, samples, plan, exported.rates)
