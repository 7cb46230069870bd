"""The steps of a round, in one call of the training graph or in a call each with something done in between. Pure.

With plain SGD nothing goes from one step to the next but the weights, so single calls compute what one call of all
steps does.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.engine import (
    REPORT_SECONDS,
    BatchPlan,
    OnProgress,
    Rates,
    TrainingEngine,
    ignore_progress,
)
from fleet_protocol.codec.sparse import FloatVector

Between = Callable[[int, FloatVector, FloatVector], FloatVector]
"""From the number of a step, the weights f32[P] before and after it: those that the next step begins with."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A step for each of the `batches`, on `samples`. Each way to take them gives the weights f32[P] behind them.

    Raises:
        EngineError: bundle and samples contradict each other.
    """

    engine: TrainingEngine
    samples: Samples
    batches: BatchPlan
    rates: Rates

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.batches.rows)

    def at(self, learning_rate: float) -> "Steps":
        """The same with another learning rate."""
        return replace(self, rates=replace(self.rates, learning_rate=learning_rate))

    def every_second(self, first: int, count: int) -> "Steps":
        """So many of them, from the `first` on."""
        chosen = slice(first, first + 2 * count, 2)
        seed = self.batches.seed + first * count
        return replace(self, batches=BatchPlan(self.batches.rows[chosen], self.batches.mask[chosen], seed))

    def one(self, weights: FloatVector, number: int) -> tuple[FloatVector, np.float32]:
        """The step of this number alone, and its loss."""
        row = slice(number, number + 1)
        batch = BatchPlan(self.batches.rows[row], self.batches.mask[row], self.batches.seed + number)
        trained, losses = self.engine.train(weights, self.samples, batch, self.rates)
        return trained, losses[0]

    def together(
        self, weights: FloatVector, on_progress: OnProgress = ignore_progress
    ) -> tuple[FloatVector, FloatVector]:
        """All of them as the engine takes them, and the loss of each."""
        return self.engine.train(weights, self.samples, self.batches, self.rates, on_progress)

    def singly(
        self, weights: FloatVector, between: Between, on_progress: OnProgress = ignore_progress
    ) -> tuple[FloatVector, FloatVector]:
        """All of them, with `between` behind each, and the loss of each."""
        losses = np.empty(self.count, np.float32)
        said = time.monotonic()
        for step in range(self.count):
            trained, losses[step] = self.one(weights, step)
            weights = between(step, weights, trained)
            if step + 1 == self.count or time.monotonic() - said > REPORT_SECONDS:
                on_progress(step + 1, losses[: step + 1])
                said = time.monotonic()
        return weights, losses
