"""A participant at work on its chain of blocks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.chained_blocks import Chain
from benchmarks.split_gans.border import Border
from benchmarks.split_gans.scenario import Participant
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan
from fleet_protocol.split_plan import WireFormat

REAL = 1
"""Of what a discriminator's block gives for each sample: first that of what is made, then that of what is real."""


@dataclass(frozen=True, slots=True)
class Training:
    """How all train: `iterations` of each, how values pass between devices and helper, whether in lockstep, and the
    `noise` on what leaves a device, in deviations of it.
    """

    iterations: int
    learning_rate: float
    seed: int
    wire: WireFormat = "float32"
    lockstep: bool = False
    noise: float = 0.0


@dataclass(slots=True)
class Trainee:
    """A participant at work; `looked_at` sums its activations f64[V] over the real rows of `steps` steps."""

    participant: Participant
    samples: Samples
    batches: BatchPlan
    border: Border
    chain: Chain
    looked_at: NDArray[np.float64] | float = 0.0
    steps: int = 0

    def turn(self, step: int, part: str) -> float:
        """One pass, and its loss."""
        rows, mask = self.batches.rows[step], self.batches.mask[step]
        seed = (self.batches.seed + step) % 2**32
        return self.chain.turn(self.samples.take(rows), mask / mask.sum(), seed, part)

    def look_at(self, step: int, block: int) -> None:
        """Add what the block gave in the step's last pass."""
        given = self.chain.given[block + 1][self.batches.mask[step] > 0]
        self.looked_at = self.looked_at + given[:, REAL].reshape(len(given), -1).mean(axis=0, dtype=float)
        self.steps += 1
