"""A task's steps, run block by block in this process as devices and their helpers run them together.

Each block has a holder; chains of several devices may share what a helper holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from bundle_runtime.blocks import BlockRunner, Floats, State
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates
from fleet_protocol.bundle_files import TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_placement import passes_of
from fleet_protocol.split_plan import Cut, SplitPlan, is_helpers
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

    @classmethod
    def of(cls, recipe: Recipe) -> "ExportedTask":
        """Of a recipe with a `split`: what trains, and no more of the bundle."""
        halves = split(recipe) if recipe.task.backbone else None
        trained = halves.head if halves else recipe
        assert trained.task.split is not None
        division = divide(trained, trained.task.split.points)
        trained.set_training(True)
        models = {TRAIN_FILE: checked_model(training_graph(trained)), **dict(block_models(division))}
        files = {name: admitted(name, model) for name, model in models.items()}
        files[WEIGHTS_FILE] = save({name: value.contiguous() for name, value in recipe.tensors.items()})
        return cls(described(recipe, models, files, halves=halves, division=division), files)

    @property
    def description(self) -> TaskDescription:
        """The task, as a bundle calls it."""
        return self.task

    @property
    def plan(self) -> SplitPlan:
        """How it divides."""
        assert self.task.split is not None
        return self.task.split

    @property
    def rates(self) -> Rates:
        """Those that its recipe says."""
        return Rates.planned(self.task.training)

    @property
    def weights(self) -> FloatVector:
        """The untrained ones, f32[P]."""
        return read_weights(self.files[WEIGHTS_FILE], self.task.parameters)


@dataclass(slots=True)
class Held:
    """A block as its side holds it: a runner of that side's blocks alone, and what training changes."""

    runner: BlockRunner
    weights: FloatVector
    state: State
    anchor: FloatVector

    @classmethod
    def untrained(cls, runner: BlockRunner, block: int, flat: FloatVector) -> "Held":
        """With what the flat weight vector says."""
        weights = runner.weights_of(block, flat)
        return cls(runner, weights, runner.new_state(block), weights)


def held_by_sides(exported: ExportedTask, cut: Cut | None) -> list[Held]:
    """Each block, untrained, as the device or, as a cut says, its helper holds it."""
    blocks = range(len(exported.plan.blocks))
    at_helper = [cut is not None and is_helpers(cut, block) for block in blocks]
    runners = {
        side: BlockRunner(exported.task, exported.files, [block for block in blocks if at_helper[block] is side])
        for side in set(at_helper)
    }
    return [Held.untrained(runners[at_helper[block]], block, exported.weights) for block in blocks]


class Passing(Protocol):
    """What becomes of values on their way from one block's holder to the next one's."""

    def forward(self, block: int, values: Floats) -> Floats:
        """Of what a block gives, f32[N, ...]."""

    def back(self, block: int, gradient: Floats) -> Floats:
        """Of the gradient by that, f32[N, ...]."""


class AsItIs:
    """They arrive as they are."""

    def forward(self, _block: int, values: Floats) -> Floats:
        """The same."""
        return values

    back = forward


class Chain:
    """All blocks of a task, one behind the other, and how they train; `held` are they. `given` is what each took in the
    last pass.
    """

    def __init__(
        self,
        exported: ExportedTask,
        held: Sequence[Held],
        labels: NDArray[np.int64] | NDArray[np.float32],
        rates: Rates,
        passing: Passing | None = None,
    ) -> None:
        self._task, self._plan, self._rates, self.held = exported.task, exported.plan, rates, held
        self._passing = passing or AsItIs()
        self._priors = held[-1].runner.log_priors(labels)
        self._until = {each.part: each.until for each in passes_of(self._plan, self._task.buffered_blocks)}
        self.given: list[Floats] = []

    @property
    def weights(self) -> FloatVector:
        """f32[P] of the whole model."""
        flat = np.full(self._task.parameter_count, np.nan, np.float32)
        for block, held in enumerate(self.held):
            held.runner.into(flat, block, held.weights)
        return flat

    def train(self, batch: Samples, row_weights: FloatVector, seed: int) -> float:
        """One step, and its loss."""
        return sum(self.turn(batch, row_weights, seed, part) for part in self._plan.turns)

    def turn(self, batch: Samples, row_weights: FloatVector, seed: int, part: str) -> float:
        """The pass of a step for one part of the task, and its loss."""
        given = [batch.inputs]
        for block, held in enumerate(self.held[:-1]):
            values = held.runner.forward(
                block, held.weights, given[-1], seed=seed, row_weights=row_weights, raw=batch.inputs
            )
            given.append(self._passing.forward(block, values))
        self.given, last = given, self.held[-1]
        made = last.runner.last(
            last.weights,
            last.state,
            given[-1],
            batch.labels,
            part=part,
            log_priors=self._priors,
            anchor=last.anchor,
            seed=seed,
            row_weights=row_weights,
            raw=batch.inputs,
            rates=self._rates,
        )
        last.weights, last.state = made.weights, made.state
        self._back(made.input_gradient, batch, row_weights, seed, part)
        return float(made.row_losses @ row_weights)

    def _back(self, gradient: Floats | None, batch: Samples, row_weights: FloatVector, seed: int, part: str) -> None:
        """The backward pass from in front of the last block, as far as it changes something."""
        for block in reversed(range(self._until[part], len(self.held) - 1)):
            held = self.held[block]
            assert gradient is not None  # only the first block has none
            passed = held.runner.backward(
                block,
                held.weights,
                held.state,
                self.given[block],
                self._passing.back(block, gradient),
                anchor=held.anchor,
                update=part in ("", self._plan.blocks[block].part),
                seed=seed,
                row_weights=row_weights,
                raw=batch.inputs,
                rates=self._rates,
            )
            held.weights, held.state, gradient = passed.weights, passed.state, passed.input_gradient
