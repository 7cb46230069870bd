"""Participants that train a generator and its discriminator, block by block, with copies of blocks that some share.

A step is that of the exported graphs, chained (benchmarks/chained_blocks.py): a device's own blocks and those of its
helper, one device after the other, as a helper that waits for nobody would serve them. Optimisers keep their state with
whoever holds the block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.chained_blocks import Chain, ExportedTask, Held
from benchmarks.split_gans.scenario import ROWS, Participant
from broker_coordinator.aggregation.clusters import BlockMean, averaged
from bundle_runtime.blocks import BlockRunner
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, Rates, plan_batches
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import SplitPlan

LOOKED_AT = "discriminator.block3"
"""The layer in the middle that clusters follow from: always a helper's."""
REAL = 1
"""Of what a discriminator's block gives for each sample: first that of what is made, then that of what is real."""
HELPER = "helper"

HolderOf = Callable[[Participant, int, SplitPlan], str]
"""Who holds the block of this number that a participant's steps go through."""


@dataclass(slots=True)
class Trainee:
    """A participant at work; `looked_at` sums its activations f64[V] over the real rows of `steps` steps."""

    participant: Participant
    samples: Samples
    batches: BatchPlan
    chain: Chain
    looked_at: NDArray[np.float64] | float = 0.0
    steps: int = 0


class GanFleet:
    """All participants of a method."""

    def __init__(
        self,
        exported: ExportedTask,
        participants: Sequence[Participant],
        holder_of: HolderOf,
        *,
        iterations: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        """Everybody begins with the exported weights."""
        self.plan, self.participants = exported.plan, participants
        self._blocks = range(len(self.plan.blocks))
        self._looked_at = [block.point for block in self.plan.blocks].index(LOOKED_AT)
        runner = BlockRunner(exported.task, exported.files, self._blocks)
        self._held: dict[tuple[str, int], Held] = {}
        self._trainees = {}
        for number, participant in enumerate(participants):
            keys = [(holder_of(participant, block, self.plan), block) for block in self._blocks]
            for holder, block in keys:
                self._held.setdefault((holder, block), Held.untrained(runner, block, exported.weights))
            samples = participant.data.samples()
            chain = Chain(exported, [self._held[key] for key in keys], samples.labels, Rates(learning_rate))
            batches = plan_batches(len(samples), iterations * participant.steps, ROWS, seed * 1000 + number)
            self._trainees[participant.name] = Trainee(participant, samples, batches, chain)

    def iterate(self, iteration: int) -> None:
        """The steps of each participant; iterations count from 0."""
        for trainee in self._trainees.values():
            first = iteration * trainee.participant.steps
            for step in range(first, first + trainee.participant.steps):
                self._step(trainee, step)

    def _step(self, trainee: Trainee, step: int) -> None:
        rows, mask = trainee.batches.rows[step], trainee.batches.mask[step]
        trainee.chain.train(trainee.samples.take(rows), mask / mask.sum(), (trainee.batches.seed + step) % 2**32)
        given = trainee.chain.given[self._looked_at + 1][mask > 0]
        trainee.looked_at = trainee.looked_at + given[:, REAL].reshape(len(given), -1).mean(axis=0, dtype=float)
        trainee.steps += 1

    def take_activations(self) -> dict[str, NDArray[np.float64]]:
        """Each participant's mean activation f64[V] since they were last taken."""
        found = {}
        for name, trainee in self._trainees.items():
            found[name] = np.asarray(trainee.looked_at) / max(trainee.steps, 1)
            trainee.looked_at, trainee.steps = 0.0, 0
        return found

    def average(self, means: Sequence[BlockMean]) -> None:
        """Give all receivers their means."""
        found = [
            averaged(mean, {holder: self._held[holder, mean.block].weights for holder in mean.shares}) for mean in means
        ]
        for mean, weights in zip(means, found, strict=True):
            if weights is not None:
                for receiver in mean.receivers:
                    self._held[receiver, mean.block].weights = weights

    def swap(self, names: Sequence[str], block: int) -> None:
        """Let participants have each other's block, with its optimiser's state: each that of the next in the list."""
        held = [self._held[name, block] for name in names]
        taken = [(each.weights, each.state) for each in held]
        for each, (weights, state) in zip(held, taken[1:] + taken[:1], strict=True):
            each.weights, each.state = weights, state

    def weights_of(self, participant: Participant) -> FloatVector:
        """f32[P] of the pair that a participant's steps go through."""
        return self._trainees[participant.name].chain.weights
